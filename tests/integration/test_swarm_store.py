"""The contract of every store on a real Swarm, whose labels and configs hold it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shoal.control.document_store import DocumentStore
from shoal.control.store import Store
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.names import FLEET
from tests.store_contract import StoreContract
from tests.swarm_bed import Swarm


class TestSwarmStore(StoreContract):
    """See `StoreContract`."""

    @pytest.fixture
    async def store(self, swarm: Swarm) -> AsyncIterator[Store]:
        async with Docker(swarm.endpoint) as docker:
            try:
                yield DocumentStore(SwarmKeeper(docker, "f"))
            finally:
                for service in await docker.services({FLEET: "f"}):
                    await docker.remove_service(service["ID"])
                for config in await docker.configs({FLEET: "f"}):
                    await docker.remove_config(config["ID"])
