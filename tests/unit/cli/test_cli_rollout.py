"""`rollout`, `restart` and what `up` refuses, beside a controller that is there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.api.views import QueueView, RolloutView
from shoal.cli.local.place import STATE_FILE, LocalPlace
from shoal.cli.stored_change import current_revision
from shoal.cli.stored_fleet import read_stored
from shoal.control.secret_contents import SecretContents
from shoal.control.sqlite_store import open_store
from shoal.core.record import AgentRecord
from shoal.core.rollout import Rollout, RolloutPhase
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import IMAGES, FakeController

ROLLOUT = RolloutView("complete", "bbb", "aaa", "bbb", 2, 100.0, 104.0, 2, 2, 0)


@pytest.fixture
def file(directory: Path, home: Path) -> Path:
    return home / "shoal.yaml"


def up(fake: FakeController, file: Path, run: Run, generation: int, agents: str, *options: str) -> None:
    file.write_text(f"fleet: warehouse\nagents: {agents}\n")
    at_generation(fake, generation)
    done = run("up", "-d", *options)
    assert done.code == 0, done.err


def at_generation(fake: FakeController, generation: int) -> None:
    fake.status = replace(fake.status, generation=generation, observed_generation=generation)
    fake.watched = [fake.status]


def stored(directory: Path):
    found = asyncio.run(read_stored(LocalPlace(directory, "warehouse")))
    assert found is not None and found.fleet is not None
    return found, found.fleet


def test_undo_of_an_agent(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """The version before comes back as a new generation, with the scale as it is now; others stay as they are."""
    up(fake, file, run, 1, "{a: {command: one, port: 80}, b: {command: one, port: 81}}")
    up(fake, file, run, 2, "{a: {command: two, port: 80}, b: {command: two, port: 81}}")
    up(fake, file, run, 3, "{a: {command: two, port: 80, scale: 3}, b: {command: two, port: 81}}")
    at_generation(fake, 4)
    done = run("rollout", "undo", "a")
    assert done.code == 0 and "command: two -> one" in done.err and "Plan: 1 rolling." in done.err
    found, fleet = stored(directory)
    assert found.generation == 4
    assert (fleet.agents["a"].command, fleet.agents["a"].scale.min) == (("one",), 3)
    assert fleet.agents["b"].command == ("two",)
    listed = json.loads(run("rollout", "history", "a", "-o", "json").out)
    assert [(each["generation"], each["what"], each["wished"]) for each in listed] == [
        (4, "undo a to 1", True),
        (2, "up", False),
    ]


def rolled(directory: Path, agent: str, phase: RolloutPhase, stable: str | None = None) -> str:
    """Has the controller note how the rollout of what is stored went; gives the revision."""

    async def note() -> str:
        async with open_store(directory / STATE_FILE) as store:
            found, records = await store.read_fleet(), await store.read_records()
            assert found is not None
            revision = current_revision(found, agent)
            rollout = Rollout(revision, stable, found.generation, 0.0, 0.0, phase=phase, finished_at=1.0)
            await store.write({agent: records.get(agent, AgentRecord()).rolled(rollout)}, [])
        return revision

    return asyncio.run(note())


def test_undo_goes_back_to_what_served(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """Past the versions that were given up, of an agent as of the fleet; to what serves still nothing restarts, and the
    plan says so."""
    serving = ""
    for generation, command in enumerate(("one", "two", "bad", "worse"), 1):
        up(fake, file, run, generation, f"{{a: {{command: {command}, port: 80}}}}")
        if generation < 3:
            serving = rolled(directory, "a", RolloutPhase.COMPLETE)
        else:
            rolled(directory, "a", RolloutPhase.FAILED, serving)
    listed = json.loads(run("rollout", "history", "a", "-o", "json").out)
    assert [(each["generation"], each["served"]) for each in listed] == [(4, False), (3, False), (2, True), (1, True)]
    assert "up (now, never served)" in run("rollout", "history", "a").out
    for arguments in ((), ("a",)):
        at_generation(fake, stored(directory)[0].generation + 1)
        done = run("rollout", "undo", *arguments)
        assert done.code == 0, done.err
        assert "a (service): live: this version still serves, as the one after it was given up" in done.err
        assert "command: worse -> two" in done.err and "Plan: 1 live." in done.err
        assert stored(directory)[1].agents["a"].command == ("two",)
        if not arguments:
            up(fake, file, run, 6, "{a: {command: worse, port: 80}}")
            rolled(directory, "a", RolloutPhase.FAILED, serving)
    rolled(directory, "a", RolloutPhase.COMPLETE)
    at_generation(fake, 8)
    done = run("rollout", "undo")
    assert done.code == 0 and "rolling" in done.err and "command: two -> one" in done.err


def test_undo_of_what_never_served(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """Nothing is guessed: it says what there is, and --to takes it all the same."""
    up(fake, file, run, 1, "{a: {command: one, port: 80}}")
    rolled(directory, "a", RolloutPhase.FAILED)
    up(fake, file, run, 2, "{a: {command: two, port: 80}}")
    rolled(directory, "a", RolloutPhase.FAILED)
    for arguments, what in (((), "the fleet"), (("a",), "a")):
        done = run("rollout", "undo", *arguments)
        assert done.code == 1
        assert f"{what} has nothing else to come back to that served; --to" in done.err
        assert done.err.endswith("all the same: 1\n")
    at_generation(fake, 3)
    assert run("rollout", "undo", "a", "--to", "1").code == 0


def test_undo_to_a_generation_that_is_not_kept(fake: FakeController, file: Path, run: Run) -> None:
    """It says which there are; without any it says so; nothing is stored."""
    up(fake, file, run, 1, "{a: {command: one, port: 80}}")
    assert "nothing was stored before" in run("rollout", "undo", "a").err
    up(fake, file, run, 2, "{a: {command: two, port: 80}}")
    done = run("rollout", "undo", "a", "--to", "7")
    assert done.code == 1 and "those that are kept and differ: 1" in done.err
    assert "no agent 'x'" in run("rollout", "undo", "x").err


def test_undo_of_the_fleet(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """The generation before comes back as a whole."""
    up(fake, file, run, 1, "{a: {command: one, port: 80}, b: {command: one, port: 81}}")
    up(fake, file, run, 2, "{a: {command: two, port: 80}}", "-y")
    at_generation(fake, 3)
    assert run("rollout", "undo").code == 0
    _, fleet = stored(directory)
    assert {name: agent.command for name, agent in fleet.agents.items()} == {"a": ("one",), "b": ("one",)}
    assert "undo to 1 (now)" in run("rollout", "history").out


def test_undo_brings_a_secret_back(
    fake: FakeController, file: Path, directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a secret held comes back with the version that had it, and stays until its source changes."""
    agents = "{a: {command: one, port: 80, secrets: [TOKEN]}}"
    monkeypatch.setenv("TOKEN", "first")
    up(fake, file, run, 1, agents)
    monkeypatch.setenv("TOKEN", "second")
    up(fake, file, run, 2, agents)
    at_generation(fake, 3)
    done = run("rollout", "undo", "a")
    assert done.code == 0 and "secrets.TOKEN: another content" in done.err
    found, _ = stored(directory)
    assert SecretContents(directory).get(found.secrets["TOKEN"].digest) == b"first"
    assert "No changes." in run("up", "-d").err


