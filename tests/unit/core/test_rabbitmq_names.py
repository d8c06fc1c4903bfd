"""Queues on a RabbitMQ that Shoal does not run, as values."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.core.broker import broker_users, render_config
from shoal.core.plan import make_plan
from shoal.core.rabbitmq import RabbitMqAddress, management_url, rabbitmq_queues, render_arguments, vhost_of
from shoal.core.revision import revision_of, template_of
from shoal.core.wiring import Wiring, environment_for
from shoal.spec.model import Broker, Fleet, Queue
from tests.unit.core.test_plan import LOCAL

FLEET = Fleet.model_validate(
    {
        "fleet": "ware-house",
        "agents": {
            "w": {"command": "x", "queue": "image-tasks", "publishes": ["here"]},
            "only-there": {"command": "x", "port": 1, "publishes": ["image-tasks"]},
        },
        "queues": {"image-tasks": {"broker": "far", "max_attempts": 7}, "here": {}},
        "brokers": {"main": {}, "far": {"type": "rabbitmq", "url": "amqp://mq/v", "secret": "RABBIT"}},
    }
)
WIRING = Wiring(bind="127.0.0.1", public_port=1, broker_url={"w": "nats://w:pw@h:1"})


def test_an_agent_is_told_of_each_queue_where_it_is() -> None:
    """Without a password for RabbitMQ: the name of the secret that holds it."""
    told = environment_for("ware-house", "w", FLEET.agents["w"], WIRING, rabbitmq_queues(FLEET))
    assert {key: value for key, value in told.items() if key.startswith("SHOAL_QUEUE")} == {
        "SHOAL_QUEUE": "image-tasks",
        "SHOAL_QUEUE_IMAGE_TASKS_URL": "amqp://mq/v",
        "SHOAL_QUEUE_IMAGE_TASKS_SECRET": "RABBIT",
        "SHOAL_QUEUE_IMAGE_TASKS_EXCHANGE": "shoal.ware-house",
        "SHOAL_QUEUE_IMAGE_TASKS_NAME": "shoal.ware-house.image-tasks",
        "SHOAL_QUEUE_IMAGE_TASKS_MAX_ATTEMPTS": "7",
        "SHOAL_QUEUE_IMAGE_TASKS_ACK_WAIT_S": "30",
        "SHOAL_QUEUE_HERE_URL": "nats://w:pw@h:1",
        "SHOAL_QUEUE_HERE_STREAM": "WARE_HOUSE_HERE",
        "SHOAL_QUEUE_HERE_CONSUMER": "workers",
        "SHOAL_QUEUE_HERE_SUBJECT": "shoal.ware-house.here",
    }


def test_the_embedded_broker_knows_its_own_queues_alone() -> None:
    """Who has none on it is no user of it, and a fleet without any needs no such broker."""
    assert broker_users(FLEET) == ("w",)
    config = render_config(FLEET, passwords={"w": "pw"}, admin_password="a", store_dir="/s", port=1)
    assert "image-tasks" not in config and "shoal.ware-house.here" in config
    assert broker_users(FLEET.model_copy(update={"agents": {"only-there": FLEET.agents["only-there"]}})) == ()


def test_what_leaves_a_queue_goes_to_its_dead_letters_and_is_kept_until_then() -> None:
    """Without a dead-letter exchange RabbitMQ drops it; by its default strategy it may lose it; without a limit of
    its own version 4 takes 20."""
    arguments = render_arguments("f", "q")
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-dead-letter-exchange"] == "shoal.f"
    assert arguments["x-dead-letter-routing-key"] == "shoal.f.q.dead"
    assert (arguments["x-dead-letter-strategy"], arguments["x-overflow"]) == ("at-least-once", "reject-publish")
    assert arguments["x-delivery-limit"] >= 10**6  # the most that `max_attempts` may be


@pytest.mark.parametrize(
    ("url", "given", "expected"),
    [
        ("amqp://mq.example:5673/v", None, "http://mq.example:15672"),
        ("amqps://mq.example", None, "https://mq.example:15671"),
        ("amqp://[::1]", None, "http://[::1]:15672"),
        ("amqp://mq", "https://ui.example/", "https://ui.example"),
    ],
)
def test_the_management_api_is_beside_the_broker(url: str, given: str | None, expected: str) -> None:
    """Unless the file says otherwise."""
    assert management_url(Broker(type="rabbitmq", url=url, management_url=given)) == expected


def test_the_virtual_host_is_the_path() -> None:
    """The default one where there is none."""
    paths = {"": "/", "/": "/", "/%2F": "/", "/prod": "prod", "/a%2Fb": "a/b"}
    assert {path: vhost_of(f"amqp://h{path}") for path in paths} == paths


def test_credentials_are_in_no_text() -> None:
    """A log may show an address."""
    assert "s3cret" not in repr(RabbitMqAddress("amqp://h", "http://h", "u:s3cret"))


def test_the_plan_says_what_rabbitmq_can_not_do() -> None:
    """Once for each that has a queue."""
    notes = make_plan(None, FLEET, LOCAL).notes
    assert [note.partition(":")[0] for note in notes if note.startswith("brokers")] == ["brokers.far"]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"queues": {"image-tasks": {"broker": "far", "max_attempts": 8}}}, ("queues.image-tasks.max_attempts", 7, 8)),
        (
            {"brokers": {"far": {"type": "rabbitmq", "url": "amqp://other", "secret": "RABBIT"}}},
            ("queues.image-tasks.broker", "amqp://mq/v", "amqp://other"),
        ),
    ],
)
def test_what_replicas_are_told_at_their_start_needs_new_ones(changes: dict[str, Any], shown: tuple[Any, ...]) -> None:
    """Where the queue is and how often a task is tried: who has it rolls, by the plan as by the revision."""
    document = FLEET.to_document()
    after = Fleet.model_validate({**document, **{key: {**document[key], **value} for key, value in changes.items()}})
    rolling = [change for change in make_plan(FLEET, after, LOCAL).changes if change.class_ == "rolling"]
    assert [(change.agent, change.fields) for change in rolling] == [("only-there", (shown,)), ("w", (shown,))]
    for name in FLEET.agents:
        assert revision_of(template_of(FLEET, name, {})) != revision_of(template_of(after, name, {}))


def test_a_queue_that_moves_to_rabbitmq_takes_its_agents_with_it() -> None:
    """Others stay as they are, and so does the revision of all that have no queue outside."""
    embedded = FLEET.model_copy(update={"queues": {**FLEET.queues, "image-tasks": Queue()}})
    (change,) = [change for change in make_plan(embedded, FLEET, LOCAL).changes if change.agent == "only-there"]
    assert ("queues.image-tasks.broker", "embedded", "amqp://mq/v") in change.fields and change.class_ == "rolling"
    assert template_of(embedded, "w", {}).outside == ()
