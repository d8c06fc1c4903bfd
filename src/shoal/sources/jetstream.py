"""The queues of a fleet on JetStream: their streams and consumers, and how much there is to do.

A queue is a stream with work-queue retention and one durable pull consumer: an acknowledged task leaves the stream, so
the number of messages in it *is* waiting plus unacknowledged tasks. One request for the list of streams therefore
reads the depth of 256 queues, with Shoal's own connection; the monitoring port (which asks nobody for a password) is
not needed, and needs not be reached from another machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from shoal.core.signals import Reading
from shoal.core.wiring import CONSUMER, dead_stream_name, dead_subject_name, stream_name, subject_name
from shoal.errors import BrokerError
from shoal.sources.jetstream_api import JetStreamApi, Refused
from shoal.spec.model import Queue

READY_TIMEOUT_S = 15.0
DUPLICATE_WINDOW_NS = 120 * 10**9
# Tasks that wait for another attempt count as unacknowledged, so a small cap would let a burst of failing tasks stop
# the queue for the others. What workers hold is bounded by their concurrency anyway; this bounds the broker's memory.
MAX_ACK_PENDING = 100_000
# One pull request a worker, and JetStream's 512 can't be raised later.
MAX_WAITING = 8_192
AT_ONCE = 16
_NAME_IN_USE = 10058
_SUBJECTS_OVERLAP = 10065


class JetStreamQueues:
    """The queues of one fleet, and their depth."""

    def __init__(self, admin_url: str, fleet: str) -> None:
        self._api = JetStreamApi(admin_url)
        self._fleet = fleet

    async def ensure(self, queues: Mapping[str, Queue]) -> None:
        """Creates or updates everything that `queues` (by name) need; idempotent, waits for a broker that starts.

        A queue that is no longer there keeps its stream and its tasks. Raises BrokerError when two names lead to one
        stream, when a stream of that name or subject is somebody else's, or when the broker refuses.
        """
        _check_names(self._fleet, queues)
        await self._api.wait_until_ready(READY_TIMEOUT_S)
        places = asyncio.Semaphore(AT_ONCE)
        refusals: list[BrokerError] = []
        try:
            async with asyncio.TaskGroup() as group:
                for name, queue in queues.items():
                    group.create_task(self._ensure_queue(places, name, queue))
        except* BrokerError as failures:
            refusals += (error for error in failures.exceptions if isinstance(error, BrokerError))
        if refusals:  # raised in there, it would come out in a group before Python 3.11.4
            raise BrokerError(str(refusals[0])) from refusals[0]

    async def read(self) -> Mapping[str, Reading]:
        """Waiting and unacknowledged tasks by queue, of every queue that this fleet has on the broker."""
        prefix = subject_name(self._fleet, "")
        streams = await list_streams(self._api, f"{prefix}*")
        at = time.time()
        return {
            stream["config"]["subjects"][0].removeprefix(prefix): Reading(float(stream["state"]["messages"]), at)
            for stream in streams
        }

    async def remove(self) -> None:
        """Deletes every queue that the fleet has on the broker, with all that is in it, dead letters included."""
        prefix = subject_name(self._fleet, "")
        for subject in (f"{prefix}*", f"{prefix}*.dead"):
            for stream in await list_streams(self._api, subject):
                await self._api.call(f"STREAM.DELETE.{stream['config']['name']}")

    async def close(self) -> None:
        """Closes the connection."""
        await self._api.close()

    async def _ensure_queue(self, places: asyncio.Semaphore, name: str, queue: Queue) -> None:
        async with places:
            await self._ensure_stream(render_stream(self._fleet, name))
            await self._ensure_stream(render_dead_stream(self._fleet, name))
            stream = stream_name(self._fleet, name)
            body = {"stream_name": stream, "config": render_consumer(self._fleet, name, queue), "action": ""}
            await self._api.call(f"CONSUMER.CREATE.{stream}.{CONSUMER}", body)

    async def _ensure_stream(self, config: Mapping[str, Any]) -> None:
        try:
            await self._api.call(f"STREAM.CREATE.{config['name']}", config)  # an equal one is no error
        except Refused as refused:
            if refused.code == _SUBJECTS_OVERLAP:
                raise BrokerError(
                    f"queue {config['metadata']['shoal.queue']!r}: another stream of the broker takes the subject "
                    f"{config['subjects'][0]} already; remove that stream, or rename the queue or the fleet"
                ) from None
            if refused.code != _NAME_IN_USE:
                raise
            await self._refuse_foreign(config)
            await self._api.call(f"STREAM.UPDATE.{config['name']}", config)

    async def _refuse_foreign(self, config: Mapping[str, Any]) -> None:
        """A stream that somebody else made is neither changed nor used."""
        answer = await self._api.call(f"STREAM.INFO.{config['name']}")
        found: Mapping[str, str] = answer["config"].get("metadata") or {}
        ours: Mapping[str, str] = config["metadata"]
        if any(found.get(key) != value for key, value in ours.items()):
            fleet, queue = found.get("shoal.fleet"), found.get("shoal.queue")
            owner = f"queue {queue!r} of fleet {fleet!r}" if fleet and queue else "not made by Shoal"
            raise BrokerError(
                f"queue {ours['shoal.queue']!r}: the broker has a stream {config['name']} already, found {owner}; "
                f"expected one of queue {ours['shoal.queue']!r} of fleet {ours['shoal.fleet']!r} "
                "(remove that stream, or rename the queue or the fleet)"
            )


async def list_streams(api: JetStreamApi, subject: str) -> list[Mapping[str, Any]]:
    """Configuration and state of the streams with a subject that matches, 256 a request."""
    streams: list[Mapping[str, Any]] = []
    while True:
        answer = await api.call("STREAM.LIST", {"offset": len(streams), "subject": subject})
        page: list[Mapping[str, Any]] = answer.get("streams") or []
        streams += page
        if not page or len(streams) >= answer["total"]:
            return streams


def render_stream(fleet: str, queue: str) -> dict[str, Any]:
    """The stream of a queue, as JetStream's API takes it. A full disk refuses new tasks, and drops none."""
    return _stream(stream_name(fleet, queue), subject_name(fleet, queue), "workqueue", fleet, queue)


