"""Streams, depth, dead letters and permissions against a real nats-server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from queues_broker import Broker, a_fleet, environment, running_broker, until

from shoal.core.broker import broker_url
from shoal.errors import BrokerError, NotFound
from shoal.sdk import QueueError, publish
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.jetstream_admin import JetStreamAdmin
from shoal.sources.jetstream_api import JetStreamApi
from shoal.spec.model import Agent, Queue


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running_broker(tmp_path, a_fleet()) as broker:
        yield broker


async def connect(broker: Broker, user: str, complaints: list[str] | None = None) -> Client:
    """A bare nats-py client, as one of the agents."""
    client = Client()

    async def complain(error: Exception) -> None:
        if complaints is not None:
            complaints.append(str(error))

    await client.connect(
        broker_url(user, broker.passwords[user], "127.0.0.1", broker.port),
        inbox_prefix=f"_INBOX.{user}",
        error_cb=complain,
        allow_reconnect=False,
    )
    return client


async def fetch(client: Client, stream: str, count: int) -> list[str]:
    """Takes up to `count` tasks and answers for none; the subjects to answer on."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    wish = {"batch": count, "expires": 10**9}
    await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.workers", json.dumps(wish).encode(), reply=inbox)
    replies: list[str] = []
    while len(replies) < count:
        message = await subscription.next_msg(timeout=5)
        if not message.reply:
            break
        replies.append(message.reply)
    await subscription.unsubscribe()
    return replies


async def test_ensuring_twice_changes_nothing_and_new_settings_arrive(broker: Broker) -> None:
    """Idempotent, and `ack_wait` and `max_attempts` change under running workers without a restart."""
    with environment(broker.environment("front")):
        await publish("images", b"one")
    await broker.ensure()
    await broker.queues.ensure({"images": Queue(ack_wait=7, max_attempts=9)})
    api = JetStreamApi(broker.admin_url)
    try:
        info = await api.call("CONSUMER.INFO.WARE_HOUSE_IMAGES.workers")
    finally:
        await api.close()
    assert info["config"]["ack_wait"] == 7_000_000_000
    assert info["config"]["metadata"]["shoal.max_attempts"] == "9"
    assert await broker.depth("images") == 1


async def test_depth_counts_pending_and_unacknowledged(broker: Broker) -> None:
    """The depth is what waits plus what is worked on or waits for another attempt, and shrinks by acknowledging."""
    with environment(broker.environment("front")):
        for number in range(5):
            await publish("images", {"number": number})
    assert await broker.depth("images") == 5
    client = await connect(broker, "worker")
    try:
        replies = await fetch(client, "WARE_HOUSE_IMAGES", 2)
        assert await broker.depth("images") == 5
        counts = {queue.name: queue for queue in await broker.admin.list()}
        assert (counts["images"].waiting, counts["images"].in_progress) == (3, 2)
        await client.request(replies[0], b"+ACK", timeout=5)
        assert await broker.depth("images") == 4
        await client.publish(replies[1], b'-NAK {"delay": 60000000000}')
        await client.flush()
        assert await broker.depth("images") == 4
    finally:
        await client.close()
    assert await broker.depth("letters") == 0


async def test_a_second_task_of_the_same_id_is_dropped(broker: Broker) -> None:
    """The id is an idempotency key for publishing."""
    with environment(broker.environment("front")):
        assert await publish("images", "a", id="order-1") == "order-1"
        assert await publish("images", "a", id="order-1") == "order-1"
        with pytest.raises(QueueError, match="too large"):
            await publish("images", b"x" * (1024 * 1024 + 1))
        await publish("images", b"x" * 1024 * 1024)
        with pytest.raises(QueueError, match="not declared"):
            await publish("letters", "a")
    assert await broker.depth("images") == 2


async def test_peeking_takes_nothing(broker: Broker) -> None:
    """Tasks are shown as they lie there, text as text and the rest as base64."""
    with environment(broker.environment("front")):
        await publish("images", {"a": 1}, id="first")
        await publish("images", b"\xff\x00", id="second")
    first, second = await broker.admin.peek("images")
    assert (first.id, first.payload, first.encoding, first.attempts) == ("first", '{"a": 1}', "utf-8", 0)
    assert (second.id, second.payload, second.encoding) == ("second", "/wA=", "base64")
    assert first.at is not None
    assert [task.id for task in await broker.admin.peek("images", limit=1)] == ["first"]
    assert await broker.depth("images") == 2
    with pytest.raises(NotFound):
        await broker.admin.peek("nothing")


async def write_dead_letters(broker: Broker, ids: list[str]) -> None:
    client = await connect(broker, "worker")
    for id in ids:
        headers = {"Nats-Msg-Id": f"dead:{id}", "Shoal-Task-Id": id, "Shoal-Reason": "broken", "Shoal-Attempts": "3"}
        reply = await client.request("shoal.ware-house.images.dead", b"payload", timeout=5, headers=headers)
        assert "seq" in json.loads(reply.data)
    await client.close()


