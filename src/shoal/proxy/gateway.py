"""The gateway process: it keeps one Envoy, tells it the last snapshot, and is the controller's ear at this place.

Nothing here is on a request's path, the hold aside; and everything goes on when the controller is away.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import signal
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc.aio

from shoal.core.routing import Endpoint, Snapshot, Traffic
from shoal.errors import GatewayError
from shoal.proxy.access_log import AccessLog
from shoal.proxy.admin import Admin
from shoal.proxy.ads import AdsServer
from shoal.proxy.codec import Delta, patch
from shoal.proxy.disk import SnapshotFile, only_one
from shoal.proxy.envoy import EnvoyKeeper, EnvoyPlace
from shoal.proxy.hold import Hold
from shoal.proxy.limits import Limits, machine_limits
from shoal.proxy.messages import ASSIGNMENT, CLUSTER, LISTENER, ROUTES, Encoder
from shoal.proxy.render import Renderer
from shoal.proxy.sockets import reachable_socket
from shoal.proxy.statistics import INTERVAL_S, Statistics
from shoal.proxy.uplink import Keys, Uplink
from shoal.proxy.wire import Report

log = logging.getLogger(__name__)

ACCESS_LOG = "access.log"
_STOP_S = 0.2
# Envoy agrees when its main thread knows; its other threads follow, and a request may be on the wire. Whoever waits for
# the ACK of a removal is about to stop the replica, so that version's waits a little.
_SETTLE_S = 0.2
_ACK_S = 0.05
_QUIET = 3  # scrapes in a row without a request: a client that was told may have one more on its way
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """`drain_s` is how long requests may go on after SIGTERM; `hold_s` how long one waits for a first replica. With
    `keys` the line to the controller is mutual TLS, else it is a Unix socket."""

    state_dir: Path
    controller: str
    name: str
    concurrency: int = 2
    drain_s: float = 5.0
    hold_s: float = 60.0
    ca_file: str | None = None
    keys: Keys | None = None
    limits: Limits = field(default_factory=machine_limits)


async def run_gateway(options: GatewayOptions) -> None:
    """Runs until SIGTERM or SIGINT, then drains and ends Envoy. Raises GatewayError if it can't start."""
    options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with only_one(options.state_dir):
        gateway = Gateway(options)
        async with gateway.serving(), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in gateway.parts()]
            await stop.wait()
            await gateway.drain()
            for task in running:
                task.cancel()
        await gateway.envoy.stop()


