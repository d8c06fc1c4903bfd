"""What holds of every store: one set of cases, run on each by a subclass that says what `store` is."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.control.store import DECISIONS_KEPT, SecretRecord, Store
from shoal.core.decision import Decision, Pin, Proposal, ScaleEvent
from shoal.core.record import AgentRecord
from shoal.errors import Conflict
from shoal.spec.model import Fleet

FLEET = Fleet.model_validate({"fleet": "f", "agents": {"a": {"command": "serve", "port": 80, "scale": {"max": 3}}}})
TOKEN = SecretRecord("abc", 1.0, "ann", by_hand=True, source_digest="")
OTHER = SecretRecord("def", 2.0, "bob")


async def put(store: Store, fleet: Fleet | None = FLEET, expected: int = 0, by: str = "ann") -> int:
    return await store.write_fleet(fleet, directory="/p", by=by, at=1.0, expected_generation=expected)


def decision(agent: str, count: int) -> Decision:
    return Decision(agent, float(count), 0, count, "because", "max", None, (Proposal("rps", count, 1.5, 2.0),))


def versions(**commands: str) -> Fleet:
    agents = {name: {"command": command, "port": 80} for name, command in commands.items()}
    return Fleet.model_validate({"fleet": "f", "agents": agents})


async def put_version(store: Store, generation: int, fleet: Fleet, **more: Any) -> None:
    await store.write_fleet(
        fleet, directory="/d", by="ann", at=float(generation), expected_generation=generation - 1, **more
    )


class StoreContract:
    """The cases. `store` is a fixture of the subclass, of a fleet `f` that never was stored."""

    async def test_fleet_comes_back_as_it_went(self, store: Store) -> None:
        """A stored fleet is equal to what was stored, with generation, place and author."""
        assert await store.read_fleet() is None
        assert await put(store) == 1
        stored = await store.read_fleet()
        assert stored is not None
        assert (stored.generation, stored.fleet, stored.directory, stored.by) == (1, FLEET, "/p", "ann")

    async def test_second_writer_gets_a_conflict_that_says_who(self, store: Store) -> None:
        """Compare-and-set: who comes second learns who was first, and changes nothing."""
        await put(store)
        with pytest.raises(Conflict, match="generation 1 was stored by ann"):
            await put(store, None, expected=0, by="bob")
        stored = await store.read_fleet()
        assert stored is not None and stored.fleet == FLEET

    async def test_generations_go_on_after_down(self, store: Store) -> None:
        """A fleet that was taken down keeps counting, so that an old plan can't be applied to a new fleet."""
        await put(store)
        assert await put(store, None, expected=1) == 2
        assert await put(store, expected=2) == 3

    async def test_secrets_come_with_the_generation_that_they_were_stored_with(self, store: Store) -> None:
        """Fleet and secrets change as one; a write that says nothing of secrets leaves them, down included."""
        fields = {"directory": "/p", "by": "ann", "at": 1.0}
        await store.write_fleet(FLEET, expected_generation=0, secrets={"TOKEN": TOKEN}, **fields)  # type: ignore[arg-type]
        stored = await store.read_fleet()
        assert stored is not None and stored.secrets == {"TOKEN": TOKEN}
        with pytest.raises(Conflict):
            await store.write_fleet(FLEET, expected_generation=0, secrets={}, **fields)  # type: ignore[arg-type]
        await put(store, None, expected=1)
        assert await store.read_secrets() == {"TOKEN": TOKEN}

    async def test_secrets_without_a_new_generation(self, store: Store) -> None:
        """Before the first fleet too, and by compare-and-set all the same."""
        await store.write_secrets({"TOKEN": TOKEN}, expected_generation=0)
        assert await store.read_fleet() is None
        assert await put(store) == 1
        await store.write_secrets({"OTHER": OTHER}, expected_generation=1)
        stored = await store.read_fleet()
        assert stored is not None and (stored.generation, stored.secrets) == (1, {"OTHER": OTHER})
        with pytest.raises(Conflict, match="generation 1 was stored by ann"):
            await store.write_secrets({}, expected_generation=0)
        assert await store.read_secrets() == {"OTHER": OTHER}

    async def test_secrets_that_changed_meanwhile_are_not_written_over(self, store: Store) -> None:
        """They may change without a generation: who made a plan on others is told which, and stores nothing."""
        await put(store)
        await store.write_secrets({"TOKEN": TOKEN}, expected_generation=1, expected_secrets={})
        fields = {"directory": "/p", "by": "ann", "at": 1.0, "expected_generation": 1}
        with pytest.raises(Conflict, match="secrets changed meanwhile: TOKEN"):
            await store.write_fleet(FLEET, secrets={}, expected_secrets={}, **fields)  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="secrets changed meanwhile: TOKEN"):
            await store.write_secrets({}, expected_generation=1, expected_secrets={"TOKEN": OTHER})
        stored = await store.read_fleet()
        assert stored is not None and (stored.generation, stored.secrets) == (1, {"TOKEN": TOKEN})
        assert await store.write_fleet(FLEET, secrets={}, expected_secrets={"TOKEN": TOKEN}, **fields) == 2  # type: ignore[arg-type]

    async def test_records_are_kept_and_forgotten(self, store: Store) -> None:
        """A record comes back equal; `None` forgets it and its decisions."""
        record = AgentRecord(3, Pin(3, 9.0), (ScaleEvent(1.0, 2),), (), 7.5)
        await store.write({"a": record, "b": AgentRecord()}, [decision("a", 1)])
        assert await store.read_records() == {"a": record, "b": AgentRecord()}
        await store.write({"a": None}, [])
        assert await store.read_records() == {"b": AgentRecord()}
        assert await store.read_decisions("a") == ()

    async def test_the_last_decisions_are_kept(self, store: Store) -> None:
        """The newest first, and no more than are kept."""
        await store.write({"a": AgentRecord()}, [decision("a", n) for n in range(DECISIONS_KEPT + 7)])
        kept = await store.read_decisions("a")
        assert [d.count for d in kept] == list(range(DECISIONS_KEPT + 6, 6, -1))
        assert await store.read_decisions("a", last=2) == kept[:2]

    async def test_history_keeps_what_was_before(self, store: Store) -> None:
        """Each generation, and of an agent those that brought it a revision, with what changed; scale is none."""
        await put_version(store, 1, versions(a="one", b="one"))
        await put_version(store, 2, versions(a="two", b="one"), what="up")
        scaled = versions(a="two", b="one").model_dump(mode="json", by_alias=True)
        scaled["agents"]["a"]["scale"]["max"] = 4
        await put_version(store, 3, Fleet.model_validate(scaled))
        await put_version(store, 4, Fleet.model_validate(scaled), nonces={"b": "n1"}, what="restart b")
        history = await store.read_history()
        assert [each.generation for each in history.generations] == [4, 3, 2, 1]
        found = {name: [(r.generation, r.changes, r.what) for r in kept] for name, kept in history.revisions.items()}
        assert found == {
            "a": [(2, ("command",), "up"), (1, (), "")],
            "b": [(4, ("restart",), "restart b"), (1, (), "")],
        }
        assert history.generations[3].fleet == versions(a="one", b="one")
        assert history.revisions["b"][0].nonce == "n1"
        stored = await store.read_fleet()
        assert stored is not None and stored.nonces == {"b": "n1"}

    async def test_history_has_each_revision_once_and_ten_at_most(self, store: Store) -> None:
        """Coming back to one makes it the newest; of more than ten the oldest goes; an agent that left is forgotten."""
        for generation in range(1, 13):
            await put_version(store, generation, versions(a=f"v{generation}", b="one"))
        await put_version(store, 13, versions(a="v11", b="one"))
        history = await store.read_history()
        assert [r.generation for r in history.revisions["a"]] == [13, 12, 10, 9, 8, 7, 6, 5, 4, 3]
        assert [r.generation for r in history.revisions["b"]] == [1]
        assert [each.generation for each in history.generations] == list(range(13, 3, -1))
        await put_version(store, 14, versions(a="v11"))
        assert set((await store.read_history()).revisions) == {"a"}

    async def test_history_holds_what_secrets_had(self, store: Store) -> None:
        """By their HMAC: another content is another revision, and both are named while one can come back to them."""
        fleet = Fleet.model_validate({"fleet": "f", "agents": {"a": {"command": "x", "port": 80, "secrets": ["S"]}}})
        await put_version(store, 1, fleet, secrets={"S": SecretRecord("d1", 1.0, "ann")})
        await put_version(store, 2, fleet, secrets={"S": SecretRecord("d2", 2.0, "ann")})
        history = await store.read_history()
        assert [(r.digests, r.changes) for r in history.revisions["a"]] == [
            ({"S": "d2"}, ("secrets.S",)),
            ({"S": "d1"}, ()),
        ]
        assert history.digests == {"d1", "d2"}
