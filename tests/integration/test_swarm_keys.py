"""A fleet on a real Swarm whose certificates live for half a minute: gateways on every node, under load."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout

from shoal.api.client import Client
from shoal.cli.contexts import FleetContext, load_context, remote_client, save_context
from shoal.control.document_store import DocumentStore
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.install import Keys, install
from shoal.engines.swarm.names import Role, own_name
from shoal.engines.swarm.removal import remove_all
from shoal.errors import IdentityError, ShoalError
from shoal.pki import Authority, JoinToken
from shoal.pki.joining import join_fleet
from shoal.spec.model import Fleet
from tests.swarm_bed import Swarm

FLEET, PORT, ADMIN_PORT = "keys", 8090, 7460
LIFE_S, ROTATIONS = 30.0, 2
PACE_S = 0.1
DEADLINE_S = 120.0


@asynccontextmanager
async def running(swarm: Swarm, environ: dict[str, str]) -> AsyncGenerator[tuple[Docker, Client, Authority]]:
    """A fleet of one service, its controller giving out certificates of `LIFE_S`; gone afterwards."""
    authority = Authority.create(FLEET, time.time())
    token = JoinToken.create(authority.certificate_pem)
    keys = Keys(authority.certificate_pem.encode(), authority.key_pem.encode(), str(token).encode())
    web = {"image": swarm.agents_image, "command": ["python3", "/agents/http_agent.py"], "port": 8000}
    more = {"health": "/healthz", "public": "/web", "scale": {"min": 2, "max": 2}}
    own = {"image": swarm.shoal_image, "port": PORT, "admin_port": ADMIN_PORT}
    fleet = Fleet.model_validate({"fleet": FLEET, "engine": "swarm", "agents": {"web": {**web, **more}}, "swarm": own})
    async with Docker(swarm.endpoint) as docker:
        await remove_all(docker, FLEET, data=True)
        try:
            await install(docker, FLEET, swarm.shoal_image, ADMIN_PORT, keys, ())
            await docker.update_service(own_name(FLEET, Role.CONTROLLER.value), _with_short_lives)
            await DocumentStore(SwarmKeeper(docker, FLEET)).write_fleet(
                fleet, directory="/", by="test", at=time.time(), expected_generation=0
            )
            person = authority.issue("client", "ann", now=time.time(), ttl_s=3600)
            managers = tuple(f"{address}:{ADMIN_PORT}" for address in swarm.addresses.values())
            save_context(environ, FleetContext(FLEET, "swarm", None, managers, person.pem))
            stored = load_context(environ, FLEET)
            assert stored is not None
            yield docker, remote_client(environ, stored), authority
        finally:
            await remove_all(docker, FLEET, data=True)


def _with_short_lives(spec: dict[str, Any]) -> dict[str, Any]:
    container = spec["TaskTemplate"]["ContainerSpec"]
    for key in ("Command", "Args"):
        if container.get(key):
            container[key] += ["--certificate-life", f"{LIFE_S:g}"]
            return spec
    raise AssertionError("the controller's service has no command")


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while True:
        with suppress(ShoalError):
            if await condition():
                return
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.5)


async def ask(address: str, failed: list[str], stop: asyncio.Event) -> int:
    """One request after the other, half of them on new connections, none of them retried."""
    count, timeout = 0, ClientTimeout(total=10)
    async with ClientSession(timeout=timeout) as kept:
        while not stop.is_set():
            count += 1
            try:
                async with (
                    ClientSession(timeout=timeout) as new,
                    (kept if count % 2 else new).post(f"http://{address}:{PORT}/web/", data=b"x") as answer,
                ):
                    if answer.status != 200:
                        failed.append(f"{address} {count}: {answer.status} {(await answer.text())[:80]}")
            except (ClientError, TimeoutError, OSError) as error:
                failed.append(f"{address} {count}: {error!r}")
            await asyncio.sleep(PACE_S)
    return count


async def certificates(docker: Docker) -> dict[str, int]:
    """How many each gateway has got, by its node's name."""
    found: dict[str, int] = {}
    async for line in docker.service_logs(own_name(FLEET, Role.GATEWAY.value)):
        _, marked, rest = line.text.partition("has a certificate as gateway ")
        if marked:
            name = rest.split()[0]
            found[name] = found.get(name, 0) + 1
    return found


async def test_certificates_of_half_a_minute_under_load(swarm: Swarm, tmp_path: Path) -> None:
    """All gateways renew several times and the controller's container is killed: no request fails."""
    environ = {**os.environ, "SHOAL_HOME": str(tmp_path)}
    async with running(swarm, environ) as (docker, client, _):
        await until(lambda: _serves(client, swarm), "every gateway is connected and the agent is ready")
        failed: list[str] = []
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            loads = [tasks.create_task(ask(address, failed, stop)) for address in swarm.addresses.values()]
            try:
                await _renewed(docker, swarm)
                ours = {names.FLEET: FLEET, names.ROLE: Role.CONTROLLER.value}
                (controller,) = await docker.containers(ours)
                await docker.kill(controller["Id"])
                await until(lambda: _serves(client, swarm), "a controller is back")
                await _renewed(docker, swarm)
            finally:
                stop.set()
        assert failed == []
        assert sum(load.result() for load in loads) > 100


async def _renewed(docker: Docker, swarm: Swarm) -> None:
    before = await certificates(docker)

    async def enough() -> bool:
        now = await certificates(docker)
        return all(now.get(name, 0) >= before.get(name, 0) + ROTATIONS for name in swarm.addresses)

    await until(enough, f"{ROTATIONS} renewals of each gateway")


async def _serves(client: Client, swarm: Swarm) -> bool:
    status = await client.status()
    return status.settled and set(status.gateways) == set(swarm.addresses) and status.agents[0].ready == 2


async def test_who_is_not_of_the_fleet_gets_nowhere(swarm: Swarm, tmp_path: Path) -> None:
    """Neither by another fleet's token or certificate, nor by a wrong secret, nor by a gateway's certificate."""
    environ = {**os.environ, "SHOAL_HOME": str(tmp_path)}
    other = Authority.create(FLEET, time.time())
    async with running(swarm, environ) as (_, client, authority):
        await until(client.status, "the controller answers")
        stored = load_context(environ, FLEET)
        assert stored is not None
        stranger = other.issue("client", "eve", now=time.time(), ttl_s=3600)
        gateway = authority.issue("gateway", "n1", now=time.time(), ttl_s=3600)
        for identity in (stranger, gateway):
            given = FleetContext(FLEET, "swarm", None, stored.addresses, identity.pem)
            with pytest.raises(IdentityError):
                await remote_client(environ, given).down()
        for token in (JoinToken.create(other.certificate_pem), JoinToken.create(authority.certificate_pem)):
            with pytest.raises(IdentityError):
                await _join(stored.addresses, token)


async def _join(addresses: tuple[str, ...], token: JoinToken) -> None:
    """At whichever of these the controller is."""
    for address in addresses:
        try:
            await join_fleet(f"https://{address}", token, role="gateway", name="eve")
        except IdentityError:
            raise
        except ShoalError:
            continue