class Gateway:
    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        self._stored = SnapshotFile(options.state_dir / "snapshot.json")
        self._received: Snapshot | None = None  # what the controller's next change is a change of
        self._snapshot: Snapshot | None = None  # what Envoy is told: the last that could be used
        self._with_endpoints: frozenset[str] = frozenset()
        self._published_at = 0.0
        access_log = options.state_dir.absolute() / ACCESS_LOG
        place = hashlib.sha256(str(options.state_dir.absolute()).encode()).hexdigest()[:16]
        self._renderer = Renderer(
            ca_file=options.ca_file or _system_ca(),
            hold_s=options.hold_s,
            access_log=str(access_log),
            again=f"@shoal-{place}",
        )
        self._encoder = Encoder()
        self._versions = (0, 0)  # the controller's newest, and what ADS calls the same
        self._acknowledged = 0
        self._connection = 0
        self._removed = False  # an endpoint went with a version that is not agreed to yet
        self._unusable = ""
        self._socket = reachable_socket(options.state_dir / "gateway.sock")
        admin_socket = reachable_socket(options.state_dir / "admin.sock")
        self._ads = AdsServer(self._ads_changed)
        self._uplink = Uplink(options.controller, options.name, self, options.keys)
        self.envoy = EnvoyKeeper(
            EnvoyPlace(
                options.state_dir, self._socket, admin_socket, options.name, options.concurrency, options.limits
            ),
            self._uplink.wake,
        )
        self._statistics = Statistics(self.envoy.admin, self._uplink.wake)
        self._access_log = AccessLog(access_log, self.envoy.admin)
        self._hold = Hold(Admin(admin_socket), options.hold_s, self._endpoints_in_use, self._uplink.wake)
        self._start_with_stored()

    def _start_with_stored(self) -> None:
        stored = self._stored.load()
        if stored is None:
            return
        try:
            self._apply(stored)
        except GatewayError as error:
            log.warning("%s; waiting for the controller", error)
        self._received = stored

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """Listens for Envoy."""
        server = grpc.aio.server(options=(("grpc.max_receive_message_length", 64 << 20),))
        server.add_generic_rpc_handlers((self._ads.handler(), self._hold.handler()))
        server.add_insecure_port(f"unix:{self._socket}")
        await server.start()
        self._socket.chmod(0o600)
        try:
            yield
        finally:
            await server.stop(_STOP_S)
            self._stored.flush()

    def parts(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs side by side until the end."""
        keys = self._options.keys
        return (
            *((keys.run(),) if keys is not None else ()),
            self.envoy.run(),
            self._uplink.run(),
            self._stored.run(),
            self._statistics.run(),
            self._hold.run(),
            self._access_log.run(),
        )

    async def drain(self) -> None:
        """Tells clients to go elsewhere and lets requests finish that have begun: bounded by `drain_s`."""
        deadline = time.monotonic() + self._options.drain_s
        if self._options.drain_s <= 0:
            return
        try:
            await self.envoy.admin.get("/healthcheck/fail", method="POST", timeout_s=1.0)
        except GatewayError as error:
            log.warning("can't drain: %s", error)
            return
        log.info("drains: requests may go on for %g s", self._options.drain_s)
        quiet = 0
        while quiet < _QUIET and time.monotonic() < deadline:
            await asyncio.sleep(INTERVAL_S)
            busy = any(traffic.active for traffic in self._statistics.traffic.values()) or self._hold.held
            quiet = 0 if busy else quiet + 1

    def receive(self, delta: Delta) -> None:
        """Takes in what the controller sent. What can't be used is refused; Envoy goes on with what it has."""
        self._hold.controller(connected=True)
        self._versions = (delta.version, 0)
        try:
            self._received = patch(self._received, delta)
            self._apply(self._received)
            if delta.full:
                gc.freeze()  # it stays: looking through 1,000 agents for garbage stops all else for 50-100 ms
        except GatewayError as error:
            log.warning("%s", error)
            self._unusable = str(error)
            self._uplink.wake()
            return
        self._stored.put(self._received)

    def connected(self, connected: bool) -> None:
        self._hold.controller(connected)
        if not connected:  # versions are those of one connection
            self._connection += 1
            self._acknowledged = 0
            self._versions = (0, self._versions[1])

    def status(self) -> Report:
        traffic: dict[str, Traffic] = dict(self._statistics.traffic)
        for agent, count in self._hold.held.items():
            traffic[agent] = replace(traffic.get(agent, Traffic()), held=count)
        return Report(
            acknowledged=self._acknowledged,
            received=self._versions[0],
            refused=self._unusable or self._ads.error,
            traffic=traffic,
            ends=self.envoy.ends,
        )

    def _apply(self, snapshot: Snapshot) -> None:
        rendered = self._renderer.render(snapshot)
        resources = {
            CLUSTER: self._encoder.encode_all(CLUSTER, rendered.clusters),
            ASSIGNMENT: self._encoder.encode_all(ASSIGNMENT, rendered.assignments),
            LISTENER: self._encoder.encode_all(LISTENER, rendered.listeners),
            ROUTES: self._encoder.encode_all(ROUTES, rendered.routes),
        }
        self._removed |= bool(_endpoints(self._snapshot) - _endpoints(snapshot))
        self._snapshot = snapshot
        self._unusable = ""
        self._with_endpoints = frozenset(name for name, route in snapshot.agents.items() if route.endpoints)
        self._versions = (self._versions[0], self._ads.publish(resources))
        self._published_at = time.monotonic()

    def _endpoints_in_use(self) -> frozenset[str]:
        """The agents whose endpoints Envoy has been told: asking it about them any sooner is in vain, and costs its
        main thread some 8 ms with 1,000 agents. Something else that Envoy refuses must not keep them waiting."""
        told = self._ads.acknowledged >= self._versions[1] or time.monotonic() - self._published_at > _ACK_S
        return self._with_endpoints if told else frozenset()

    def _ads_changed(self) -> None:
        theirs, ours = self._versions
        if theirs > self._acknowledged and ours and self._ads.acknowledged >= ours:
            delay_s = _SETTLE_S if self._removed else 0.0
            asyncio.get_running_loop().call_later(delay_s, self._agree, theirs, self._connection)
        self._uplink.wake()

    def _agree(self, version: int, connection: int) -> None:
        if connection != self._connection:
            return
        self._acknowledged = max(self._acknowledged, version)
        if version == self._versions[0]:
            self._removed = False
        self._uplink.wake()


def _endpoints(snapshot: Snapshot | None) -> set[Endpoint]:
    return {endpoint for route in snapshot.agents.values() for endpoint in route.endpoints} if snapshot else set()


def _system_ca() -> str | None:
    return next((path for path in _CA_FILES if Path(path).is_file()), None)
