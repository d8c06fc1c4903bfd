"""Who may reach which queue, as a value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shoal.core.broker import ADMIN_USER, broker_url, broker_users, render_config, render_permissions
from shoal.core.wiring import Wiring, environment_for
from shoal.spec.model import Agent, Fleet, Queue

FLEET = Fleet(
    fleet="warehouse",
    agents={
        "ingest": Agent(port=8000, publishes=("image-tasks",)),
        "images": Agent(queue="image-tasks", publishes=("results",), stop_grace_period=120),
        "inventory": Agent(port=8001),
    },
    queues={"image-tasks": Queue(), "results": Queue()},
)


def render(**options: Any) -> dict[str, Any]:
    passwords = {"ingest": 'pass"word', "images": "p2"}
    arguments: dict[str, Any] = {
        "passwords": passwords,
        "admin_password": "a",
        "store_dir": "/s",
        "port": 4222,
    } | options
    return json.loads(render_config(FLEET, **arguments))


def test_only_agents_with_queues_get_a_user() -> None:
    """One user an agent that has a queue, and one for Shoal that no agent can be named like."""
    assert broker_users(FLEET) == ("images", "ingest")
    users = render()["authorization"]["users"]
    assert [user["user"] for user in users] == [ADMIN_USER, "images", "ingest"]
    assert users[2]["password"] == 'pass"word'
    assert "permissions" not in users[0]


def test_permissions_are_those_of_the_declared_queues() -> None:
    """A consumer does not publish to its queue, a producer does not read from it, and inboxes are private."""
    assert render_permissions("warehouse", "ingest", FLEET.agents["ingest"]) == {
        "publish": {"allow": ["shoal.warehouse.image-tasks"]},
        "subscribe": {"allow": ["_INBOX.ingest.>"]},
    }
    assert render_permissions("warehouse", "images", FLEET.agents["images"]) == {
        "publish": {
            "allow": [
                "$JS.ACK.WAREHOUSE_IMAGE_TASKS.workers.>",
                "$JS.API.CONSUMER.INFO.WAREHOUSE_IMAGE_TASKS.workers",
                "$JS.API.CONSUMER.MSG.NEXT.WAREHOUSE_IMAGE_TASKS.workers",
                "$JS.API.STREAM.MSG.GET.WAREHOUSE_IMAGE_TASKS",
                "shoal.warehouse.image-tasks.dead",
                "shoal.warehouse.results",
            ]
        },
        "subscribe": {"allow": ["_INBOX.images.>"]},
    }


def test_tasks_are_synced_and_monitoring_stays_on_loopback() -> None:
    """A confirmed task survives a power cut; the port that asks nobody for a password is not reachable from outside."""
    config = render(bind="0.0.0.0", monitor_port=8222)
    assert config["jetstream"] == {"store_dir": "/s", "sync_interval": "always"}
    assert (config["listen"], config["http"]) == ("0.0.0.0:4222", "127.0.0.1:8222")
    assert "http" not in render()
    assert render(bind="::1")["listen"] == "[::1]:4222"


def test_the_text_is_stable_and_a_missing_password_is_an_error() -> None:
    """Equal arguments give equal bytes, so that a platform can tell whether to reload."""
    assert render() == render()
    with pytest.raises(KeyError):
        render(passwords={"ingest": "x"})


def test_urls_and_variables() -> None:
    """Credentials are quoted; an agent is told all that `docs/workers.md` promises."""
    url = broker_url("images", "p@:/", "::1", 4222)
    assert url == "nats://images:p%40%3A%2F@[::1]:4222"
    wiring = Wiring(bind="127.0.0.1", public_port=80, broker_url={"images": url})
    environment = environment_for("warehouse", "images", FLEET.agents["images"], wiring)
    assert environment == {
        "SHOAL_FLEET": "warehouse",
        "SHOAL_AGENT": "images",
        "SHOAL_QUEUE": "image-tasks",
        "SHOAL_STOP_GRACE_PERIOD_S": "120",
        "SHOAL_QUEUE_IMAGE_TASKS_URL": url,
        "SHOAL_QUEUE_IMAGE_TASKS_STREAM": "WAREHOUSE_IMAGE_TASKS",
        "SHOAL_QUEUE_IMAGE_TASKS_CONSUMER": "workers",
        "SHOAL_QUEUE_IMAGE_TASKS_SUBJECT": "shoal.warehouse.image-tasks",
        "SHOAL_QUEUE_RESULTS_URL": url,
        "SHOAL_QUEUE_RESULTS_STREAM": "WAREHOUSE_RESULTS",
        "SHOAL_QUEUE_RESULTS_CONSUMER": "workers",
        "SHOAL_QUEUE_RESULTS_SUBJECT": "shoal.warehouse.results",
    }
