"""Brokers in the file: what is refused without a password being shown, and who gets the secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shoal.spec.model import Fleet

Refused = Callable[..., list[str]]
FILE = """\
fleet: f
engine: {engine}
agents:
  a: {{command: x, image: i, queue: q}}
brokers:
  main: {{{broker}}}
"""


@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("type: rabbitmq", "brokers.main: the key `url` is missing (write where it is: amqp://HOST:PORT/VHOST"),
        ("type: rabbitmq, url: amqp//h", "brokers.main.url: this is no address of a broker; expected amqp://HOST"),
        ("type: rabbitmq, url: http://h", "brokers.main.url: this is no address of a broker; expected amqp://HOST"),
        ("type: rabbitmq, url: 'amqp://h:99999'", "brokers.main.url: this is no address of a broker"),
        ("type: rabbitmq, url: 'amqp://h?heartbeat=5'", "brokers.main.url: this is no address of a broker"),
        (
            "type: rabbitmq, url: amqp://h, management_url: amqp://h",
            "brokers.main.management_url: this is no address of a broker; expected http(s)://HOST:PORT",
        ),
        ("type: rabbitmq, url: amqp://h, secret: a b", "brokers.main.secret: 'a b' can't be the name of a secret"),
        ("type: rabbit", "brokers.main.type: found 'rabbit'; expected one of embedded, rabbitmq (did you mean rabbit"),
        ("url: amqp://h", "brokers.main.url: only a broker of `type: rabbitmq` has this"),
        ("secret: S", "brokers.main.secret: only a broker of `type: rabbitmq` has this"),
    ],
)
def test_what_can_be_no_broker_is_refused(refuse: Refused, broker: str, said: str) -> None:
    """Each by its own words."""
    (problem,) = refuse(FILE.format(engine="local", broker=broker))
    assert said in problem


@pytest.mark.parametrize("url", ["amqp://me:s3cret@h", "amqp://me:${PASSWORD}@h", "amqp:/me:s3cret@h"])
def test_a_password_in_a_url_is_refused_and_not_shown(refuse: Refused, url: str) -> None:
    """Also where a variable put it in."""
    (problem,) = refuse(
        FILE.format(engine="local", broker=f"type: rabbitmq, url: '{url}'"), variables={"PASSWORD": "s3cret"}
    )
    assert "brokers.main.url: a user or password in a URL would be stored, shown and logged" in problem
    assert "`secret: NAME`" in problem and "s3cret" not in problem


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::1]", "0.0.0.0", "LOCALHOST"])
def test_a_broker_on_this_machine_is_for_the_local_engine(refuse: Refused, read: Any, host: str) -> None:
    """In a container that name is the container."""
    broker = f"type: rabbitmq, url: 'amqp://{host}:5672/v'"
    (problem,) = refuse(FILE.format(engine="swarm", broker=broker))
    assert "is another machine for each container of the swarm engine" in problem
    assert read(FILE.format(engine="local", broker=broker)).fleet.brokers["main"].url == f"amqp://{host}:5672/v"


def test_who_has_a_queue_on_the_broker_gets_its_secret(read: Any) -> None:
    """As a file beside its own; nobody else does, and what is stored names it and no more."""
    fleet: Fleet = read("""\
fleet: f
agents:
  w: {command: x, queue: there, secrets: [OWN]}
  p: {command: x, port: 1, publishes: [here, there], secrets: [{name: RABBIT, as: env}]}
  n: {command: x, port: 1, publishes: [here]}
queues: {there: {broker: far}}
brokers:
  far: {type: rabbitmq, url: "amqps://mq.example/prod", secret: RABBIT}
secrets: {RABBIT: {environment: X}, OWN: {environment: Y}}
""").fleet
    assert {name: [(use.name, use.as_) for use in agent.secrets] for name, agent in fleet.agents.items()} == {
        "w": [("OWN", "file"), ("RABBIT", "file")],
        "p": [("RABBIT", "env")],
        "n": [],
    }
    assert Fleet.from_document(fleet.to_document()) == fleet
