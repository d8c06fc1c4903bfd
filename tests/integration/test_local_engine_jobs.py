"""Runs of jobs as processes: in time or not at all, repeated as allowed, kept as history."""

from pathlib import Path

from local_fleet import PYTHON, collect, local_engine, processes_below, template, until, wanted

from shoal.core.action import Remove, RunJob
from shoal.core.observed import AgentObserved, JobRun, Phase
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.state import RunState, store_life


async def ended(engine: LocalEngine, number: int = 1) -> tuple[JobRun, ...]:
    def all_ended(view: AgentObserved) -> bool:
        return len(view.runs) == number and all(run.phase in {Phase.SUCCEEDED, Phase.FAILED} for run in view.runs)

    return (await until(engine, "the runs have ended", all_ended)).runs


async def test_a_failed_attempt_is_repeated(engine: LocalEngine) -> None:
    """Until one succeeds; each attempt's output is in the log."""
    command = ("/bin/sh", "-c", "echo try; [ -e tried ] || { touch tried; exit 3; }")
    await engine.act([*wanted(template(command), 0), RunJob("a", "r1", "a-1", retries=3)])
    (run,) = await ended(engine)
    assert (run.phase, run.attempt, run.exit_code, run.reason) == (Phase.SUCCEEDED, 2, 0, "")
    assert [(line.replica, line.text) for line in await collect(engine.logs("a"))] == [("a-1", "try"), ("a-1", "try")]


async def test_the_last_failure_is_final(engine: LocalEngine) -> None:
    """With the exit code as the reason."""
    await engine.act([*wanted(template(("/bin/sh", "-c", "exit 3")), 0), RunJob("a", "r1", "a-1", retries=1)])
    (run,) = await ended(engine)
    assert (run.phase, run.attempt, run.exit_code, run.reason) == (Phase.FAILED, 2, 3, "exit code 3")


async def test_a_repeat_waits_as_the_schedule_says(engine: LocalEngine) -> None:
    """A second at first: not the back-off of a replica."""
    await engine.act([*wanted(template(("/bin/sh", "-c", "exit 3")), 0), RunJob("a", "r1", "a-1", retries=1)])
    view = await until(engine, "it waits", lambda view: any(run.phase is Phase.BACKOFF for run in view.runs))
    assert view.runs[0].reason == "exit code 3 (attempt 1 of 2, next after 1s)"


async def test_a_timeout_ends_the_whole_group(engine: LocalEngine, directory: Path) -> None:
    """SIGTERM, the grace period, SIGKILL; children too."""
    deaf = (*PYTHON, "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.fork(); time.sleep(600)")
    job = RunJob("a", "r1", "a-1", timeout_s=0.3)
    await engine.act([*wanted(template(deaf, stop_grace_period_s=0.2), 0), job])
    (run,) = await ended(engine)
    assert (run.phase, run.reason) == (Phase.FAILED, "timed out after 0.3s")
    assert run.finished_at is not None
    assert run.started_at is not None
    assert run.finished_at - run.started_at >= 0.3
    assert processes_below(directory) == []


async def test_a_command_that_is_not_there_fails_the_run(engine: LocalEngine) -> None:
    """Named, as for replicas."""
    await engine.act([*wanted(template(("no-such-program",)), 0), RunJob("a", "r1", "a-1")])
    (run,) = await ended(engine)
    assert run.phase is Phase.FAILED
    assert "'no-such-program' was not found" in run.reason


async def test_the_last_twenty_runs_are_kept(engine: LocalEngine, directory: Path) -> None:
    """And an id that is no longer shown still doesn't run again."""
    await engine.act([*wanted(template(("/bin/sh", "-c", "echo x >>count")), 0)])
    await engine.act([RunJob("a", "r1", f"a-{number}") for number in range(23)])
    await ended(engine, 20)
    await engine.act([RunJob("a", "r1", f"a-{number}") for number in range(23)])
    await ended(engine, 20)
    assert (directory.parent / "count").read_text() == "x\n" * 23


async def test_of_old_ids_the_newest_are_kept(directory: Path) -> None:
    """So that a job of every minute makes no file that grows for ever."""
    path = directory / "agents" / "a" / "run-ids"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"a-{number}\n" for number in range(3000)))
    async with local_engine(directory) as engine:
        await engine.act(
            [*wanted(template(("/bin/true",)), 0), RunJob("a", "r1", "a-new"), RunJob("a", "r1", "a-2999")]
        )
        await ended(engine, 1)
    noted = path.read_text().splitlines()
    assert (len(noted), noted[0], noted[-1]) == (2000, "a-1001", "a-new")


async def test_a_run_that_was_stored_is_not_lost(directory: Path) -> None:
    """The controller died before it had noted the id: the next one runs it, once."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(("/bin/sh", "-c", "echo x >>count")), 0))
    life = directory / "agents" / "a" / "lives" / "a-1"
    life.mkdir(parents=True)
    store_life(life / "state.json", RunState("a-1", "a", "r1", 1.0, None, 0))
    async with local_engine(directory) as engine:
        await ended(engine)
        await engine.act([RunJob("a", "r1", "a-1")])
        await ended(engine)
    assert (directory.parent / "count").read_text() == "x\n"
    assert (directory / "agents" / "a" / "run-ids").read_text() == "a-1\n"


async def test_removing_a_job_ends_its_run(engine: LocalEngine, directory: Path) -> None:
    """Nothing of it stays."""
    await engine.act([*wanted(template(), 0), RunJob("a", "r1", "a-1")])
    await until(engine, "it runs", lambda view: any(run.phase is Phase.RUNNING for run in view.runs))
    await engine.act([Remove("a")])
    await until(engine, "it is gone", lambda view: not view.runs)
    assert "a" not in (await engine.observe()).agents
    assert processes_below(directory) == []
    assert not (directory / "agents" / "a").exists()
