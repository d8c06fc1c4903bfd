"""Tasks and jobs: scaled by what waits, retried, buried, never lost; run on time and once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from shoal.api.views import AgentView
from shoal.core.queued import QueuedTask
from tests.conformance.bed import FleetBed
from tests.conformance.sink import Sink

FAST_DOWN = {
    "scale_down": {"stabilization_window": "1s", "policies": [{"type": "percent", "value": 100, "period": "1s"}]}
}


def effects(sink: Sink) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sink.said()]


def done(sink: Sink) -> list[str]:
    return [effect["name"] for effect in effects(sink) if effect["event"] == "done"]


async def until(holds: Callable[[], object], bed: FleetBed, what: str) -> None:
    await bed.until(lambda _: bool(holds()), what)


async def buried(bed: FleetBed, number: int) -> tuple[QueuedTask, ...]:
    """Waits for the queue to be empty but for so many dead letters."""
    while True:
        queues = {queue.name: queue for queue in await bed.api.queues()}
        queue = queues["tasks"]
        if (queue.waiting, queue.in_progress, queue.dead) == (0, 0, number):
            return await bed.api.tasks("tasks", dead=True)
        await bed.until(lambda _: True, "an answer")


def queue_fleet(bed: FleetBed, sink: Sink, scale: dict[str, Any], **queue: Any) -> dict[str, Any]:
    worker = bed.program("worker_agent.py", queue="tasks", scale=scale, environment={"SINK": sink.url()})
    return {
        "agents": {"web": bed.http_agent(public={"path": "/web"}, publishes=["tasks"]), "worker": worker},
        "queues": {"tasks": queue},
        "brokers": {"main": {"type": "embedded"}},
    }


async def test_queue_scaling(bed: FleetBed, sink: Sink) -> None:
    """A worker at zero wakes with the first tasks, grows with the depth, does each once, and goes back to zero."""
    scale = {"min": 0, "max": 4, "target": {"queue_depth": 5}, "behavior": FAST_DOWN}
    await bed.up(queue_fleet(bed, sink, scale))
    await bed.until_agent("worker", lambda a: a.desired == 0, "the worker to sleep")
    assert (await bed.get("/web/publish?queue=tasks&n=40&name=t&ms=100"))[0] == 200
    await bed.until_agent("worker", lambda a: a.desired >= 3, "more workers")
    await bed.until_agent("worker", lambda a: a.queue_depth == 0 and a.desired == 0 and not a.replicas, "the end")
    assert sorted(done(sink)) == sorted(f"t-{n}" for n in range(40))


async def test_poison_task_becomes_a_dead_letter(bed: FleetBed, sink: Sink) -> None:
    """A task that fails each time is tried as often as declared, then buried with its reason; others pass by."""
    await bed.up(queue_fleet(bed, sink, {"min": 1, "max": 1}, max_attempts=3))
    await bed.get("/web/publish?queue=tasks&name=bad&poison=1")
    await bed.get("/web/publish?queue=tasks&n=5&name=good")
    letters = await buried(bed, 1)
    assert [letter.attempts for letter in letters] == [3] and "poison" in letters[0].reason
    starts = [e["attempt"] for e in effects(sink) if e["event"] == "start" and e["name"] == "bad-0"]
    assert starts == [1, 2, 3]
    assert sorted(done(sink)) == [f"good-{n}" for n in range(5)]
    assert await bed.api.redrive("tasks") == 1
    again = await buried(bed, 1)
    assert again[0].at is not None and letters[0].at is not None and again[0].at > letters[0].at
    assert [e["attempt"] for e in effects(sink) if e["event"] == "start" and e["name"] == "bad-0"] == [1, 2, 3] * 2


async def test_worker_killed_in_the_middle_of_a_task(bed: FleetBed, sink: Sink) -> None:
    """kill -9 of a worker: its task is given to another one after `ack_wait`, and done."""
    await bed.up(queue_fleet(bed, sink, {"min": 1, "max": 1}, ack_wait="2s"))
    await bed.get("/web/publish?queue=tasks&name=long&ms=5000")
    await until(lambda: effects(sink), bed, "the task to start")
    (replica,) = (await bed.replicas("worker")).values()
    await bed.kill_replica(replica, effects(sink)[0]["pid"])
    await until(lambda: done(sink), bed, "the task to be done")
    starts = [e for e in effects(sink) if e["event"] == "start"]
    assert len(starts) == 2
    assert (starts[0]["replica"], starts[0]["pid"]) != (starts[1]["replica"], starts[1]["pid"])
    assert done(sink) == ["long-0"]


def _three_ran(agent: AgentView) -> bool:
    """The last one may be under way: where each is a pod, the next is due before it has ended."""
    return sum(run.phase == "succeeded" for run in agent.runs) >= 3


async def test_cron(bed: FleetBed, sink: Sink) -> None:
    """A job runs at its times, each time once, and its history is kept."""
    job = bed.program("job_agent.py", schedule={"cron": "*/2 * * * * *"}, environment={"SINK": sink.url()})
    await bed.up({"agents": {"job": job}})
    agent = await bed.until_agent("job", _three_ran, "three runs")
    assert len({run.run_id for run in agent.runs}) == len(agent.runs)
    ran = [line.split()[0] for line in sink.said()]
    assert len(ran) == len(set(ran))


async def test_run_now_with_retries(bed: FleetBed, sink: Sink) -> None:
    """`run` starts a run beside the schedule; a failed attempt is repeated as often as declared."""
    environment = {"SINK": sink.url(), "FAILS": "1"}
    job = bed.program("job_agent.py", schedule={"cron": "0 0 1 1 *"}, retries=2, environment=environment)
    await bed.up({"agents": {"job": job}})
    run_id = await bed.api.run("job")
    agent = await bed.until_agent(
        "job", lambda a: any(r.run_id == run_id and r.phase == "succeeded" for r in a.runs), "the run to succeed"
    )
    assert [(run.attempt, run.exit_code) for run in agent.runs] == [(2, 0)]
    assert len(sink.said()) == 2


async def test_a_job_that_calls(bed: FleetBed, sink: Sink) -> None:
    """With the first thing that it does it calls another agent, which answers: whoever routes that knows of it in time,
    or keeps the request until it does."""
    job = bed.program(
        "job_agent.py",
        schedule={"cron": "0 0 1 1 *"},
        calls=["web"],
        environment={"SINK": sink.url(), "CALLS": "WEB"},
    )
    await bed.up({"agents": {"web": bed.http_agent(), "job": job}})
    run_id = await bed.api.run("job")
    agent = await bed.until_agent(
        "job", lambda a: any(r.run_id == run_id and r.finished_at is not None for r in a.runs), "the run to end"
    )
    assert [(run.phase, run.attempt, run.exit_code) for run in agent.runs] == [("succeeded", 1, 0)]


@pytest.mark.parametrize("exit_code", [None, 0])
async def test_timeout(bed: FleetBed, sink: Sink, exit_code: int | None) -> None:
    """A run that takes too long is told to end and has failed, whatever its program makes of that; it is not begun
    again."""
    environment = {"SINK": sink.url(), "LASTS_S": "600"} | ({} if exit_code is None else {"AT_SIGTERM": f"{exit_code}"})
    job = bed.program("job_agent.py", schedule={"cron": "0 0 1 1 *"}, timeout="10s", environment=environment)
    await bed.up({"agents": {"job": job}})
    run_id = await bed.api.run("job")
    agent = await bed.until_agent("job", lambda a: any(r.phase == "failed" for r in a.runs), "the run to fail")
    assert [run.run_id for run in agent.runs] == [run_id] and "timed out after 10s" in agent.runs[0].reason
    await asyncio.sleep(3.0)  # in which it would be begun again
    (run,) = (run for each in (await bed.api.status()).agents for run in each.runs)
    assert run.phase == "failed" and len(sink.said()) == 1
