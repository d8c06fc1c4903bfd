"""The gateway process: it keeps one Envoy, tells it the last snapshot, and is the controller's ear at this place.

Nothing here is on a request's path, the hold aside; and everything goes on when the controller is away.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from shoal.core.routing import Snapshot
from shoal.errors import GatewayError
from shoal.proxy.ads import AdsServer
from shoal.proxy.codec import Delta, dumps, loads, patch
from shoal.proxy.envoy import EnvoyKeeper, EnvoyPlace
from shoal.proxy.messages import ASSIGNMENT, CLUSTER, LISTENER, ROUTES, Encoder
from shoal.proxy.render import Renderer
from shoal.proxy.sockets import reachable_socket
from shoal.proxy.uplink import Uplink
from shoal.proxy.wire import Report

log = logging.getLogger(__name__)

_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """`drain_s` is how long requests may go on after SIGTERM; `hold_s` how long one waits for a first replica."""

    state_dir: Path
    controller: str
    name: str
    concurrency: int = 2
    drain_s: float = 5.0
    hold_s: float = 60.0
    ca_file: str | None = None


async def run_gateway(options: GatewayOptions) -> None:
    """Runs until SIGTERM or SIGINT, then drains and ends Envoy. Raises GatewayError if it can't start."""
    options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _only_one(options.state_dir):
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
        self._snapshot: Snapshot | None = None
        self._renderer = Renderer(ca_file=options.ca_file or _system_ca(), hold_s=options.hold_s)
        self._encoder = Encoder()
        self._versions: tuple[int, int] = (0, 0)  # the controller's, and what ADS calls the same
        self._acknowledged = 0
        self._refused = ""
        self._gateway_socket = reachable_socket(options.state_dir / "gateway.sock")
        self.ads = AdsServer(self._ads_changed)
        self.uplink = Uplink(options.controller, options.name, self)
        self.envoy = EnvoyKeeper(
            EnvoyPlace(
                directory=options.state_dir,
                gateway_socket=self._gateway_socket,
                admin_socket=reachable_socket(options.state_dir / "admin.sock"),
                node=options.name,
                concurrency=options.concurrency,
            )
        )
        stored = self._stored.load()
        if stored is not None:
            self._apply(stored)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listens for Envoy."""
        server = grpc.aio.server(options=(("grpc.max_receive_message_length", 64 << 20),))
        server.add_generic_rpc_handlers((self.ads.handler(),))
        server.add_insecure_port(f"unix:{self._gateway_socket}")
        await server.start()
        self._gateway_socket.chmod(0o600)
        try:
            yield
        finally:
            await server.stop(0.2)
            self._stored.flush()

    def parts(self):  # noqa: ANN201
        return (self.envoy.run(), self.uplink.run(), self._stored.run())

    async def drain(self) -> None:
        """Lets requests finish that have begun: bounded by `drain_s`."""

    def receive(self, delta: Delta) -> None:
        self._versions = (delta.version, 0)
        try:
            snapshot = patch(self._snapshot, delta)
            self._apply(snapshot)
        except GatewayError as error:
            log.error("%s", error)
            self._refused = str(error)
            self.uplink.wake()
            return
        self._stored.put(snapshot)
        self._ads_changed()

    def connected(self, connected: bool) -> None:
        if not connected:
            self._acknowledged = 0
            self._versions = (0, 0)

    def status(self) -> Report:
        return Report(acknowledged=self._acknowledged, refused=self._refused)

    def _apply(self, snapshot: Snapshot) -> None:
        rendered = self._renderer.render(snapshot)
        published = self.ads.publish(
            {
                CLUSTER: self._encoder.encode_all(CLUSTER, rendered.clusters),
                ASSIGNMENT: self._encoder.encode_all(ASSIGNMENT, rendered.assignments),
                LISTENER: self._encoder.encode_all(LISTENER, rendered.listeners),
                ROUTES: self._encoder.encode_all(ROUTES, rendered.routes),
            }
        )
        self._snapshot = snapshot
        self._versions = (self._versions[0], published)

    def _ads_changed(self) -> None:
        theirs, ours = self._versions
        if theirs and ours and self.ads.acknowledged >= ours:
            self._acknowledged = theirs
        self._refused = self.ads.error
        self.uplink.wake()


class SnapshotFile:
    """The last snapshot on disk: written off the loop, at most once a second, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due: Snapshot | None = None
        self._wake = asyncio.Event()

    def load(self) -> Snapshot | None:
        try:
            return loads(Snapshot, self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, GatewayError) as error:
            log.error("can't use the stored snapshot %s, waiting for the controller: %s", self._path, error)
            return None

    def put(self, snapshot: Snapshot) -> None:
        self._due = snapshot
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.flush()
            await asyncio.sleep(1.0)

    def flush(self) -> None:
        snapshot, self._due = self._due, None
        if snapshot is None:
            return
        try:
            new = self._path.with_suffix(".new")
            new.write_bytes(dumps(snapshot))
            new.replace(self._path)
        except OSError as error:
            log.error("can't store the snapshot in %s: %s", self._path, error)


class _only_one:  # noqa: N801
    """Two gateway processes in one directory would fight for one Envoy."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "gateway.lock"
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + 2.0
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._descriptor)
                    raise GatewayError(f"another gateway process runs with {self._path.parent}") from None
                time.sleep(0.05)
            else:
                return

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


def _system_ca() -> str | None:
    return next((path for path in _CA_FILES if Path(path).is_file()), None)
