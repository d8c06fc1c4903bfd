"""What a fleet's state on a Swarm has to stand beside the contract of every store: others who write, size, age."""

from __future__ import annotations

import random

import pytest

from shoal.control.document_store import DocumentStore
from shoal.control.store import SecretRecord
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.errors import Conflict, NewerState
from shoal.spec.model import Fleet
from tests.fake_docker import FakeDocker

FLEET = Fleet.model_validate({"fleet": "f", "agents": {"a": {"command": "serve", "port": 80}}})


def store(swarm: FakeDocker) -> DocumentStore:
    return DocumentStore(SwarmKeeper(swarm, "f"))


async def put(kept: DocumentStore, fleet: Fleet = FLEET, expected: int = 0) -> None:
    await kept.write_fleet(fleet, directory="/p", by="ann", at=1.0, expected_generation=expected)


def large(seed: int) -> Fleet:
    """One that no label would hold."""
    words = random.Random(seed)
    agents = {f"a{n}": {"command": ["serve", f"{words.random()}"], "port": 80} for n in range(400)}
    return Fleet.model_validate({"fleet": "f", "agents": agents})


async def test_whoever_writes_beside_is_seen() -> None:
    """The command line stores a fleet while the controller stores a count: each is tried again on what the other
    wrote, and both are kept."""
    swarm = FakeDocker()
    await put(store(swarm))
    controller = store(swarm)

    def somebody_else() -> None:
        swarm.before_write = lambda: None
        swarm.kept["services"]["f_shoal-state"]["Version"]["Index"] += 1

    swarm.before_write = somebody_else
    await controller.write({"a": AgentRecord(desired=3)}, ())
    await put(store(swarm), expected=1)
    stored = await controller.read_fleet()
    assert stored is not None and stored.generation == 2
    assert await store(swarm).read_records() == {"a": AgentRecord(desired=3)}


async def test_a_conflict_is_found_on_what_is_there_by_then() -> None:
    """Somebody else's generation comes between the read and the write: the second look finds it."""
    swarm = FakeDocker()
    first, second = store(swarm), store(swarm)
    await put(first)
    stored_meanwhile: list[str] = []

    def somebody_else() -> None:
        if not stored_meanwhile:
            stored_meanwhile.append("fleet")
            swarm.kept["services"]["f_shoal-state"] = theirs

    other = FakeDocker()
    other.kept = {**swarm.kept, "services": dict(swarm.kept["services"])}
    await put(store(other), expected=1)
    theirs = other.kept["services"]["f_shoal-state"]
    swarm.before_write = somebody_else
    with pytest.raises(Conflict, match="generation 2 was stored by ann"):
        await put(second, expected=1)


async def test_large_documents_are_configs() -> None:
    """Found again by whoever comes next; of what was replaced nothing is left, nor of what nobody ever named."""
    swarm = FakeDocker()
    await put(store(swarm), large(1))
    before = set(swarm.kept["configs"])
    assert before and len(str(swarm.kept["services"]["f_shoal-state"])) < 40_000
    stored = await store(swarm).read_fleet()
    assert stored is not None and stored.fleet == large(1)
    left = {"shoal.fleet": "f", "shoal.role": "state"}
    await swarm.create_config("f_shoal-fleet_left-behind", b"", left)
    swarm.now += 60
    await put(store(swarm), large(2), expected=1)
    assert "f_shoal-fleet_left-behind" in swarm.kept["configs"] and not before & set(swarm.kept["configs"])
    swarm.now += 3600
    await put(store(swarm), large(3), expected=2)
    assert "f_shoal-fleet_left-behind" not in swarm.kept["configs"]


async def test_what_was_read_is_not_read_again() -> None:
    """A name of a config says what it holds: the controller looks at the fleet often."""
    swarm = FakeDocker()
    kept = store(swarm)
    await put(kept, large(1))
    first = await kept.read_fleet()
    swarm.kept["configs"].clear()
    second = await kept.read_fleet()
    assert first is not None and second is not None and second.fleet is first.fleet


async def test_equal_state_is_not_written() -> None:
    """Each write goes to every manager's disk."""
    swarm = FakeDocker()
    kept = store(swarm)
    await put(kept)
    await kept.write({"a": AgentRecord(desired=2)}, ())
    writes = swarm.writes
    await kept.write({"a": AgentRecord(desired=2)}, ())
    assert swarm.writes == writes


async def test_a_newer_state_is_refused() -> None:
    """And nothing of it is touched."""
    swarm = FakeDocker()
    await put(store(swarm))
    swarm.kept["services"]["f_shoal-state"]["Spec"]["Labels"]["shoal.schema"] = "2"
    with pytest.raises(NewerState, match="written by a newer Shoal"):
        await store(swarm).read_fleet()
    with pytest.raises(NewerState):
        await store(swarm).write({"a": AgentRecord()}, ())


async def test_secrets_have_no_content() -> None:
    """What is kept of a secret is its HMAC."""
    swarm = FakeDocker()
    kept = store(swarm)
    await kept.write_secrets({"KEY": SecretRecord("abc", 1.0, "ann")}, expected_generation=0)
    assert await store(swarm).read_secrets() == {"KEY": SecretRecord("abc", 1.0, "ann")}


async def test_a_thousand_agents_fit() -> None:
    """What labels can't hold is in configs that Docker takes, and one decision more does not write all anew."""
    swarm = FakeDocker()
    kept = store(swarm)
    numbers = random.Random(7)
    names = [f"agent-{n}" for n in range(1000)]
    decisions = [
        Decision(name, numbers.random(), current=1, count=2, reason=f"concurrency {numbers.random()} of 20")
        for name in names
        for _ in range(5)
    ]
    await kept.write({name: AgentRecord(desired=3) for name in names}, decisions)
    assert max(len(each["Spec"]["Data"]) for each in swarm.kept["configs"].values()) < 700_000
    assert len(await store(swarm).read_decisions("agent-7")) == 5
    before = set(swarm.kept["configs"])
    await kept.write({"agent-7": AgentRecord(desired=4)}, decisions[35:36])
    assert len(await store(swarm).read_decisions("agent-7")) == 6
    assert len(before - set(swarm.kept["configs"])) <= 2  # of all documents only those that it is in


async def test_what_the_first_shoal_stored_is_read() -> None:
    """Where a fleet's state is on a Swarm, and how, stays: it outlives every version."""
    swarm = FakeDocker()
    records = (
        "z:eJxFjEEKgDAMBP+y59685StFJNgUhdCWptWD+HcVFG877DAHGHQgiK1VAmhwKGsCpa7q0IuB/OgQ8p7eqWxtirc9cfs8mxcJXQUEONSsmvt/Nq7"
        "taUdWk5ulbg/68TwveY4q7g=="
    )
    labels = {"shoal.fleet": "f", "shoal.role": "state", "shoal.schema": "1", "shoal.document.records": records}
    await swarm.create_service({"Name": "f_shoal-state", "Labels": {**labels, "shoal.lease": "c 7"}})
    assert await store(swarm).read_records() == {"a": AgentRecord(desired=3)}
    await put(store(swarm), large(1))
    written = swarm.kept["services"]["f_shoal-state"]["Spec"]["Labels"]
    assert written.items() >= {**labels, "shoal.lease": "c 7"}.items()
    assert written["shoal.document.fleet"].split(",") == [
        name for name in swarm.kept["configs"] if name.startswith("f_shoal-fleet_")
    ]
