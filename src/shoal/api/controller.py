"""The controller of one machine put together: store, engine, gateways, queues, loop and API, in one process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path

from shoal.api.client import socket_path
from shoal.api.queue_admins import QueueAdmins
from shoal.api.server import serve_api
from shoal.control.agent_state import Event
from shoal.control.controller import Controller
from shoal.control.event_file import EVENTS_FILE, EventFile
from shoal.control.parts import Parts, QueueBroker
from shoal.control.secret_contents import SecretContents
from shoal.control.sqlite_store import open_store
from shoal.control.store import StoredFleet
from shoal.core.template import SecretUse
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.platform import LocalPlatform
from shoal.errors import Conflict, NotFound
from shoal.proxy.link import serve_gateways
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.rabbitmq import RabbitMqQueues
from shoal.spec.engine_options import LocalOptions


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
            contents = SecretContents(directory)
            async with (
                LocalEngine(
                    directory,
                    fleet,
                    options,
                    project_directory=project,
                    secrets=_secret_reader(contents),
                    mask=contents.mask,
                ) as engine,
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
                        open_queues=open_queues,
                        open_outside=RabbitMqQueues,
                        read_secret=_secret_reader(contents),
                        clock=time.time,
                        prune_secrets=lambda kept: _prune(contents, kept | engine.secret_digests()),
                        take_fleet=lambda stored: _configure(engine, stored),
                        fleet=fleet,
                        events=EventFile(directory / EVENTS_FILE),
                    )
                )
                async with (
                    contextlib.aclosing(QueueAdmins(controller, fleet, contents.mask)) as queues,
                    serve_api(controller, socket_path(directory), queues),
                ):
                    await controller.run()


async def _prune(contents: SecretContents, kept: frozenset[str]) -> None:
    contents.prune(kept)


def _configure(engine: LocalEngine, stored: StoredFleet) -> None:
    if stored.fleet is not None:
        engine.configure(stored.fleet.local, project_directory=Path(stored.directory))


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


def _secret_reader(contents: SecretContents) -> Callable[[SecretUse], bytes]:
    def read(use: SecretUse) -> bytes:
        content = contents.get(use.digest)
        if content is None:
            raise NotFound(
                f"the secret {use.name} has no content in this fleet any more; give it one by `shoal secret set "
                f"{use.name}`, or from its source by `shoal up`"
            )
        return content

    return read


async def open_queues(admin_url: str, fleet: str) -> QueueBroker:
    """The embedded broker's queues."""
    return JetStreamQueues(admin_url, fleet)
