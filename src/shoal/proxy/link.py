"""The controller's side of the line to its gateways: what control knows as `Gateways`.

Gateways call us. Each is told what differs from what it was last told, so a slow one gets fewer, larger changes, and
one that comes (back) gets the whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
import grpc.aio

from shoal.core.routing import LATENCY_BOUNDS_MS, Snapshot, Traffic
from shoal.errors import GatewayError, IdentityError
from shoal.proxy.codec import PROTOCOL, diff, dumps, loads
from shoal.proxy.ledger import Ledger
from shoal.proxy.sockets import grpc_address
from shoal.proxy.wire import KEEPALIVE, LET_IN, METHOD, SERVICE, EnvoyEnd, Report

log = logging.getLogger(__name__)

_HELLO_S = 5.0
_STOP_S = 1.0
_COMES_BACK_S = 2.0  # a gateway that hung up serves on, and calls again within this time if it lives
_BUCKETS = (0, len(LATENCY_BOUNDS_MS))
_LOOK_S = 60.0  # a clock that was set is noticed within this time
_Context = grpc.aio.ServicerContext[Any, Any]


class Guard(Protocol):
    """Who may connect, where that is not for a socket's mode to say."""

    def credentials(self) -> grpc.ServerCredentials: ...

    def admit(self, auth_context: Mapping[str, Any], name: str) -> float:
        """Until when (epoch seconds) who says this name may stay; raises IdentityError."""
        ...


@asynccontextmanager
async def serve_gateways(address: str, guard: Guard | None = None) -> AsyncGenerator[GatewayLink]:
    """Listens at `unix:PATH` (only this user may connect; a long path gets a short stand-in) or, with a guard (see
    `line_keys`), at `HOST:PORT`.

    Raises GatewayError if the address can't be listened at.
    """
    link = GatewayLink(guard)
    server = grpc.aio.server(options=KEEPALIVE)
    server.add_generic_rpc_handlers((link.handler(),))
    place = grpc_address(address)
    try:
        if guard is None:
            server.add_insecure_port(place)
        else:
            server.add_secure_port(place, guard.credentials())
    except RuntimeError as error:
        raise GatewayError(f"can't listen for gateways at {address}: {error}") from error
    await server.start()
    if place.startswith("unix:"):
        Path(place.removeprefix("unix:")).chmod(0o600)
    try:
        yield link
    finally:
        link.close()
        await server.stop(_STOP_S)


class _Session:
    """One gateway on the line."""

    def __init__(self, name: str, until: float | None) -> None:
        self.name = name
        self.until = until  # when its certificate expires
        self.wake = asyncio.Event()
        self.acknowledged = 0
        self.received = 0
        self.refused = ""  # Envoy's words on the version received
        self.ends: tuple[EnvoyEnd, ...] = ()
        self.other_buckets = False  # told once
        self.over = False  # it hung up, or another stream took its place

    def refuses(self, version: int) -> bool:
        return bool(self.refused) and self.received >= version