async def test_redrive_puts_dead_letters_back(broker: Broker) -> None:
    """A redriven task keeps its id although the duplicate window knows it, and leaves the dead letters."""
    with environment(broker.environment("front")):
        await publish("images", b"payload", id="a")
    assert await broker.admin.purge("images") == 1
    await write_dead_letters(broker, ["a", "b", "c"])
    assert [task.id for task in await broker.admin.peek("images", dead=True)] == ["a", "b", "c"]
    assert (await broker.admin.peek("images", dead=True))[0].reason == "broken"
    with pytest.raises(NotFound, match=r"no dead letter nope, z"):
        await broker.admin.redrive("images", ["z", "nope"])
    assert await broker.admin.redrive("images", ["a"]) == 1
    assert [task.id for task in await broker.admin.peek("images")] == ["a"]
    assert await broker.admin.redrive("images") == 2
    assert await broker.dead("images") == 0
    assert [task.id for task in await broker.admin.peek("images")] == ["a", "b", "c"]


async def test_what_a_worker_said_of_a_failure_is_masked(broker: Broker) -> None:
    """Reason and traceback, not what the task carries."""
    headers = {"Shoal-Reason": "no login with s3cret", "Shoal-Traceback": "line\\nValueError: s3cret"}
    client = await connect(broker, "worker")
    await client.request("shoal.ware-house.images.dead", b"s3cret", timeout=5, headers=headers)
    await client.close()
    admin = JetStreamAdmin(broker.admin_url, broker.fleet.fleet, lambda text: text.replace("s3cret", "***"))
    (letter,) = await admin.peek("images", dead=True)
    await admin.close()
    assert (letter.reason, letter.traceback) == ("no login with ***", "line\nValueError: ***")
    assert letter.payload == "s3cret"


async def test_a_crash_in_a_redrive_loses_nothing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published but not deleted: it is in both, and the next redrive does not double it."""
    await write_dead_letters(broker, ["a"])

    async def crash(queue: str, sequence: int) -> None:
        raise BrokerError("crashed")

    with monkeypatch.context() as patch:
        patch.setattr(broker.admin, "_delete", crash)
        with pytest.raises(BrokerError, match="crashed"):
            await broker.admin.redrive("images")
    assert (await broker.depth("images"), await broker.dead("images")) == (1, 1)
    await broker.admin.redrive("images")
    assert (await broker.depth("images"), await broker.dead("images")) == (1, 0)


async def test_an_agent_reaches_its_own_queues_only(broker: Broker) -> None:
    """Neither reading, publishing, acknowledging, listening nor administering reaches the queue of another."""
    with environment(broker.environment("front")):
        await publish("images", b"secret")
    complaints: list[str] = []
    other = await connect(broker, "other", complaints)
    refused = [
        "$JS.API.CONSUMER.MSG.NEXT.WARE_HOUSE_IMAGES.workers",
        "$JS.API.CONSUMER.INFO.WARE_HOUSE_IMAGES.workers",
        "$JS.API.CONSUMER.CREATE.WARE_HOUSE_IMAGES.mine",
        "$JS.API.STREAM.MSG.GET.WARE_HOUSE_IMAGES",
        "$JS.API.DIRECT.GET.WARE_HOUSE_IMAGES",
        "$JS.API.STREAM.PURGE.WARE_HOUSE_LETTERS",
        "$JS.API.STREAM.LIST",
        "$JS.ACK.WARE_HOUSE_IMAGES.workers.1.1.1.1.0",
        "shoal.ware-house.images",
        "shoal.ware-house.images.dead",
        "shoal.ware-house.letters",  # it consumes them, and may not publish
    ]
    try:
        for subject in refused:
            await other.publish(subject, b"{}", reply=f"{other.new_inbox()}")
        for subject in ("shoal.>", "_INBOX.>", "_INBOX.worker.>", "$JS.>", ">"):
            await other.subscribe(subject)
        await other.flush()
        await until(lambda: len(complaints) >= len(refused) + 5, f"{len(refused) + 5} refusals, not {complaints}")
    finally:
        await other.close()
    assert await broker.depth("images") == 1
    assert await broker.depth("letters") == 0


async def test_new_agents_get_in_by_a_reload(broker: Broker) -> None:
    """SIGHUP after rewriting the configuration lets a new user in and leaves the others connected."""
    worker = await connect(broker, "worker")
    broker.fleet = broker.fleet.model_copy(
        update={"agents": {**broker.fleet.agents, "late": Agent(port=9, publishes=("letters",))}}
    )
    broker.passwords["late"] = "secret-of-late"
    broker.write_config()
    assert broker.process is not None
    broker.process.send_signal(signal.SIGHUP)

    async def late_publishes() -> bool:
        with environment(broker.environment("late")):
            return bool(await publish("letters", b"hello"))

    await until(late_publishes, "the new agent to be let in")
    assert worker.is_connected
    await worker.close()


async def test_kill_9_of_the_broker_loses_no_confirmed_task(broker: Broker) -> None:
    """What `publish` returned from is there after the server was killed in the middle, once each."""
    confirmed: list[str] = []
    stopping = asyncio.Event()

    async def produce(producer: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            confirmed.append(await publish("images", b"x" * 200, id=f"{producer}-{number}"))

    with environment(broker.environment("front")):
        async with asyncio.TaskGroup() as group:
            for producer in range(16):
                group.create_task(produce(producer))
            for _ in range(2):
                enough = len(confirmed) + 400
                await until(lambda enough=enough: len(confirmed) >= enough, "publishes")
                broker.kill()
                broker.start()
            enough = len(confirmed) + 100
            await until(lambda: len(confirmed) >= enough, "publishes after the restart")
            stopping.set()
    stored = [task.id for task in await broker.admin.peek("images", limit=1_000_000)]
    assert set(confirmed) <= set(stored)
    assert len(stored) == len(set(stored)) == await broker.depth("images")


async def test_two_queues_of_one_stream_are_refused(broker: Broker) -> None:
    """`a-b` and `a_b` would share a stream, and so would a queue and another's dead letters."""
    with pytest.raises(BrokerError, match="share the stream WARE_HOUSE_A_B"):
        await broker.queues.ensure({"a-b": Queue(), "a_b": Queue()})
    with pytest.raises(BrokerError, match="share the stream"):
        await broker.queues.ensure({"a": Queue(), "a-dead": Queue()})


