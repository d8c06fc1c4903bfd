"""What agents wrote on a Swarm, while no controller answers: who looks is told that nothing masks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from shoal.cli.swarm.installation import SwarmInstaller
from shoal.cli.swarm.place import SwarmPlace
from shoal.control.document_store import DocumentStore
from shoal.control.store import SecretRecord
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.spec.model import Fleet
from tests.fake_docker import FakeDocker

WEB = Fleet.model_validate({"fleet": "shop", "engine": "swarm", "agents": {"web": {"image": "acme/web:1"}}})


@pytest.mark.parametrize("has_secrets", [True, False])
async def test_that_nothing_is_masked_is_said(
    has_secrets: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a fleet with secrets."""
    docker = FakeDocker()
    secrets = {"KEY": SecretRecord("0123456789ab", 1.0, "me")} if has_secrets else {}
    store = DocumentStore(SwarmKeeper(docker, "shop"))
    await store.write_fleet(WEB, directory="/", by="me", at=1.0, expected_generation=0, secrets=secrets)

    @asynccontextmanager
    async def connect(self: SwarmPlace) -> AsyncGenerator[FakeDocker]:
        yield docker

    monkeypatch.setattr(SwarmPlace, "docker", connect)
    logs = SwarmPlace("shop", None, {}, SwarmInstaller({}, None)).logs([], None, None)
    assert logs is not None
    assert [line async for line in logs] == []
    assert ("Secrets are not masked" in capsys.readouterr().err) == has_secrets
