"""What is NATS' own: streams, consumers and permissions, against a real nats-server."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from queues_broker import Nats, a_fleet, dead, depth, environment, running, send, until, working

from shoal.core.broker import broker_url
from shoal.errors import BrokerError
from shoal.sdk import Task, publish, worker
from shoal.sdk.jetstream.link import Link
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.jetstream_api import JetStreamApi
from shoal.spec.model import Agent, Queue


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Nats]:
    async with running(Nats(tmp_path, a_fleet())) as broker:
        yield broker


async def connect(broker: Nats, user: str, complaints: list[str] | None = None) -> Client:
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


async def test_ensuring_twice_changes_nothing_and_new_settings_arrive(broker: Nats) -> None:
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
    assert await depth(broker) == 1


async def test_depth_counts_pending_and_unacknowledged(broker: Nats) -> None:
    """The depth is what waits plus what is worked on or waits for another attempt, and shrinks by acknowledging."""
    with environment(broker.environment("front")):
        for number in range(5):
            await publish("images", {"number": number})
    assert await depth(broker) == 5
    client = await connect(broker, "worker")
    try:
        replies = await fetch(client, "WARE_HOUSE_IMAGES", 2)
        assert await depth(broker) == 5
        counts = {queue.name: queue for queue in await broker.admin.list()}
        assert (counts["images"].waiting, counts["images"].in_progress) == (3, 2)
        await client.request(replies[0], b"+ACK", timeout=5)
        assert await depth(broker) == 4
        await client.publish(replies[1], b'-NAK {"delay": 60000000000}')
        await client.flush()
        assert await depth(broker) == 4
    finally:
        await client.close()
    assert await depth(broker, "letters") == 0


async def test_a_crash_in_a_redrive_loses_nothing(broker: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published but not deleted: it is in both, and the next redrive does not double it."""
    await broker.write_dead("images", {"Nats-Msg-Id": "dead:a", "Shoal-Task-Id": "a"}, b"payload")

    async def crash(queue: str, sequence: int) -> None:
        raise BrokerError("crashed")

    with monkeypatch.context() as patch:
        patch.setattr(broker.admin, "_delete", crash)
        with pytest.raises(BrokerError, match="crashed"):
            await broker.admin.redrive("images")
    assert (await depth(broker), await dead(broker)) == (1, 1)
    await broker.admin.redrive("images")
    assert (await depth(broker), await dead(broker)) == (1, 0)


async def test_an_agent_reaches_its_own_queues_only(broker: Nats) -> None:
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
    assert await depth(broker) == 1
    assert await depth(broker, "letters") == 0


async def test_new_agents_get_in_by_a_reload(broker: Nats) -> None:
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


async def test_two_queues_of_one_stream_are_refused(broker: Nats) -> None:
    """`a-b` and `a_b` would share a stream, and so would a queue and another's dead letters."""
    with pytest.raises(BrokerError, match="share the stream WARE_HOUSE_A_B"):
        await broker.queues.ensure({"a-b": Queue(), "a_b": Queue()})
    with pytest.raises(BrokerError, match="share the stream"):
        await broker.queues.ensure({"a": Queue(), "a-dead": Queue()})


async def test_a_broker_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    """Reading raises BrokerError in bounded time, and works again once the broker is back."""
    broker = Nats(tmp_path, a_fleet())
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
    broker = Nats(tmp_path, a_fleet())
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


async def test_acknowledgements_that_a_broker_forgot_hold_up_nothing(
    broker: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every place is taken by tasks whose acknowledgement got lost with the broker, which has forgotten that it
    delivered them: it is asked for tasks all the same, delivers them again, and hears that they are done."""
    runs: dict[str, int] = {}
    request = Link.request

    async def lost_at_first(link: Link, subject: str, payload: bytes, **options: Any) -> Msg:
        if payload == b"+ACK" and link.epoch == 1:
            raise TimeoutError
        return await request(link, subject, payload, **options)

    monkeypatch.setattr(Link, "request", lost_at_first)

    @worker(concurrency=2)
    async def handle(task: Task) -> None:
        runs[task.id] = runs.get(task.id, 0) + 1

    await send(broker, *range(10))
    async with working(broker, handle):
        await until(lambda: len(runs) == 4, "twice as many tasks as there are places")
        broker.kill()
        states = list(broker.directory.rglob("o.dat"))
        assert states
        for state in states:  # as when the last of it had not been written yet
            state.unlink()
        broker.start()
        await until(lambda: _reads_empty(broker), "all tasks and their acknowledgements")
    assert len(runs) == 10 and set(runs.values()) == {1}


async def _reads_empty(broker: Nats) -> bool:
    with contextlib.suppress(BrokerError):
        return await depth(broker) == 0
    return False
