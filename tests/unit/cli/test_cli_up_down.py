"""`up` and `down` beside a controller that is there: what is stored, asked and told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.cli import stored_fleet
from shoal.cli.local import away, controller_process
from shoal.cli.local.place import LocalPlace
from shoal.cli.stored_fleet import read_stored, write_secrets, write_stored
from shoal.control.secret_contents import SecretContents
from shoal.control.store import SecretRecord
from shoal.core.observed import Phase
from shoal.engines.local.process import Identity, identify
from shoal.engines.local.state import ReplicaState, Start, store_life
from shoal.errors import ShoalError
from shoal.spec import load
from shoal.spec.model import Fleet
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import IMAGES, INGEST, STATUS, FakeController

TEXT = "fleet: warehouse\nagents:\n  ingest: {command: ingest, port: 8000}\n  images: {command: images, port: 8001}\n"


@pytest.fixture
def file(directory: Path, home: Path) -> Path:
    (home / "shoal.yaml").write_text(TEXT)
    return home / "shoal.yaml"


def _at_generation(fake: FakeController, generation: int) -> None:
    fake.status = replace(fake.status, generation=generation, observed_generation=generation)
    behind = replace(fake.status, observed_generation=generation - 1, settled=False)
    fake.watched = [behind, fake.status]


def test_up_stores_and_waits(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """The plan on stderr, the result on stdout; the second time nothing is stored, and it waits all the same."""
    _at_generation(fake, 1)
    done = run("up", "-d")
    assert done.code == 0
    assert "Plan: 2 create." in done.err
    assert "ingest: ok, 2 desired, 2 ready, 0 starting" in done.err
    assert done.out == "warehouse: 3 agents settled as generation 1 at http://127.0.0.1:8080\n"
    assert fake.calls == [("apply", {})]
    again = run("up", "-d")
    assert again.out == done.out
    assert "`shoal restart AGENT` takes up changed code" in again.err
    stored = asyncio.run(read_stored(LocalPlace(directory, "warehouse")))
    assert stored is not None
    assert (stored.generation, stored.directory) == (1, str(file.parent))
    file.write_text(TEXT.replace("8001", "8002"))
    _at_generation(fake, 2)
    done = run("up", "-d", "images", "-o", "json")
    assert json.loads(done.out)["generation"] == 2
    assert done.err.count("Plan") == 0


def test_up_says_why_it_never_gets_ready(fake: FakeController, file: Path, run: Run) -> None:
    """The failing replica's reason and last lines; what served before is not touched."""
    failed = replace(IMAGES, state="failed")
    fake.watched = [replace(STATUS, generation=1, observed_generation=1, settled=False, agents=(failed, INGEST))]
    fake.repeats_s = 0.1
    done = run("up", "-d")
    assert done.code == 1
    assert "image-processing: failed, 0 of 1 ready" in done.err
    assert "KeyError: 'MODEL'" in done.err
    assert "ingest: ok, 2 of" not in done.err
    assert "Shoal goes on trying to start image-processing. Change the file and run `shoal up` again." in done.err
    fake.watched = [replace(fake.watched[0], agents=(replace(failed, ready=1), INGEST))]
    assert "What served before goes on serving. Change the file" in run("up", "-d").err


def test_up_gives_up_after_the_timeout(fake: FakeController, file: Path, run: Run) -> None:
    """With what is in the way."""
    slow = replace(INGEST, state="progressing", ready=1, reason="ingest-r1-1 is not ready yet")
    fake.watched = [replace(STATUS, generation=1, observed_generation=1, settled=False, agents=(slow,))]
    fake.stays = True
    done = run("up", "-d", "--wait-timeout", "2s")
    assert done.code == 1
    assert "not settled after 2s:\ningest: progressing, 1 of 2 ready: ingest-r1-1 is not ready yet" in done.err
    assert "It goes on, and may settle yet: `shoal status -w` shows it." in done.err
    for gateways, why in (
        (("n1", "n2"), "(there are: n1, n2)"),
        ((), "(there is none)"),
    ):
        fake.watched = [replace(fake.watched[0], agents=(INGEST,), gateways=gateways, routed=False)]
        done = run("up", "-d", "--wait-timeout", "2s")
        rule = "all agents are as wished, but not every gateway is there and routes by it"
        assert f"not settled after 2s:\n{rule} {why}\n" in done.err
        assert "It goes on, and may settle yet" in done.err


