"""The processes of the queue campaign: who publishes, who works, and the sink that records what was really done.

    python -m bench.queue_faults_agents publish COUNT | work CONCURRENCY | sink

A record is a letter, a task's number and an instant of the machine's monotonic clock, which all processes share: `p`
when the broker confirmed a publish, `r` when a handler began to run, `a` when the broker confirmed the acknowledgement,
or, where it confirms none, when that was sent.
The sink appends records to one file and syncs it before it answers; a handler returns, so that its task may be
acknowledged, only after that answer. So nothing that a killed process did is forgotten.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

from shoal.sdk import QueueError, Task, Worker, close, publish

QUEUE = "tasks"
RECORD = struct.Struct("<cId")
PUBLISHED, RAN, ACKNOWLEDGED = b"p", b"r", b"a"
SOCKET, RECORDS = "sink.sock", "records"
_ANSWER = struct.Struct("<I")
_WINDOW = 256
_BACKLOG = 20_000


class Sink:
    """Appends what comes over any connection, syncs, and then says how many records those were."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / RECORDS, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._came = asyncio.Event()
        self._waiting: list[tuple[asyncio.StreamWriter, bytes]] = []

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = b""
        while data := await reader.read(64 * 1024):
            kept += data
            whole = len(kept) // RECORD.size * RECORD.size
            self._waiting.append((writer, kept[:whole]))
            kept = kept[whole:]
            self._came.set()

    async def keep_writing(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            batch, self._waiting = self._waiting, []
            os.write(self._file, b"".join(data for _, data in batch))
            os.fsync(self._file)  # in this thread: what comes meanwhile is the next batch
            for writer, data in batch:
                writer.write(_ANSWER.pack(len(data) // RECORD.size))


class Recorder:
    """A connection to the sink."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def connect(self) -> Recorder:
        reader, self._writer = await asyncio.open_unix_connection(SOCKET)
        asyncio.get_running_loop().create_task(self._read(reader)).add_done_callback(lambda _: os._exit(3))
        return self

    def record(self, kind: bytes, number: int) -> asyncio.Future[None]:
        """The future is done when it is on disk."""
        assert self._writer is not None
        self._writer.write(RECORD.pack(kind, number, time.monotonic()))
        safe = asyncio.get_running_loop().create_future()
        self._waiting.append(safe)
        return safe

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            (count,) = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
            done, self._waiting = self._waiting[:count], self._waiting[count:]
            for safe in done:
                if not safe.done():
                    safe.set_result(None)


async def sink(directory: Path) -> None:
    """Until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    writing = Sink(directory)
    server = await asyncio.start_unix_server(writing.serve_one, SOCKET)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(writing.keep_writing())
        await stopped.wait()
        keeping.cancel()
    server.close()


async def publish_all(count: int) -> None:
    """Tasks 0 to `count` - 1, each until it is confirmed; never more than a backlog ahead of the workers."""
    recorder = await Recorder().connect()
    numbers = iter(range(count))
    confirmed = 0

    async def one_after_the_other() -> None:
        nonlocal confirmed
        for number in numbers:
            while confirmed > _BACKLOG + _done(confirmed):  # noqa: ASYNC110 - other processes set no event
                await asyncio.sleep(0.05)
            while True:
                try:
                    await publish(QUEUE, b"%d" % number, id=f"task-{number}", timeout_s=60)
                except QueueError as error:
                    print(f"task-{number}: {error}", file=sys.stderr, flush=True)
                else:
                    break
            confirmed += 1
            await recorder.record(PUBLISHED, number)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_WINDOW):
            tasks.create_task(one_after_the_other())
    await close()


def _done(confirmed: int) -> int:
    """About how many tasks are done: a task has two records beside that of its publish."""
    return (Path(RECORDS).stat().st_size // RECORD.size - confirmed) // 2


async def work(concurrency: int) -> None:
    """Until SIGTERM."""
    recorder = await Recorder().connect()
    answers = _answers()
    acknowledge = answers.done

    async def run(task: Task) -> None:
        await recorder.record(RAN, int(task.data))

    async def done(self: Any, delivery: Any) -> bool:
        confirmed = await acknowledge(self, delivery)
        if confirmed:
            recorder.record(ACKNOWLEDGED, int(delivery.task.data))
        return confirmed

    answers.done = done
    worker: Any = Worker(run, concurrency=concurrency)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.serve()
    await recorder.record(ACKNOWLEDGED, 2**32 - 1)  # what was recorded before is on disk too


def _answers() -> Any:
    """What answers for tasks on the broker that this agent's queue is on."""
    from shoal.sdk.settings import RabbitMqSettings, read_queue_settings  # noqa: PLC0415 - the clients of both are large

    if isinstance(read_queue_settings(os.environ, QUEUE), RabbitMqSettings):
        from shoal.sdk.rabbitmq.answers import Answers as OnRabbitMq  # noqa: PLC0415

        return OnRabbitMq
    from shoal.sdk.jetstream.delivery import Answers as OnJetStream  # noqa: PLC0415

    return OnJetStream


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["publish", count]:
            asyncio.run(publish_all(int(count)))
        case ["work", concurrency]:
            asyncio.run(work(int(concurrency)))
        case _:
            asyncio.run(sink(Path()))