def test_restart_is_a_new_revision_of_the_same(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """The fleet is stored as it is, with another nonce for the agent; the file may say something else meanwhile."""
    up(fake, file, run, 1, "{a: {command: one, port: 80}, b: {command: one, port: 81}}")
    file.write_text("fleet: warehouse\nagents: {}\n")
    at_generation(fake, 2)
    done = run("restart", "a")
    assert done.code == 0 and "restart: new replicas of the same version" in done.err
    found, fleet = stored(directory)
    assert found.generation == 2 and set(found.nonces) == {"a"} and set(fleet.agents) == {"a", "b"}


def test_a_job_cannot_be_restarted(fake: FakeController, file: Path, run: Run) -> None:
    """It has no replicas; the way to run it is named."""
    up(fake, file, run, 1, '{j: {command: one, schedule: "0 2 * * *"}}')
    done = run("restart", "j")
    assert done.code == 1 and "`shoal run j`" in done.err


def test_up_of_some_agents_says_so(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """Only these change, and the plan says it."""
    up(fake, file, run, 1, "{a: {command: one, port: 80}, b: {command: one, port: 81}}")
    file.write_text("fleet: warehouse\nagents: {a: {command: two, port: 80}, b: {command: two, port: 81}}\n")
    at_generation(fake, 2)
    done = run("up", "-d", "a")
    assert "note: only a may change; the other agents stay as they are stored" in done.err
    _, fleet = stored(directory)
    assert [agent.command for agent in fleet.agents.values()] == [("two",), ("one",)]


def test_what_holds_data_does_not_leave_unasked(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """All of it is named, nothing is stored; with --allow-delete it goes, and the data stay."""
    up(
        fake,
        file,
        run,
        1,
        "{a: {command: x, port: 80, stateful: true, volumes: ['stock:/d']}, w: {command: x, queue: q,"
        " volumes: ['cache:/c:ro', 'both:/b', 'empty:/e', '/srv:/srv']}}",
    )
    kept = directory / "volumes" / "owned" / "a" / "0" / "stock" / "data"
    for path in (kept, *(directory / "volumes" / "shared" / name / "data" for name in ("cache", "both"))):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 2048)
    (directory / "volumes" / "shared" / "empty").mkdir()
    fake.queues = [QueueView("q", "main", 3, 1, 1)]
    after = "{b: {command: x, port: 80, volumes: ['both:/b']}}"
    file.write_text(f"fleet: warehouse\nagents: {after}\n")
    done = run("up", "-d", "-y")
    assert done.code == 1
    told = done.err.partition("holds data:\n")[2].splitlines()
    assert [line.strip() for line in told[:3]] == [
        "volume cache of w: 1 file, 2Ki", "volume stock of 1 replica of a: 1 file, 2Ki",
        "queue q: 5 tasks, dead letters included",
    ]  # fmt: skip
    assert told[3].startswith("Keep it in the file") and stored(directory)[0].generation == 1
    up(fake, file, run, 2, after, "-y", "--allow-delete")
    assert set(stored(directory)[1].agents) == {"b"} and kept.exists()


def test_status_of_rollouts(fake: FakeController, directory: Path, run: Run) -> None:
    """It waits, tells each, and fails where one failed."""
    rolled = replace(IMAGES, state="ok", rollout=ROLLOUT)
    fake.status = replace(fake.status, agents=(rolled,), generation=2, observed_generation=2, settled=True)
    fake.watched = [fake.status]
    done = run("rollout", "status")
    assert done.code == 0 and "image-processing: complete, bbb took over from aaa in 4s" in done.out
    failed = replace(ROLLOUT, phase="failed", serving="aaa", reason="no progress for 2m, 0 of 2 ready; r: exit code 3")
    fake.status = replace(fake.status, agents=(replace(IMAGES, state="failed", rollout=failed),), settled=False)
    done = run("rollout", "status", "image-processing", "--no-wait", "-o", "json")
    assert done.code == 1 and json.loads(done.out)[0]["reason"].endswith("exit code 3")
    fake.watched, fake.stays = [fake.status], True
    done = run("rollout", "status", "-o", "json", "--wait-timeout", "100ms")
    assert done.code == 1 and json.loads(done.out)[0]["phase"] == "failed"
    assert "not settled after 100ms" in done.err
