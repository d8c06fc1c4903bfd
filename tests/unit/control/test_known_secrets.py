"""What is taken out of what replicas wrote: from the first look on, and what was put in the cluster since."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from shoal.control.known_secrets import KnownSecrets
from shoal.control.problems import Problems
from shoal.core.template import SecretUse
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.names import Role, fleet_labels, secret_name
from shoal.errors import EngineUnavailable, NotFound
from tests.fake_kubernetes import FakeKubernetes
from tests.simulation.virtual_time import run_virtually

DIGEST = "0" * 64


async def add(cluster: FakeKubernetes, name: str, content: bytes) -> None:
    secret: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": secret_name(name, DIGEST), "labels": fleet_labels("shop", Role.SECRET)},
        "data": {name: base64.b64encode(content).decode()},
    }  # fmt: skip
    await cluster.create(SECRET, secret)


async def test_they_are_masked_once_they_were_read() -> None:
    cluster = FakeKubernetes()
    await add(cluster, "DB", b"hunter22")
    secrets = KnownSecrets(cluster)
    assert await secrets.read() and not await secrets.read()
    assert secrets.mask("with hunter22") == "with ***"
    assert secrets.content(SecretUse("DB", False, DIGEST)) == b"hunter22"
    with pytest.raises(NotFound, match="the secret OTHER is not in the cluster"):
        secrets.content(SecretUse("OTHER", False, DIGEST))


async def test_one_that_is_about_to_be_made_is_masked_at_once() -> None:
    """With all that it holds; so it is after a look that came too early for it, and the next one finds the same."""
    cluster = FakeKubernetes()
    secrets = KnownSecrets(cluster)
    urls = {"A": "nats://a:one111@broker", "B": "amqp://b:two222@other"}
    secret: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "web-wiring-r1", "labels": fleet_labels("shop", Role.SECRET)},
        "data": {name: base64.b64encode(url.encode()).decode() for name, url in urls.items()},
    }  # fmt: skip
    assert secrets.mask(urls["A"]) == urls["A"]
    secrets.take(secret)
    assert not await secrets.read()
    assert [secrets.mask(f"to {url}") for url in urls.values()] == ["to ***"] * 2
    await cluster.create(SECRET, secret)
    assert not await secrets.read() and secrets.mask(urls["B"]) == "***"


def test_those_that_could_not_be_read_are_read_later() -> None:
    """That is told; who shows what was masked by the others hears of it, once."""

    async def run() -> None:
        cluster, heard = FakeKubernetes(), list[float]()
        secrets, problems = KnownSecrets(cluster), Problems(lambda: 0.0, lambda event: None)
        time = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(secrets.run(problems, lambda: heard.append(time())))
            await add(cluster, "DB", b"hunter22")
            cluster.away = EngineUnavailable("no route")
            secrets.want()
            await asyncio.sleep(0.5)
            assert problems == {"secrets": "no route"} and secrets.mask("hunter22") == "hunter22"
            cluster.away = None
            await asyncio.sleep(1.0)
            assert not problems and secrets.mask("hunter22") == "***" and heard == [1.0]
            secrets.want()
            await asyncio.sleep(5.0)
            assert heard == [1.0]
            reading.cancel()

    run_virtually(run())