def render_dead_stream(fleet: str, queue: str) -> dict[str, Any]:
    """The stream of a queue's dead letters, which stay until somebody purges or redrives them."""
    return _stream(dead_stream_name(fleet, queue), dead_subject_name(fleet, queue), "limits", fleet, queue)


def render_consumer(fleet: str, queue: str, settings: Queue) -> dict[str, Any]:
    """The durable consumer that all workers share.

    Workers read `ack_wait` and the number of attempts from it, so that both change under running workers. JetStream's
    own `max_deliver` is unlimited: past it a task would silently stay in the stream for ever, while a worker moves it
    to the dead letters.
    """
    return {
        "name": CONSUMER,
        "durable_name": CONSUMER,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "explicit",
        "ack_wait": round(settings.ack_wait_s * 1e9),
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "max_waiting": MAX_WAITING,
        "metadata": {
            "shoal.max_attempts": str(settings.max_attempts),
            "shoal.dead_subject": dead_subject_name(fleet, queue),
        },
    }


def _stream(name: str, subject: str, retention: str, fleet: str, queue: str) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
        "retention": retention,
        "storage": "file",
        "discard": "new",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "num_replicas": 1,
        "duplicate_window": DUPLICATE_WINDOW_NS,
        "metadata": {"shoal.fleet": fleet, "shoal.queue": queue},
    }


def _check_names(fleet: str, queues: Mapping[str, Queue]) -> None:
    owners: dict[str, str] = {}
    for queue in queues:
        for stream in (stream_name(fleet, queue), dead_stream_name(fleet, queue)):
            other = owners.setdefault(stream, queue)
            if other != queue:
                raise BrokerError(f"queues {other!r} and {queue!r} would share the stream {stream}; rename one of them")
