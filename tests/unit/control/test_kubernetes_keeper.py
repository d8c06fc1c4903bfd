"""What a fleet's state on Kubernetes has to stand beside the contract of every store: neighbours, others who write,
size, and a cluster that does not answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from shoal.control.document_store import DocumentStore
from shoal.control.kubernetes_keeper import KubernetesKeeper
from shoal.core.record import AgentRecord
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP
from shoal.errors import Conflict, EngineUnavailable, StoreError
from shoal.spec.model import Fleet
from tests.fake_kubernetes import FakeKubernetes

FLEET = Fleet.model_validate({"fleet": "f", "agents": {"a": {"command": "serve", "port": 80}}})


def store(kubernetes: FakeKubernetes, fleet: str = "f") -> DocumentStore:
    return DocumentStore(KubernetesKeeper(kubernetes, fleet))


async def put(kept: DocumentStore, fleet: Fleet = FLEET, expected: int = 0) -> None:
    await kept.write_fleet(fleet, directory="/p", by="ann", at=1.0, expected_generation=expected)


def large(seed: int, agents: int = 400) -> Fleet:
    """One that the root would not hold."""
    words = random.Random(seed)
    made = {f"a{n}": {"command": ["serve", words.randbytes(400).hex()], "port": 80} for n in range(agents)}
    return Fleet.model_validate({"fleet": "f", "agents": made})


def parts_in(kubernetes: FakeKubernetes) -> set[str]:
    return set(kubernetes.of(CONFIG_MAP)) - {"shoal-state"}


async def test_small_documents_are_in_one_config_map() -> None:
    """Which says whose it is."""
    kubernetes = FakeKubernetes()
    await put(store(kubernetes))
    (root,) = kubernetes.of(CONFIG_MAP).values()
    assert root["metadata"]["name"] == "shoal-state"
    assert root["metadata"]["labels"].items() >= {"shoal.dev/fleet": "f", "shoal.dev/role": "state"}.items()
    assert root["data"].keys() == {"schema", "fleet", "history"}


async def test_large_documents_are_in_parts_that_never_change() -> None:
    """Each below what the API takes in one request, found again by whoever comes next."""
    kubernetes = FakeKubernetes()
    await put(store(kubernetes), large(1, agents=3000))
    parts = [each for name, each in kubernetes.of(CONFIG_MAP).items() if name.startswith("shoal-state-fleet-")]
    assert len(parts) > 1 and all(part["immutable"] for part in parts)
    assert max(len(part["binaryData"]["content"]) for part in parts) < 700_000
    stored = await store(kubernetes).read_fleet()
    assert stored is not None and stored.fleet == large(1, agents=3000)


async def test_of_what_was_replaced_nothing_is_left() -> None:
    """Nor of what nobody ever named, once nobody can be about to; by the cluster's clock alone."""
    kubernetes = FakeKubernetes()
    await put(store(kubernetes), large(1))
    before = parts_in(kubernetes)
    left = await KubernetesKeeper(kubernetes, "f").put_part("fleet", "left", b"")
    kubernetes.now += 60
    await put(store(kubernetes), large(2), expected=1)
    assert before and parts_in(kubernetes) & (before | {left}) == {left}
    kubernetes.now += 3600
    await put(store(kubernetes), large(3), expected=2)
    assert left not in parts_in(kubernetes)


async def test_whoever_writes_beside_is_seen() -> None:
    """Each is tried again on what the other wrote, and both are kept."""
    kubernetes = FakeKubernetes()
    await put(store(kubernetes))

    def somebody_else() -> None:
        kubernetes.before_write = lambda: None
        root = kubernetes.of(CONFIG_MAP)["shoal-state"]
        root["metadata"]["resourceVersion"] += "0"
        root["data"]["records"] = theirs

    other = FakeKubernetes()
    await store(other).write({"b": AgentRecord(desired=5)}, ())
    theirs = other.of(CONFIG_MAP)["shoal-state"]["data"]["records"]
    kubernetes.before_write = somebody_else
    await store(kubernetes).write({"a": AgentRecord(desired=3)}, ())
    found = await store(kubernetes).read_records()
    assert found == {"a": AgentRecord(desired=3), "b": AgentRecord(desired=5)}
    with pytest.raises(Conflict, match="generation 1 was stored by ann"):
        await put(store(kubernetes))


async def test_a_part_that_another_one_replaced_is_not_missed() -> None:
    """Between the root and the part that it names another writer may come: what counts is there by then."""
    kubernetes = FakeKubernetes()
    await put(store(kubernetes), large(1))

    class Late(KubernetesKeeper):
        async def part(self, name: str) -> bytes | None:
            if not late:
                late.append(name)
                await put(store(kubernetes), large(2), expected=1)
            return await super().part(name)

    late: list[str] = []
    stored = await DocumentStore(Late(kubernetes, "f")).read_fleet()
    assert late and stored is not None and stored.fleet == large(2)
    for name in parts_in(kubernetes):
        del kubernetes.of(CONFIG_MAP)[name]
    with pytest.raises(StoreError, match="in namespace f: a part of the state is gone"):
        await store(kubernetes).read_fleet()


@pytest.mark.parametrize(
    ("labels", "found"),
    [({"shoal.dev/fleet": "g"}, "found the state of fleet g"), ({}, "found one that no fleet made")],
)
async def test_a_namespace_is_of_one_fleet(labels: dict[str, str], found: str) -> None:
    """Who comes to another one's is told whose it is and what to do, and changes nothing."""
    kubernetes = FakeKubernetes()
    theirs = {"metadata": {"name": "shoal-state", "labels": labels}, "apiVersion": "v1", "kind": "ConfigMap"}
    made = await kubernetes.create(CONFIG_MAP, theirs)
    with pytest.raises(StoreError, match=f"namespace f: {found}, expected that of f: .* by `namespace` in the file"):
        await store(kubernetes).read_fleet()
    with pytest.raises(StoreError, match=found):
        await put(store(kubernetes))
    assert kubernetes.of(CONFIG_MAP) == {"shoal-state": made}


CALLS: list[Callable[[DocumentStore], object]] = [lambda kept: kept.read_records(), put]


@pytest.mark.parametrize("call", CALLS, ids=["read", "write"])
async def test_a_cluster_that_is_away_is_told(call: Callable[[DocumentStore], object]) -> None:
    """As what it is: nothing is known of the state then, so it is neither empty nor damaged."""
    kubernetes = FakeKubernetes()
    await put(store(kubernetes))
    kubernetes.away = EngineUnavailable("its etcd is away")
    with pytest.raises(EngineUnavailable, match="its etcd is away"):
        await call(store(kubernetes))  # type: ignore[misc]
