"""The controller of one machine put together: store, engine, gateways, queues, loop and API, in one process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

from shoal.api.client import socket_path
from shoal.api.server import serve_api
from shoal.control.agent_state import Event
from shoal.control.controller import Controller
from shoal.control.parts import Parts, QueueBroker
from shoal.control.sqlite_store import open_store
from shoal.control.store import StoredFleet
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.platform import LocalPlatform
from shoal.errors import Conflict, NotFound
from shoal.proxy.link import serve_gateways
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.jetstream_admin import JetStreamAdmin
from shoal.spec.model import LocalOptions


async def run_controller(directory: Path, fleet: str) -> None:
    """Runs the fleet whose state is in `directory` until it is taken down; cancelled, it leaves the fleet running.

    Raises Conflict, naming the process, when the fleet has a controller already.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_controller(directory, fleet):
        async with open_store(directory / "state.db") as store:
            stored = await store.read_fleet()
            options = stored.fleet.local if stored is not None and stored.fleet is not None else LocalOptions()
            project = Path(stored.directory) if stored is not None else Path.cwd()
            link = f"unix:{directory / 'gateways.sock'}"
            secrets = _secret_reader(directory)
            async with (
                LocalEngine(directory, fleet, options, project_directory=project, secrets=secrets) as engine,
                serve_gateways(link) as gateways,
            ):
                controller = Controller(
                    Parts(
                        engine=engine,
                        inspector=engine,
                        platform=LocalPlatform(
                            directory,
                            controller=link,
                            died=lambda why: controller.note(Event(time.time(), None, "crashed", why)),
                        ),
                        gateways=gateways,
                        store=store,
                        open_queues=_open_queues,
                        clock=time.time,
                        secret_digest=_digester(directory, secrets),
                        take_fleet=lambda stored: _configure(engine, stored),
                        fleet=fleet,
                    )
                )
                async with (
                    _queue_admin(controller, fleet) as queue_admin,
                    serve_api(controller, socket_path(directory), queue_admin),
                ):
                    await controller.run()


def _configure(engine: LocalEngine, stored: StoredFleet) -> None:
    if stored.fleet is not None:
        engine.configure(stored.fleet.local, project_directory=Path(stored.directory))


@contextlib.asynccontextmanager
async def _queue_admin(controller: Controller, fleet: str) -> AsyncGenerator[Callable[[], JetStreamAdmin | None]]:
    """One administrator's connection for all requests, opened with the first."""
    opened: list[JetStreamAdmin] = []

    def admin() -> JetStreamAdmin | None:
        url = controller.wired.wiring.broker_admin_url if controller.wired is not None else None
        if url is not None and not opened:
            opened.append(JetStreamAdmin(url, fleet))
        return opened[0] if opened else None

    try:
        yield admin
    finally:
        for each in opened:
            await each.close()


@contextlib.contextmanager
def _only_controller(directory: Path, fleet: str) -> Generator[None]:
    """Holds the fleet's lock; the kernel lets go of it however this process ends."""
    path = directory / "controller.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 64).decode(errors="replace").strip() or "another process"
            raise Conflict(
                f"fleet {fleet!r} has a controller already: {holder}; "
                "look at it with `shoal status`, or end it with `shoal down`"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _secret_reader(directory: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        try:
            return (directory / "secrets" / name).read_bytes()
        except FileNotFoundError:
            raise NotFound(
                f"secret {name!r} has no value in this fleet; set the variable {name} and run `shoal up` again"
            ) from None

    return read


def _digester(directory: Path, read: Callable[[str], bytes]) -> Callable[[str], str]:
    """HMACs of secrets' contents, by a key of the fleet's own: they tell a change, and nothing else."""
    path = directory / "digest.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(os.urandom(32))
    key = path.read_bytes()

    def digest(name: str) -> str:
        return hmac.new(key, read(name), hashlib.sha256).hexdigest()

    return digest


async def _open_queues(admin_url: str, fleet: str) -> QueueBroker:
    return JetStreamQueues(admin_url, fleet)