def test_a_lost_race_names_the_winner(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """Compare-and-set: who stored first is in the message."""
    from shoal.cli import up as up_module

    real = up_module.make_intent

    async def slow_intent(common: object, agents: object = (), *, adopt: bool = False) -> object:
        intent = await real(common, agents, adopt=adopt)  # type: ignore[arg-type]
        await write_stored(LocalPlace(directory, "warehouse"), intent.fleet, "/elsewhere", 0)
        return intent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(up_module, "make_intent", slow_intent)
        done = run("up", "-d")
    assert done.code == 1
    assert "generation 1 was stored by" in done.err
    assert fake.calls == []


def test_up_ends_early_where_the_fleet_cannot_be_taken_up(fake: FakeController, file: Path, run: Run) -> None:
    """With the problem, once it has stayed for some seconds, and what becomes of it."""
    problem = "local.port: 8080 is used by nginx (pid 7); stop it"
    fake.watched = [replace(STATUS, generation=1, observed_generation=0, settled=False, agents=(), problems=(problem,))]
    fake.repeats_s = 0.1
    done = run("up", "-d")
    assert done.code == 1
    assert f"error: problem: {problem}\n\nNothing runs yet." in done.err


def test_who_was_superseded_is_told_by_whom(
    fake: FakeController, file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command stored a generation before this one was settled: that is no success of this one."""

    async def and_another(place: LocalPlace, fleet: Fleet | None, project: str, expected: int, *_: object) -> int:
        generation = await write_stored(place, fleet, project, expected)
        await write_stored(place, fleet, "/elsewhere", generation)
        return generation

    _at_generation(fake, 2)
    monkeypatch.setattr(stored_fleet, "write_stored", and_another)
    done = run("up", "-d")
    assert done.code == 1
    assert "generation 1 was superseded before it was settled: generation 2 was stored by" in done.err
    assert "from /elsewhere" in done.err


def test_who_was_taken_down_meanwhile_is_told_so(
    fake: FakeController, file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the controller is gone before it could show that."""

    async def and_down(place: LocalPlace, fleet: Fleet | None, project: str, expected: int, *_: object) -> int:
        generation = await write_stored(place, fleet, project, expected)
        await write_stored(place, None, project, generation)
        return generation

    fake.watched = [replace(STATUS, generation=1, observed_generation=0, settled=False, agents=())]
    monkeypatch.setattr(stored_fleet, "write_stored", and_down)
    done = run("up", "-d")
    assert done.code == 1
    assert "generation 1 was taken down before it was settled; `shoal up` starts it again" in done.err


def test_a_fleet_of_another_directory_is_left_alone(
    fake: FakeController, file: Path, directory: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name elsewhere is refused with both directories, until it is to be adopted."""
    _at_generation(fake, 1)
    assert run("up", "-d").code == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "shoal.yaml").write_text(TEXT)
    monkeypatch.chdir(other)
    for command in (["plan"], ["up", "-d"]):
        done = run(*command)
        assert done.code == 1
        assert f"warehouse was started from {file.parent} and runs; this is {other}" in done.err
        assert "--adopt" in done.err
    assert run("plan", "--adopt").out.endswith("No changes.\n")
    _at_generation(fake, 2)
    done = run("up", "-d", "--adopt")
    assert done.code == 0
    assert f"warehouse is taken over from {file.parent}" in done.err
    stored = asyncio.run(read_stored(LocalPlace(directory, "warehouse")))
    assert stored is not None
    assert stored.directory == str(other)


def test_a_controller_that_cannot_start_says_why(file: Path, directory: Path, run: Run) -> None:
    """Its last words are in the error."""
    directory.mkdir(parents=True)
    (directory / "lock").mkdir()
    done = run("up", "-d")
    assert done.code == 1
    assert "the controller could not start" in done.err
    assert "Is a directory" in done.err


def test_down_asks_the_controller(fake: FakeController, directory: Path, run: Run) -> None:
    """And forgets the secrets once nothing may need them."""
    record = SecretRecord(SecretContents(directory).put(b"x"), 1.0, "ann")
    asyncio.run(
        write_secrets(
            LocalPlace(directory, "warehouse"), {"TOKEN": record, "BY_HAND": replace(record, by_hand=True)}, 0, {}
        )
    )
    fake.stays = True
    done = run("down", "--volumes", "-y")
    assert (done.code, done.out) == (0, "warehouse: everything is stopped, volumes and queues are deleted\n")
    assert fake.calls == [("down", {"volumes": True})]
    assert not (directory / "secrets").exists()


def test_down_says_that_somebody_started_it_again(fake: FakeController, file: Path, directory: Path, run: Run) -> None:
    """Who waited for its end only: its controller is not one that does not end."""
    asyncio.run(
        write_stored(LocalPlace(directory, "warehouse"), Fleet(fleet="warehouse", agents={}), str(file.parent), 0)
    )
    done = run("down")
    assert done.code == 1
    assert "everything was stopped, and warehouse was started again by" in done.err


def test_down_whose_controller_dies_is_told_what_goes_on_with_it(
    fake: FakeController, directory: Path, run: Run
) -> None:
    """`up` would start the fleet again."""
    fake.dies = True
    done = run("down")
    assert done.code == 1
    assert (
        "error: the controller of warehouse went away before everything was stopped; `shoal down` again stops what is "
        "left\n"
    ) in done.err
    assert "shoal up" not in done.err


def test_down_deletes_nothing_unasked(fake: FakeController, run: Run) -> None:
    """Where nobody can be asked, that is no yes."""
    done = run("down", "--volumes")
    assert (done.code, done.out, fake.calls) == (1, "", [])
    assert (
        "`shoal down --volumes` deletes the volumes and queues of warehouse for good, and nobody is here to ask; "
        "add --yes"
    ) in done.err


def test_down_left_by_ctrl_c_goes_on(fake: FakeController, directory: Path, run: Run) -> None:
    """It says so, with the code of Ctrl-C, once the end of the fleet is sure to come."""

    class Asked(list[tuple[str, Any]]):
        def append(self, call: tuple[str, Any]) -> None:
            super().append(call)
            os.kill(os.getpid(), signal.SIGINT)

    fake.calls, fake.down_takes_s, fake.stays = Asked(), 2.0, True
    done = run("down")
    assert (done.code, done.out, fake.calls) == (130, "", [("down", {"volumes": False})])
    assert "warehouse goes on ending in the background; `shoal down` waits for it.\n" in done.err


def test_down_without_anything(directory: Path, run: Run) -> None:
    """Nothing to do is no error, and starts nothing."""
    done = run("down")
    assert (done.code, done.out) == (0, "warehouse: nothing runs here\n")
    assert not directory.exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Fleet | None]:
    """The fleet that was stored, for each controller that was started to end it: none of them is."""
    found: list[Fleet | None] = []

    async def note(place: LocalPlace) -> None:
        stored = await read_stored(place)
        assert stored is not None
        found.append(stored.fleet)

    async def answers(*_: object) -> None:
        return

    def start(directory: Path, fleet: str) -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(asyncio.run, note(LocalPlace(directory, fleet))).result()

    monkeypatch.setattr(controller_process, "start_controller", start)
    monkeypatch.setattr(controller_process, "wait_answers", answers)
    return found


def test_down_without_a_controller_starts_no_agent(file: Path, directory: Path, started: list[Fleet | None]) -> None:
    """Where none runs, the controller that ends the rest has none to start; who runs ends in the fleet's order."""
    place = LocalPlace(directory, "warehouse")
    fleet = load([file]).fleet
    asyncio.run(write_stored(place, fleet, str(file.parent), 0))
    asyncio.run(place.ender(data=False))
    assert started == [None]
    asyncio.run(write_stored(place, fleet, str(file.parent), 2))
    life = directory / "agents" / "ingest" / "lives" / "ingest-r1-1"
    life.mkdir(parents=True)
    start = Start(1, identify(os.getpid()))
    store_life(life / "state.json", ReplicaState("ingest-r1-1", "ingest", "r1", 1.0, Phase.RUNNING, start=start))
    asyncio.run(place.ender(data=False))
    assert started == [None, fleet]


def test_down_ends_a_gateway_or_a_broker_that_was_left(
    directory: Path, started: list[Fleet | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a controller that died as the last agent was gone."""
    place = LocalPlace(directory, "warehouse")
    asyncio.run(write_stored(place, None, "/", 0))
    assert asyncio.run(place.ender(data=False)) is None
    monkeypatch.setattr(away, "platform_runs", lambda _: True)
    assert asyncio.run(place.ender(data=False)) is not None
    assert started == [None]


def test_down_tidies_up_what_an_earlier_one_was_kept_from(directory: Path, run: Run) -> None:
    """Secrets, though nothing runs any more."""
    record = SecretRecord(SecretContents(directory).put(b"x"), 1.0, "ann")
    asyncio.run(write_secrets(LocalPlace(directory, "warehouse"), {"TOKEN": record}, 0, {}))
    assert run("down").out == "warehouse: nothing runs here\n"
    assert not (directory / "secrets").exists()


def test_status_without_a_controller_shows_what_the_engine_has(file: Path, directory: Path, run: Run) -> None:
    """And says that nobody acts on it."""
    place = LocalPlace(directory, "warehouse")
    asyncio.run(write_stored(place, load([file]).fleet, str(file.parent), 0))
    life = directory / "agents" / "ingest" / "lives" / "ingest-r1-1"
    life.mkdir(parents=True)
    gone = Start(1, Identity(1, "never", "another boot"))
    store_life(
        life / "state.json", ReplicaState("ingest-r1-1", "ingest", "r1", 1.0, Phase.RUNNING, ready=True, start=gone)
    )
    done = run("status")
    assert done.code == 0
    assert done.out.startswith("warehouse on local, without a controller\n")
    assert "no controller answers" in done.out
    assert "no gateway runs, so nothing routes requests to agents" in done.out
    assert "1 of 1 replicas do not run; nothing routes requests to it; nobody scales or replaces it" in done.out
    assert " ok " not in done.out
    row = next(line for line in done.out.splitlines() if line.startswith("ingest"))
    assert row.split()[:6] == ["ingest", "service", "degraded", "1", "0", "0"]
    assert "broker" not in done.out
    asyncio.run(write_stored(place, None, str(file.parent), 1))
    done = run("status")
    assert "the fleet was taken down, and no controller answers; `shoal down` again stops what is left" in done.out
    assert "shoal up" not in done.out


def test_status_without_a_controller_tells_of_the_broker(file: Path, directory: Path, run: Run) -> None:
    """Where the fleet needs it."""
    file.write_text("fleet: warehouse\nqueues: {q: {}}\nagents:\n  work: {command: work, queue: q}\n")
    asyncio.run(write_stored(LocalPlace(directory, "warehouse"), load([file]).fleet, str(file.parent), 0))
    assert "the queues' broker does not run, so nobody gets or puts a task; `shoal up`" in run("status").out


SECRET = "fleet: warehouse\nagents:\n  ingest: {command: ingest, port: 8000, secrets: [TOKEN]}\n"


def test_a_secret_is_there_before_the_fleet_that_needs_it(
    fake: FakeController, file: Path, directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that dies between the two leaves a secret too many, never one too few."""

    async def die(*_: object) -> int:
        raise ShoalError("cut off")

    file.write_text(SECRET)
    monkeypatch.setenv("TOKEN", "x")
    monkeypatch.setattr(stored_fleet, "write_stored", die)
    assert run("up", "-d").code == 1
    assert [path.read_text() for path in (directory / "secrets").iterdir()] == ["x"]


def test_a_missing_secret_is_written_though_nothing_else_changes(
    fake: FakeController, file: Path, directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the plan is empty."""
    file.write_text(SECRET)
    monkeypatch.setenv("TOKEN", "x")
    _at_generation(fake, 1)
    assert run("up", "-d").code == 0
    (content,) = (directory / "secrets").iterdir()
    content.unlink()
    assert run("up", "-d").code == 0
    assert content.read_text() == "x"
