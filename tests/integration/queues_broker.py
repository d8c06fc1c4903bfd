"""Real brokers for tests, on free loopback ports, and real workers as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nats.aio.client import Client

from shoal.api.queue_admins import QueueAdmin
from shoal.control.parts import QueueBroker
from shoal.core.broker import ADMIN_USER, broker_url, broker_users, render_config
from shoal.core.wiring import Wiring, dead_subject_name, environment_for
from shoal.sdk import Worker, close, publish
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.jetstream_admin import JetStreamAdmin
from shoal.spec import model
from shoal.spec.model import Agent, Fleet, Queue

DEADLINE_S = 30.0
B = TypeVar("B", bound="Broker")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(
    condition: Callable[[], Awaitable[Any] | Any], what: str, deadline_s: float = DEADLINE_S, every_s: float = 0.02
) -> Any:
    """The first true value of `condition`, asked every 20 ms or `every_s`; fails with `what` after the deadline."""
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                value = condition()
                if isinstance(value, Awaitable):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s} s: {what}") from None


class Broker(Protocol):
    """One fleet's broker. `deduplicates`: it drops a second task of an id, and a dead letter that is
    written twice."""

    name: str
    directory: Path
    fleet: Fleet
    deduplicates: bool

    @property
    def queues(self) -> QueueBroker: ...

    @property
    def admin(self) -> QueueAdmin: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    async def ensure(self) -> None: ...

    async def close(self) -> None: ...

    def environment(self, agent: str) -> dict[str, str]: ...

    def masked_admin(self, mask: Callable[[str], str]) -> QueueAdmin:
        """An administrator that masks what workers wrote."""
        ...

    async def write_dead(self, queue: str, headers: Mapping[str, str], payload: bytes) -> None:
        """A dead letter, as a worker writes it."""
        ...


async def depth(broker: Broker, queue: str = "images") -> float:
    """What waits, is worked on or waits for another attempt."""
    return (await broker.queues.read())[queue].value


async def dead(broker: Broker, queue: str = "images") -> int:
    """How many dead letters there are."""
    return next(counts.dead for counts in await broker.admin.list() if counts.name == queue)


class Nats:
    """One fleet's nats-server as Shoal configures it."""

    name = "nats"
    deduplicates = True

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        self.directory = directory
        self.fleet = fleet
        self.port = free_port()
        self.passwords = {name: f"secret-of-{name}" for name in broker_users(fleet)}
        self.admin_url = broker_url(ADMIN_USER, "secret-of-shoal", "127.0.0.1", self.port)
        self.queues = JetStreamQueues(self.admin_url, fleet.fleet)
        self.admin = JetStreamAdmin(self.admin_url, fleet.fleet)
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self) -> Path:
        path = self.directory / "nats.conf"
        text = render_config(
            self.fleet,
            passwords=self.passwords,
            admin_password="secret-of-shoal",
            store_dir=str(self.directory / "store"),
            port=self.port,
        )
        path.write_text(text)
        path.chmod(0o600)
        return path

    def start(self) -> None:
        binary = Path(sys.executable).parent / "nats-server"
        with (self.directory / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([str(binary), "-c", str(self.write_config())], stdout=log, stderr=log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    async def ensure(self) -> None:
        await self.queues.ensure(self.fleet.queues)

    async def close(self) -> None:
        await self.queues.close()
        await self.admin.close()
        self.kill()

    def environment(self, agent: str) -> dict[str, str]:
        url = broker_url(agent, self.passwords[agent], "127.0.0.1", self.port)
        wiring = Wiring(bind="127.0.0.1", public_port=1, broker_url={agent: url})
        return environment_for(self.fleet.fleet, agent, self.fleet.agents[agent], wiring)

    def masked_admin(self, mask: Callable[[str], str]) -> QueueAdmin:
        return JetStreamAdmin(self.admin_url, self.fleet.fleet, mask)

    async def write_dead(self, queue: str, headers: Mapping[str, str], payload: bytes) -> None:
        client = Client()
        await client.connect(
            broker_url("worker", self.passwords["worker"], "127.0.0.1", self.port),
            inbox_prefix="_INBOX.worker",
            allow_reconnect=False,
        )
        subject = dead_subject_name(self.fleet.fleet, queue)
        reply = await client.request(subject, payload, timeout=5, headers=dict(headers))
        assert "seq" in json.loads(reply.data)
        await client.close()


@contextlib.asynccontextmanager
async def running(broker: B) -> AsyncIterator[B]:
    """It, with the fleet's queues, and no connection of this loop left open after."""
    broker.start()
    try:
        await broker.ensure()
        yield broker
    finally:
        await close()
        await broker.close()


def a_fleet(
    *, ack_wait_s: float = 2.0, max_attempts: int = 3, grace_s: float = 10.0, broker: Mapping[str, Any] | None = None
) -> Fleet:
    """`front` publishes to `images`, `worker` consumes it; `other` consumes and `clerk` publishes `letters`."""
    return Fleet(
        fleet="ware-house",
        agents={
            "front": Agent(port=8000, publishes=("images",)),
            "worker": Agent(queue="images", stop_grace_period=grace_s),
            "clerk": Agent(port=8001, publishes=("letters",)),
            "other": Agent(queue="letters"),
        },
        queues={
            "images": Queue(ack_wait=ack_wait_s, max_attempts=max_attempts),
            "letters": Queue(ack_wait=ack_wait_s, max_attempts=max_attempts),
        },
        brokers={"main": model.Broker.model_validate(broker or {})},
    )


async def send(broker: Broker, *payloads: object) -> None:
    """Tasks to `images`, whose payload is their id too."""
    with environment(broker.environment("front")):
        if len(payloads) <= 16:  # few enough for their order to matter
            for payload in payloads:
                await publish("images", payload, id=str(payload))
            return
        async with asyncio.TaskGroup() as group:
            for payload in payloads:
                group.create_task(publish("images", payload, id=str(payload)))


@contextlib.asynccontextmanager
async def working(broker: Broker, handler: Worker) -> AsyncIterator[None]:
    """The worker at work in this process; drained in the end."""
    os.environ.update(broker.environment("worker"))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(handler.serve())
        try:
            yield
        finally:
            handler.stop()
            async with asyncio.timeout(20):
                await serving


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """The variables of an agent for what runs within, and none that an earlier test left."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("SHOAL_"):
            del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class WorkerProcess:
    """A worker in a process of its own; its code writes a line to `self.seen()` with `note("...")`."""

    def __init__(self, directory: Path, name: str, variables: Mapping[str, str], code: str) -> None:
        self.notes = directory / f"{name}.notes"
        self.log = directory / f"{name}.log"
        script = directory / f"{name}.py"
        script.write_text(
            "import os, sys, time, asyncio\n"
            "def note(text):\n"
            f"    with open({str(self.notes)!r}, 'a') as notes: notes.write(f'{{time.time():.3f}} {{text}}\\n')\n"
            + textwrap.dedent(code)
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script)],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def seen(self) -> list[str]:
        """The notes, without their times."""
        return [line.split(" ", 1)[1] for line in self.lines()]

    def lines(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def ended(self, deadline_s: float = DEADLINE_S) -> int:
        await until(lambda: self.process.poll() is not None, f"the end of {self.log}", deadline_s)
        return int(self.process.returncode)
