"""Mutual TLS on the line: who is let in, who is not and why, and certificates that change meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from shoal.core.routing import Snapshot
from shoal.pki import Authority, Credentials, Identity
from shoal.proxy.codec import Delta, patch
from shoal.proxy.line_keys import LineGuard
from shoal.proxy.link import GatewayLink, serve_gateways
from shoal.proxy.uplink import Uplink
from shoal.proxy.wire import Report
from tests.unit.proxy.line_credentials import FLEET, GivenKeys, free_address, line_guard
from tests.unit.proxy.test_gateways_contract import until

OTHER = Authority.create("lake", time.time())
SNAPSHOT = Snapshot("lake", "127.0.0.1", 8080)


class Played:
    """A gateway without an Envoy, which counts its connections."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.version = 0
        self.connections = 0
        self.report = Report()

    def receive(self, delta: Delta) -> None:
        self.snapshot, self.version = patch(self.snapshot, delta), delta.version

    def connected(self, connected: bool) -> None:
        if not connected:
            self.version, self.report = 0, Report()
        elif not self.version:
            self.connections += 1

    def acknowledge(self) -> None:
        self.report = Report(acknowledged=self.version)

    def status(self) -> Report:
        return self.report


def gateway(name: str = "one", *, authority: Authority = FLEET, age_s: float = 0.0, role: str = "gateway") -> Identity:
    """A certificate of an hour that was issued some time ago."""
    return authority.issue(role, name, now=time.time() - age_s, ttl_s=3600)  # pyright: ignore[reportArgumentType]


@asynccontextmanager
async def connecting(keys: GivenKeys, address: str) -> AsyncGenerator[tuple[Played, Uplink]]:
    """A gateway of the name `one` that tries to connect meanwhile."""
    played = Played()
    uplink = Uplink(address, "one", played, keys)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run())
        try:
            yield played, uplink
        finally:
            running.cancel()


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (gateway("other"), "the gateway says that it is one"),
        (gateway(role="node"), "node one of fleet lake may not do this"),
        (gateway(role="client"), "client one of fleet lake may not do this"),
        (gateway(authority=OTHER), "UNAVAILABLE"),
        (gateway(age_s=3601), "UNAVAILABLE"),
    ],
    ids=["another-name", "a-node", "a-person", "another-fleet", "expired"],
)
async def test_who_is_not_let_in(identity: Identity, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """A role, a name, an authority or a date that is not right: each alone is enough, and it serves on without us."""
    address = free_address()
    shown = Identity(identity.key_pem, identity.certificate_pem, FLEET.certificate_pem, identity.peer)
    async with serve_gateways(address, line_guard()) as link, connecting(GivenKeys(shown), address) as (played, _):
        link.push(SNAPSHOT)
        await until(lambda: why in caplog.text)
        assert link.live == ()
        assert played.snapshot is None


async def test_a_gateway_speaks_to_no_controller_but_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Another fleet's, or a gateway of its own fleet that plays the controller, is told nothing."""
    for guard in (line_guard(OTHER), LineGuard(Credentials(gateway()))):
        address = free_address()
        caplog.clear()
        async with serve_gateways(address, guard) as link, connecting(GivenKeys(gateway()), address):
            await until(lambda: "no controller at" in caplog.text)
            assert link.live == ()


async def test_a_new_certificate_takes_the_place_of_the_old_without_a_gap() -> None:
    """The controller never misses the gateway, sums go on, and the barrier holds for the new connection."""
    address, keys = free_address(), GivenKeys(gateway())
    async with serve_gateways(address, line_guard()) as link, connecting(keys, address) as (played, uplink):
        missed: list[bool] = []
        link.push(SNAPSHOT)
        await until(lambda: played.version > 0)  # told on the first line, so what comes next is told on the second
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(link, missed))
            for _ in range(3):
                before = played.connections
                keys.give(gateway())
                await until(lambda before=before: played.connections > before and played.version > 0)
                version = link.push(SNAPSHOT)
                assert await link.wait_acknowledged(version, 0.01) == ("one",)
                await until(lambda version=version: played.version >= version)
                played.acknowledge()
                uplink.wake()
                assert await link.wait_acknowledged(version, 20) == ()
            watching.cancel()
        assert missed == []


async def _watch(link: GatewayLink, missed: list[bool]) -> None:
    while True:
        await link.changed()
        if link.live != ("one",):
            missed.append(True)


async def test_a_stream_ends_with_its_certificate(caplog: pytest.LogCaptureFixture) -> None:
    """Who does not renew it in time is let in no more, not even on the line that he has."""
    address, keys = free_address(), GivenKeys(gateway(age_s=3600 - 8))
    async with serve_gateways(address, line_guard()) as link, connecting(keys, address):
        await until(lambda: link.live == ("one",))
        await until(lambda: link.live == ())
        assert "its certificate has expired" in caplog.text
        keys.give(gateway())
        await until(lambda: link.live == ("one",))


async def test_the_controllers_own_certificate_changes_while_it_listens() -> None:
    """Who connects later is shown the new one; here the first one has expired by then."""
    address, now = free_address(), time.time()
    credentials = Credentials(FLEET.issue("controller", "one", now=now - 3590, ttl_s=3600))
    async with serve_gateways(address, LineGuard(credentials)) as link:
        async with connecting(GivenKeys(gateway()), address):
            await until(lambda: link.live == ("one",))
        credentials.replace(FLEET.issue("controller", "one", now=now, ttl_s=3600))
        await until(lambda: time.time() > now + 10 and link.live == ())
        async with connecting(GivenKeys(gateway()), address):
            await until(lambda: link.live == ("one",))
            assert link.live == ("one",) and time.time() > now + 10, "by the new one: the first has expired"


async def test_a_try_that_failed_leaves_nothing_behind() -> None:
    """A call that is held on to keeps its closed channel connecting: more and more, with the controller away."""
    address, tried = free_address(), 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    host, port = address.split(":")
    gc.collect()
    gc.disable()
    try:
        before = _calls()
        async with await asyncio.start_server(hang_up, host, int(port)), connecting(GivenKeys(gateway()), address):
            await until(lambda: tried >= 5)
        assert _calls() == before
    finally:
        gc.enable()


def _calls() -> int:
    return sum(type(each).__name__ == "StreamStreamCall" for each in gc.get_objects())
