"""The brokers that the queue campaign kills: how each is started, killed and asked, and how agents reach it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from bench.live_fleet import free_port
from shoal.api.queue_admins import QueueAdmin
from shoal.control.parts import QueueBroker
from shoal.core.broker import ADMIN_USER, broker_url, render_config
from shoal.core.rabbitmq import RabbitMqAddress, rabbitmq_queues
from shoal.core.wiring import Wiring, environment_for
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.jetstream_admin import JetStreamAdmin
from shoal.sources.rabbitmq import RabbitMqQueues
from shoal.sources.rabbitmq_admin import RabbitMqAdmin
from shoal.spec.model import Fleet
from testbed.rabbitmq import MISSING, RabbitMq, find_rabbitmq

NAMES = ("nats", "rabbitmq")


class Broker(Protocol):
    """One that runs when it is made, for the queues of one fleet."""

    settled_s: float  # nothing is known to be left before it was empty for so long

    @property
    def fleet(self) -> Fleet: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...

    def environment(self, agent: str) -> dict[str, str]: ...

    def queues(self) -> QueueBroker: ...

    def admin(self) -> QueueAdmin: ...


class Nats:
    """nats-server as Shoal configures it."""

    settled_s = 0.0

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        self.fleet = fleet
        self._directory, self._port = directory, free_port()
        self._url = broker_url(ADMIN_USER, "secret-of-shoal", "127.0.0.1", self._port)
        (directory / "nats.conf").write_text(
            render_config(
                fleet,
                passwords=dict.fromkeys(fleet.agents, "secret"),
                admin_password="secret-of-shoal",
                store_dir=str(directory / "store"),
                port=self._port,
            )
        )
        self.start()

    def start(self) -> None:
        argv = [str(Path(sys.executable).with_name("nats-server")), "-c", "nats.conf"]
        with (self._directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    close = kill

    def environment(self, agent: str) -> dict[str, str]:
        url = broker_url(agent, "secret", "127.0.0.1", self._port)
        wiring = Wiring(bind="127.0.0.1", public_port=1, broker_url={agent: url})
        return environment_for(self.fleet.fleet, agent, self.fleet.agents[agent], wiring)

    def queues(self) -> QueueBroker:
        return JetStreamQueues(self._url, self.fleet.fleet)

    def admin(self) -> QueueAdmin:
        return JetStreamAdmin(self._url, self.fleet.fleet)


class OnRabbitMq:
    """A RabbitMQ of the testbed."""

    settled_s = 3.0

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        installed = find_rabbitmq()
        if installed is None:
            raise SystemExit(MISSING)
        self._node = RabbitMq(directory / "rabbitmq", installed)
        self._node.start()
        url = f"amqp://127.0.0.1:{self._node.port}"
        self.fleet = Fleet.model_validate(
            {**fleet.to_document(), "brokers": {"main": {"type": "rabbitmq", "url": url, "secret": "RABBITMQ"}}}
        )
        self._address = RabbitMqAddress(url, f"http://127.0.0.1:{self._node.management_port}", "admin:admin")
        self._secrets = directory / "secrets"
        self._secrets.mkdir()
        (self._secrets / "RABBITMQ").write_text(self._address.credentials)

    def start(self) -> None:
        time.sleep(0.5)  # its port is still in use otherwise
        self._node.start(wait=False)

    def kill(self) -> None:
        self._node.kill()

    def close(self) -> None:
        self._node.close()

    def environment(self, agent: str) -> dict[str, str]:
        told = environment_for(
            self.fleet.fleet, agent, self.fleet.agents[agent], Wiring("127.0.0.1", 1), rabbitmq_queues(self.fleet)
        )
        return {**told, "SHOAL_SECRETS": str(self._secrets)}

    def queues(self) -> QueueBroker:
        return RabbitMqQueues(self._address, self.fleet.fleet)

    def admin(self) -> QueueAdmin:
        return RabbitMqAdmin(self._address, self.fleet.fleet)


def start_broker(name: str, directory: Path, fleet: Fleet) -> Broker:
    """`name` is one of `NAMES`."""
    return Nats(directory, fleet) if name == "nats" else OnRabbitMq(directory, fleet)