class GatewayLink:
    """All gateways of a fleet, as the controller sees them; implements `Gateways`."""

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard
        self._snapshot: Snapshot | None = None
        self._version = 0
        self._sessions: dict[str, _Session] = {}
        self._left: dict[str, float] = {}  # when a gateway hung up
        self._ends: list[tuple[str, EnvoyEnd]] = []  # that nobody has taken yet
        self._ledger = Ledger()
        self._changed = asyncio.Event()
        self._acknowledgement = asyncio.Event()
        self._closed = False

    @property
    def live(self) -> tuple[str, ...]:
        """Names of the gateways that are connected now."""
        return tuple(sorted(self._sessions))

    @property
    def agreed(self) -> bool:
        """Whether there is one, and the Envoy of each that is connected uses the newest snapshot, or refuses it."""
        sessions = self._sessions.values()
        up_to_date = all(each.acknowledged >= self._version or each.refuses(self._version) for each in sessions)
        return self._version > 0 and bool(sessions) and up_to_date

    @property
    def refusals(self) -> Mapping[str, str]:
        """By gateway: Envoy's own words on what it refuses of the newest snapshot. It goes on with the last good one.
        Empty when all is well."""
        return {name: session.refused for name, session in self._sessions.items() if session.refuses(self._version)}

    def push(self, snapshot: Snapshot) -> int:
        """Sends what differs from the last snapshot to every live gateway, and all of it to those that come later.
        Returns the snapshot's version."""
        self._snapshot = snapshot
        self._version += 1
        self._ledger.retain(snapshot.agents)
        for session in self._sessions.values():
            session.wake.set()
        return self._version

    async def wait_acknowledged(self, version: int, timeout_s: float = 5.0) -> tuple[str, ...]:
        """Waits until every gateway's Envoy uses this version or a later one; who hung up a moment ago may be about to
        come back, and counts. Returns who did not in time. A refusal (see `refusals`) is waited for like silence: what
        is refused may be a listener while the endpoints of this version are still on their way."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._behind(version):
                    self._acknowledgement.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_COMES_BACK_S if self._left else None):
                            await self._acknowledgement.wait()
        except TimeoutError:
            pass
        return self._behind(version)

    def traffic(self) -> Mapping[str, Traffic]:
        """The newest counts by agent, merged over the live gateways; sums never fall while the controller lives."""
        return self._ledger.merged

    def take_ends(self) -> tuple[tuple[str, EnvoyEnd], ...]:
        """What was told since the last call: names of gateways, and of each an Envoy that ended by itself. A gateway
        that calls again tells the last ones once more."""
        taken, self._ends = tuple(self._ends), []
        return taken

    async def changed(self) -> None:
        """Returns when statistics, held requests, refusals, or the set of live gateways have changed since the last
        call, or all have agreed."""
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Lets the streams end, so that gateways see it at once."""
        self._closed = True
        for session in self._sessions.values():
            session.wake.set()

    def handler(self) -> grpc.GenericRpcHandler:
        method = cast("Any", grpc).stream_stream_rpc_method_handler(self._connect)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def _behind(self, version: int) -> tuple[str, ...]:
        now = asyncio.get_running_loop().time()
        self._left = {name: at for name, at in self._left.items() if now - at < _COMES_BACK_S}
        behind = {session.name for session in self._sessions.values() if session.acknowledged < version}
        return tuple(sorted(behind | (self._left.keys() - self._sessions.keys())))

    async def _connect(self, _requests: Any, context: _Context) -> None:
        session = await self._admit(context)
        self._sessions[session.name] = session  # an older one of this name is the same gateway's lost connection
        self._changed.set()
        log.info("gateway %s is connected", session.name)
        try:
            await context.send_initial_metadata(LET_IN)  # whereupon it ends the older one
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(self._listen(session, context))]
                if session.until is not None:
                    beside.append(tasks.create_task(_end_expired(session, session.until)))
                await self._tell(session, context)
                for task in beside:
                    task.cancel()
        finally:
            if self._sessions.get(session.name) is session:
                del self._sessions[session.name]
                self._left[session.name] = asyncio.get_running_loop().time()
                self._ledger.lose(session.name)
                log.info("gateway %s is gone", session.name)
            self._changed.set()
            self._acknowledgement.set()

    async def _admit(self, context: _Context) -> _Session:
        if self._closed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the controller is ending")
        async with asyncio.timeout(_HELLO_S):
            message = await context.read()
        hello = loads(Report, b"{}" if message is grpc.aio.EOF else message)
        if hello.protocol != PROTOCOL or not hello.name:
            found = f"gateway {hello.name!r} speaks protocol {hello.protocol}, this controller {PROTOCOL}"
            log.error("%s: restart the gateway with the controller's version of Shoal", found)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, found)
        until = None
        if self._guard is not None:
            try:
                until = self._guard.admit(context.auth_context(), hello.name)
            except IdentityError as error:
                log.warning("somebody at %s calls itself gateway %s: %s", context.peer(), hello.name, error)
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        return _Session(hello.name, until)

    async def _tell(self, session: _Session, context: _Context) -> None:
        told: Snapshot | None = None
        told_version = 0
        while not session.over and not self._closed:  # never cancelled in a write: gRPC would fail to end the stream
            session.wake.clear()
            if self._snapshot is not None and told_version != self._version:
                snapshot, told_version = self._snapshot, self._version
                await context.write(dumps(diff(told, snapshot, told_version)))
                told = snapshot
            await session.wake.wait()

    async def _listen(self, session: _Session, context: _Context) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            if self._sessions.get(session.name) is not session:
                break
            self._hear(session, loads(Report, message))
        session.over = True
        session.wake.set()

    def _hear(self, session: _Session, report: Report) -> None:
        had_agreed = self.agreed
        if report.refused != session.refused:
            self._changed.set()
            if report.refused:
                log.error("gateway %s: Envoy refuses what it was sent: %s", session.name, report.refused)
        if report.ends != session.ends:
            self._ends += ((session.name, end) for end in report.ends if end not in session.ends)
            session.ends = report.ends
            self._changed.set()
        session.acknowledged = max(session.acknowledged, report.acknowledged)
        session.received, session.refused = report.received, report.refused
        self._acknowledgement.set()
        if self.agreed and not had_agreed:
            self._changed.set()
        if self._ledger.update(session.name, self._usable(session, report.traffic), report.gone):
            self._changed.set()

    def _usable(self, session: _Session, traffic: Mapping[str, Traffic]) -> Mapping[str, Traffic]:
        """Without histograms of other bounds than ours, as a gateway of another version may count."""
        usable = {
            agent: replace(counts, latency_counts=()) if len(counts.latency_counts) not in _BUCKETS else counts
            for agent, counts in traffic.items()
        }
        if usable != traffic and not session.other_buckets:
            session.other_buckets = True
            found = {len(counts.latency_counts) for counts in traffic.values()} - set(_BUCKETS)
            words = f"found {min(found)} buckets of latency, expected {_BUCKETS[1]}: goes on without its latencies"
            log.error("gateway %s: %s; restart it with the controller's version of Shoal", session.name, words)
        return usable


async def _end_expired(session: _Session, until: float) -> None:
    """Ends the stream with its certificate. Who renewed that in time has connected anew by then."""
    while (left_s := until - time.time()) > 0:  # noqa: ASYNC110 - nothing tells that a clock was set
        await asyncio.sleep(min(left_s, _LOOK_S))
    log.warning("gateway %s: its certificate has expired, and it did not come with a new one", session.name)
    session.over = True
    session.wake.set()