async def test_a_broker_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    """Reading raises BrokerError in bounded time, and works again once the broker is back."""
    broker = Broker(tmp_path, a_fleet())
    queues = JetStreamQueues(broker.admin_url, "ware-house")
    try:
        with pytest.raises(BrokerError, match="can't connect"):
            await queues.read()
        broker.start()
        await queues.ensure(broker.fleet.queues)
        broker.kill()

        async def refused() -> bool:
            with pytest.raises(BrokerError):
                await queues.read()
            return True

        await until(refused, "an error")
        broker.start()

        async def reads() -> bool:
            try:
                return bool(await queues.read())
            except BrokerError:
                return False

        await until(reads, "reading after the restart")
    finally:
        await queues.close()
        await broker.close()


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (
            {"name": "WARE_HOUSE_IMAGES", "subjects": ["mine"]},
            "a stream WARE_HOUSE_IMAGES already, found not made by Shoal",
        ),
        (
            {
                "name": "WARE_HOUSE_IMAGES",
                "subjects": ["x"],
                "metadata": {"shoal.fleet": "ware_house", "shoal.queue": "images"},
            },
            "found queue 'images' of fleet 'ware_house'",
        ),
        ({"name": "OTHER", "subjects": ["shoal.ware-house.*"]}, "takes the subject shoal.ware-house.images already"),
    ],
)
async def test_a_stream_of_somebody_else_is_left_alone(tmp_path: Path, stream: dict[str, Any], said: str) -> None:
    """The error names the queue and what to do; the stream stays as it was."""
    broker = Broker(tmp_path, a_fleet())
    broker.start()
    api = JetStreamApi(broker.admin_url)
    try:
        await api.wait_until_ready(15)
        before = await api.call(f"STREAM.CREATE.{stream['name']}", {"retention": "limits", "storage": "file", **stream})
        with pytest.raises(BrokerError, match="rename the queue or the fleet") as refused:
            await broker.queues.ensure({"images": Queue()})
        assert "queue 'images'" in str(refused.value) and said in str(refused.value)
        after = await api.call(f"STREAM.INFO.{stream['name']}")
        assert after["config"] == before["config"]
    finally:
        await api.close()
        await broker.close()


async def test_a_queue_that_goes_and_comes_back_has_lost_nothing(broker: Broker) -> None:
    """Its stream stays with its tasks and dead letters, is counted, and serves again with the settings of then."""
    with environment(broker.environment("front")):
        await publish("images", b"one")
    await write_dead_letters(broker, ["dead"])
    await broker.queues.ensure({"letters": Queue()})
    (images,) = [counts for counts in await broker.admin.list() if counts.name == "images"]
    assert (images.waiting, images.dead) == (1, 1)
    await broker.queues.ensure({"letters": Queue(), "images": Queue(max_attempts=7)})
    assert [task.payload for task in await broker.admin.peek("images")] == ["one"]
