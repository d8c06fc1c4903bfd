"""What people do with queues: look at them without taking anything, empty them, give dead letters another chance."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shoal.core.queued import QueueCounts, QueuedTask
from shoal.core.wiring import CONSUMER, dead_stream_name, dead_subject_name, stream_name, subject_name
from shoal.errors import NotFound, no_such_queue
from shoal.sources.jetstream import list_streams
from shoal.sources.jetstream_api import NOT_FOUND, JetStreamApi, Refused

TASK_ID = "Shoal-Task-Id"
MESSAGE_ID = "Nats-Msg-Id"


@dataclass(frozen=True, slots=True)
class _Stored:
    sequence: int
    data: bytes
    time: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class JetStreamAdmin:
    """Every method raises BrokerError when the broker is away, and NotFound for a queue that it does not have. `mask`
    takes secrets out of what a worker wrote about a failure."""

    def __init__(self, admin_url: str, fleet: str, mask: Callable[[str], str] = str) -> None:
        self._api = JetStreamApi(admin_url)
        self._fleet = fleet
        self._mask = mask

    async def close(self) -> None:
        """Closes the connection."""
        await self._api.close()

    async def list(self) -> tuple[QueueCounts, ...]:
        """Every queue of the fleet on the broker, by name."""
        prefix = subject_name(self._fleet, "")
        live = await list_streams(self._api, f"{prefix}*")
        dead = await list_streams(self._api, f"{prefix}*.dead")
        dead_by_stream = {str(stream["config"]["name"]): int(stream["state"]["messages"]) for stream in dead}
        counts: list[QueueCounts] = []
        for stream in live:
            name = str(stream["config"]["subjects"][0]).removeprefix(prefix)
            pending = await self._unacknowledged(stream["config"]["name"])
            waiting = max(0, stream["state"]["messages"] - pending)
            counts.append(
                QueueCounts(name, waiting, pending, dead_by_stream.get(dead_stream_name(self._fleet, name), 0))
            )
        return tuple(sorted(counts, key=lambda queue: queue.name))

    async def peek(self, queue: str, *, dead: bool = False, limit: int = 100) -> tuple[QueuedTask, ...]:
        """The oldest `limit` tasks or dead letters, which stay where they are."""
        delivered = 0 if dead else await self._last_delivered(queue)
        tasks: list[QueuedTask] = []
        if limit <= 0:
            return ()
        async for stored in self._messages(queue, dead=dead):
            task = _task(
                queue, self._stream(queue, dead=dead), stored, dead=dead, delivered=stored.sequence <= delivered
            )
            tasks.append(replace(task, reason=self._mask(task.reason), traceback=self._mask(task.traceback)))
            if len(tasks) >= limit:
                break
        return tuple(tasks)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Removes all tasks, or all dead letters, for good; how many. Tasks being worked on are finished."""
        answer = await self._call(queue, f"STREAM.PURGE.{self._stream(queue, dead=dead)}")
        return int(answer["purged"])

    async def redrive(self, queue: str, ids: Collection[str] | None = None) -> int:
        """Puts dead letters back into the queue with their attempts at zero; how many. `ids` None: all of them.

        The task keeps its id. It is published under a key of its own, since the broker would drop the id as a
        duplicate, and deleted among the dead letters once that is confirmed: a crash between has it there and in the
        queue, and the next redrive is then dropped as a duplicate for two minutes.
        """
        redriven = 0
        unknown = set(ids or ())
        async for stored in self._messages(queue, dead=True):
            task_id = _task_id(stored, dead_stream_name(self._fleet, queue))
            if ids is not None and task_id not in ids:
                continue
            headers = {
                name: value for name, value in stored.headers.items() if not name.startswith(("Shoal-", "Nats-"))
            }
            headers |= {
                TASK_ID: task_id,
                MESSAGE_ID: f"redrive:{stored.sequence}:{stored.time}",
                "Nats-Expected-Stream": stream_name(self._fleet, queue),
            }
            await self._api.publish(subject_name(self._fleet, queue), stored.data, headers)
            await self._delete(queue, stored.sequence)
            redriven += 1
            unknown.discard(task_id)
        if unknown:
            also = f" ({redriven} put back)" if redriven else ""
            raise NotFound(
                f"queue {queue!r}: found no dead letter {', '.join(sorted(unknown))}{also}; expected ids as "
                f"`shoal queue peek {queue} --dead` shows them"
            )
        return redriven

    async def _delete(self, queue: str, sequence: int) -> None:
        try:
            body = {"seq": sequence, "no_erase": True}
            await self._api.call(f"STREAM.MSG.DELETE.{dead_stream_name(self._fleet, queue)}", body)
        except Refused as refused:
            if refused.code not in NOT_FOUND:  # somebody else was faster
                raise

    async def _messages(self, queue: str, *, dead: bool) -> AsyncIterator[_Stored]:
        """From the oldest to what is the newest now, so that what arrives meanwhile does not make it endless."""
        stream = self._stream(queue, dead=dead)
        subject = (dead_subject_name if dead else subject_name)(self._fleet, queue)
        state = (await self._call(queue, f"STREAM.INFO.{stream}"))["state"]
        sequence, last = int(state["first_seq"]), int(state["last_seq"])
        while sequence <= last and state["messages"]:
            try:
                answer = await self._api.call(f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": subject})
            except Refused as refused:
                if refused.code in NOT_FOUND:
                    return
                raise
            stored = _stored(answer["message"])
            if stored.sequence > last:
                return
            yield stored
            sequence = stored.sequence + 1

    async def _unacknowledged(self, stream: str) -> int:
        try:
            return int((await self._api.call(f"CONSUMER.INFO.{stream}.{CONSUMER}"))["num_ack_pending"])
        except Refused as refused:
            if refused.code in NOT_FOUND:
                return 0
            raise

    async def _last_delivered(self, queue: str) -> int:
        stream = stream_name(self._fleet, queue)
        return int((await self._call(queue, f"CONSUMER.INFO.{stream}.{CONSUMER}"))["delivered"]["stream_seq"])

    async def _call(self, queue: str, subject: str) -> Mapping[str, Any]:
        try:
            return await self._api.call(subject)
        except Refused as refused:
            if refused.code in NOT_FOUND:
                raise no_such_queue(queue, [counts.name for counts in await self.list()]) from None
            raise

    def _stream(self, queue: str, *, dead: bool) -> str:
        return (dead_stream_name if dead else stream_name)(self._fleet, queue)


def _stored(message: Mapping[str, Any]) -> _Stored:
    return _Stored(
        int(message["seq"]),
        base64.b64decode(message.get("data", "")),
        str(message["time"]),
        parse_headers(base64.b64decode(message.get("hdrs", ""))),
    )


def parse_headers(block: bytes) -> dict[str, str]:
    """Headers from NATS' wire form, `NATS/1.0` and lines of `Name: value`; of several of a name the last."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _task_id(stored: _Stored, stream: str) -> str:
    return stored.headers.get(TASK_ID) or stored.headers.get(MESSAGE_ID) or f"{stream}:{stored.sequence}"


def _text(header: str) -> str:
    """What the worker wrote into a header of one line: `\\n` is a line break there."""
    return re.sub(r"\\([n\\])", lambda found: "\n" if found[1] == "n" else "\\", header)


def _task(queue: str, stream: str, stored: _Stored, *, dead: bool, delivered: bool) -> QueuedTask:
    attempts = stored.headers.get("Shoal-Attempts", "")
    try:
        payload, encoding = stored.data.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(stored.data).decode(), "base64"
    return QueuedTask(
        id=_task_id(stored, stream),
        queue=queue,
        attempts=(int(attempts) if attempts.isdigit() else 0) if dead else int(delivered),
        payload=payload,
        at=datetime.fromisoformat(stored.time).timestamp() if stored.time else None,
        reason=stored.headers.get("Shoal-Reason", ""),
        encoding=encoding,
        traceback=_text(stored.headers.get("Shoal-Traceback", "")),
    )
