"""Stateful agents and jobs of the engine on a real Kubernetes, without a controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from kubernetes_rig import PATIENCE_S, SERVES, SERVICE, Rig, a_rig

from shoal.core.action import RunJob, Scale
from shoal.core.observed import AgentObserved, JobRun, Phase, Replica
from shoal.engines.kubernetes.api.kinds import JOB, POD
from tests.kubernetes_cluster import ClusterImages

STATEFUL = {**SERVICE, "stateful": True}
ENDS = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); signal.pause()"
RING = {"command": ["python3", "-c", ENDS], "queue": "tasks", "stateful": True, "stop_grace_period": "1s"}
KEEPS = 'import os; open("/data/starts", "a").write(os.environ["SHOAL_REPLICA"] + chr(10))\n' + SERVES


@pytest.fixture
async def rig(kubernetes_images: ClusterImages) -> AsyncIterator[Rig]:
    async with a_rig(kubernetes_images.agents) as rig:
        yield rig


async def identities(rig: Rig, *wanted: str) -> tuple[Replica, ...]:
    """Once ordinals from 0 on are of these revisions and ready, and nobody else is there."""

    def look(agent: AgentObserved) -> tuple[Replica, ...] | None:
        found = sorted(agent.replicas, key=lambda r: r.ordinal or 0)
        there = tuple((r.ordinal, r.revision) for r in found if r.ready)
        return tuple(found) if there == tuple(enumerate(wanted)) and len(found) == len(wanted) else None

    return await rig.until("stock", look)


async def test_a_rollout_of_identities_and_its_undoing(rig: Rig) -> None:
    """In control's order: the highest of the old one goes, then one of the new comes in its place. Those that nobody
    named stay, in both directions; ids are of one life each. Workers: what serves takes two seconds more to leave."""
    old, new = rig.ensure("stock", RING), rig.ensure("stock", {**RING, "environment": {"V": "2"}})
    v1, v2 = old.revision, new.revision
    await rig.act(old, Scale("stock", v1, 3))
    first = await identities(rig, v1, v1, v1)
    await rig.act(new, Scale("stock", v1, 2))
    await identities(rig, v1, v1)
    await rig.act(Scale("stock", v2, 1))
    await identities(rig, v1, v1, v2)
    await rig.act(Scale("stock", v1, 1))
    middle = await identities(rig, v1, v2, v2)
    assert middle[0].id == first[0].id and middle[1].id != first[1].id
    assert (await rig.engine.observe()).agents["stock"].counts == {v1: 1, v2: 2}
    await rig.act(Scale("stock", v2, 1))
    await identities(rig, v1, v2)
    await rig.act(Scale("stock", v1, 2))
    undone = await identities(rig, v1, v2, v1)
    assert [each.id for each in undone[:2]] == [each.id for each in middle[:2]], "nobody said that these go"
    await rig.act(Scale("stock", v2, 0))
    last = await identities(rig, v1, v1, v1)
    assert (last[0].id, last[2].id) == (first[0].id, undone[2].id)
    await rig.act(Scale("stock", v1, 0))
    await rig.until("stock", lambda agent: True if not agent.replicas else None)


async def test_an_identity_that_is_lost_comes_back_as_it_was(rig: Rig) -> None:
    """In the middle of a rollout too; with a name that others find it by."""
    old, new = rig.ensure("stock", STATEFUL), rig.ensure("stock", {**STATEFUL, "environment": {"V": "2"}})
    v1, v2 = old.revision, new.revision
    await rig.act(old, Scale("stock", v1, 2))
    await identities(rig, v1, v1)
    await rig.act(new, Scale("stock", v1, 1), Scale("stock", v2, 1))
    before = await identities(rig, v1, v2)
    for pod in ("stock-0", "stock-1"):
        await rig.kubernetes.delete(POD, pod, grace_s=0)
    after = await rig.until(
        "stock",
        lambda agent: (
            agent.replicas
            if len(agent.replicas) == 2 and all(r.ready and r.id not in {b.id for b in before} for r in agent.replicas)
            else None
        ),
    )
    assert {each.ordinal: each.revision for each in after} == {0: v1, 1: v2}
    assert all(each.id.startswith(f"stock-{each.ordinal}.") for each in after)


async def test_an_identity_keeps_its_volume(rig: Rig) -> None:
    """Through versions, and through none being there; another size in the file changes nothing for those that are."""
    agent = {**STATEFUL, "command": ["python3", "-c", KEEPS], "volumes": ["stock:/data"]}
    for version in ("1", "2"):
        made = rig.ensure("stock", {**agent, "environment": {"V": version}})
        rig.engine.settings = type(rig.engine.settings)(storage=f"{version}Mi")
        await rig.act(made, Scale("stock", made.revision, 2))
        last = await identities(rig, made.revision, made.revision)
        await rig.act(Scale("stock", made.revision, 0)) if version == "1" else None
        await rig.until("stock", lambda a, v=version: True if v == "2" or not a.replicas else None)
    async with rig.engine.exec(last[1].id, ["cat", "/data/starts"], tty=False) as command:
        starts = b"".join([piece async for _, piece in command.output()]).decode().split()
    assert len(starts) == 2 and starts[1] == last[1].id != starts[0]


def job(program: str) -> dict[str, Any]:
    return {"command": ["python3", "-c", program], "schedule": "0 2 * * *", "stop_grace_period": "1s"}


async def over(rig: Rig, action: RunJob) -> JobRun:
    """The run, once it has ended."""
    return await rig.until(
        action.agent,
        lambda agent: next(
            (r for r in agent.runs if r.run_id == action.run_id and r.phase in (Phase.SUCCEEDED, Phase.FAILED)), None
        ),
    )


async def test_a_run_succeeds_once(rig: Rig) -> None:
    """However often it is said; it knows its name, and what it wrote is told by that, to who follows too."""
    made = rig.ensure("fit", job('import os; print(os.environ["SHOAL_RUN"], os.environ["SHOAL_REPLICA"])'))
    run = RunJob("fit", made.revision, "fit-20260101t020000z")
    await rig.act(made, run, run)
    found = await over(rig, run)
    assert (found.phase, found.attempt, found.exit_code, found.source) == (Phase.SUCCEEDED, 1, 0, None)
    assert found.started_at is not None and found.finished_at is not None
    await rig.act(run)
    assert await rig.names(JOB) == {run.run_id}
    assert (await rig.engine.observe()).agents["fit"].runs == (found,)
    lines = [(line.replica, line.text) async for line in rig.engine.logs("fit")]
    assert lines == [(run.run_id, f"{run.run_id} {run.run_id}")]


async def test_a_failing_run_is_repeated_and_then_failed(rig: Rig) -> None:
    """As often as it says, with how the last attempt ended."""
    made = rig.ensure("fit", job("raise SystemExit(5)"))
    run = RunJob("fit", made.revision, "fit-1", retries=1)
    await rig.act(made, run)
    waits = await rig.until("fit", lambda a: next((r for r in a.runs if r.phase is Phase.BACKOFF), None))
    assert (waits.attempt, waits.exit_code) == (1, 5)
    found = await over(rig, run)
    assert (found.phase, found.attempt, found.exit_code, found.reason) == (Phase.FAILED, 2, 5, "exit code 5")


async def test_a_run_has_a_timeout(rig: Rig) -> None:
    made = rig.ensure("fit", job("import time; time.sleep(600)"))
    run = RunJob("fit", made.revision, "fit-1", timeout_s=1.5)
    await rig.act(made, run)
    found = await over(rig, run)
    assert (found.phase, found.attempt, found.reason) == (Phase.FAILED, 1, "timed out after 2s")


async def test_short_runs_are_followed(rig: Rig) -> None:
    """Every line, however soon they end."""
    made = rig.ensure("fit", job("print(1)"))
    await rig.act(made)
    heard: list[str] = []
    lines = rig.engine.logs("fit", follow=True)
    for number in range(4):
        await rig.act(RunJob("fit", made.revision, f"fit-{number}"))
    async with asyncio.timeout(PATIENCE_S), aclosing(lines):
        async for line in lines:
            heard.append(line.replica)
            if len(heard) == 4:
                break
    assert sorted(heard) == [f"fit-{number}" for number in range(4)]
