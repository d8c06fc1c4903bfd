"""The contract of every store on a real Kubernetes, whose ConfigMaps hold it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from kubernetes_namespace import a_namespace

from shoal.control.document_store import DocumentStore
from shoal.control.kubernetes_keeper import KubernetesKeeper
from shoal.control.store import Store
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP
from shoal.errors import StoreError
from shoal.spec.model import Fleet
from tests.store_contract import StoreContract

pytestmark = pytest.mark.kubernetes


class TestKubernetesStore(StoreContract):
    """See `StoreContract`."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with a_namespace() as kubernetes:
            yield DocumentStore(KubernetesKeeper(kubernetes, "f"))


async def test_a_large_state_is_in_parts() -> None:
    """That the API takes, whoever comes next finds, and that go when others take their place; to nobody else's."""
    async with a_namespace() as kubernetes:
        keeper = KubernetesKeeper(kubernetes, "f")
        fleets = [_large(seed) for seed in range(2)]
        named: list[set[str]] = []
        for generation, fleet in enumerate(fleets):
            await DocumentStore(keeper).write_fleet(
                fleet, directory="/", by="ann", at=1.0, expected_generation=generation
            )
            named.append({part.name for part in await keeper.parts()})
        stored = await DocumentStore(keeper).read_fleet()
        assert stored is not None and stored.fleet == fleets[1]
        assert all(len(parts) > 2 for parts in named) and not named[0] & named[1]
        found, _ = await kubernetes.list(CONFIG_MAP, {"shoal.dev/role": "state"})
        assert {each["metadata"]["name"] for each in found} == named[1] | {"shoal-state"}
        with pytest.raises(StoreError, match="found the state of fleet f, expected that of g"):
            await DocumentStore(KubernetesKeeper(kubernetes, "g")).read_fleet()


def _large(seed: int) -> Fleet:
    words = random.Random(seed)
    agents = {f"a{n}": {"command": ["serve", words.randbytes(400).hex()], "port": 80} for n in range(2000)}
    return Fleet.model_validate({"fleet": "f", "agents": agents})
