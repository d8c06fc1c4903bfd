"""Kills the broker and workers with SIGKILL while tasks are published and worked on, and counts what became of them.

    python -m bench.queue_faults [--tasks N] [--kills K] [--seed S] [--workers W] [--broker nats|rabbitmq]

Each task that the broker confirmed must have been done (0 lost), and none may be run after its acknowledgement was
confirmed. A task that runs twice before that is what at-least-once means; those are counted. Exits with 1 when a task
was lost, died, or was done again. RabbitMQ confirms no acknowledgement, so there what is done again is counted as well,
and no fault. The kills are at moments drawn from the seed, in terms of records at the sink.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import machine
from bench.queue_faults_agents import ACKNOWLEDGED, PUBLISHED, QUEUE, RAN, RECORD, RECORDS, SOCKET
from bench.queue_faults_brokers import NAMES, Broker, start_broker
from shoal.errors import BrokerError
from shoal.spec.model import Agent, Fleet, Queue

OUT = Path(__file__).parent / "out" / "queue_faults.json"
ACK_WAIT_S = 5.0
_RECORDS_A_TASK = 3
_LOOK_S = 0.02
_STUCK_S = 120.0  # without any record
_NOT_A_TASK = 2**32 - 1
_FLEET = Fleet(
    fleet="faults",
    agents={"send": Agent(port=8000, publishes=(QUEUE,)), "work": Agent(queue=QUEUE)},
    queues={QUEUE: Queue(ack_wait=ACK_WAIT_S, max_attempts=100)},
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the tasks. `lost`: confirmed but never done; `again`: run after a confirmed acknowledgement;
    `twice`: runs beyond a task's first that began before its acknowledgement was confirmed."""

    published: int
    runs: int
    lost: int
    again: int
    twice: int
    unasked: int
    dead: int
    left: int

    @property
    def loses_nothing(self) -> bool:
        return not (self.lost or self.unasked or self.dead or self.left)

    @property
    def holds(self) -> bool:
        return self.loses_nothing and not self.again


@dataclass(frozen=True, slots=True)
class Campaign:
    """One run of it: what was asked, what was killed, how long it took, what became of the tasks."""

    tasks: int
    kills: int
    seed: int
    workers: int
    broker_kills: int
    worker_kills: int
    seconds: float
    tasks_per_s: float
    verdict: Verdict
    broker: str = "nats"

    @property
    def holds(self) -> bool:
        judged = self.verdict
        return judged.published == self.tasks and (judged.holds if self.broker == "nats" else judged.loses_nothing)


def judge(records: bytes, *, dead: int = 0, left: int = 0) -> Verdict:
    """The verdict over the sink's file. `dead` and `left` are what the broker still holds."""
    events = [(number, kind, at) for kind, number, at in RECORD.iter_unpack(records) if number != _NOT_A_TASK]
    size = max((number for number, _, _ in events), default=-1) + 1
    published, runs = bytearray(size), array("L", bytes(size * array("L").itemsize))
    acknowledged: dict[int, float] = {}
    for number, kind, at in events:
        if kind == PUBLISHED:
            published[number] = 1
        elif kind == RAN:
            runs[number] += 1
        elif kind == ACKNOWLEDGED:
            acknowledged[number] = min(at, acknowledged.get(number, at))
    again = sum(kind == RAN and at > acknowledged.get(number, at) for number, kind, at in events)
    return Verdict(
        published=sum(published),
        runs=sum(runs),
        lost=sum(sent and not ran for sent, ran in zip(published, runs, strict=True)),
        again=again,
        twice=sum(ran - 1 for ran in runs if ran) - again,
        unasked=sum(ran and not sent for sent, ran in zip(published, runs, strict=True)),
        dead=dead,
        left=left,
    )


class Rig:
    """The processes, in a directory of their own, and their sudden ends."""

    def __init__(
        self, directory: Path, workers: int, concurrency: int, chance: random.Random, broker: str = "nats"
    ) -> None:
        self._directory, self._concurrency, self._chance = directory, concurrency, chance
        self.broker = start_broker(broker, directory, _FLEET)
        self._sink = self._start("sink", "sink")
        self._workers = [self._start_worker() for _ in range(workers)]
        self.kills = {"broker": 0, "worker": 0}

    @property
    def recorded(self) -> int:
        """How many records the sink has; it may not have begun."""
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / RECORDS).stat().st_size // RECORD.size
        return 0

    def start_publishing(self, tasks: int) -> subprocess.Popen[bytes]:
        return self._start("send", "publish", str(tasks))

    def kill_something(self) -> None:
        """The broker, a worker, or both at once; what was killed is started again."""
        what = self._chance.choice(("broker", "worker", "worker", "both"))
        if what != "worker":
            self.broker.kill()
            self.kills["broker"] += 1
        if what != "broker":
            victim = self._chance.randrange(len(self._workers))
            _kill(self._workers[victim])
            self._workers[victim] = self._start_worker()
            self.kills["worker"] += 1
        if what != "worker":
            time.sleep(self._chance.uniform(0.0, 0.3))
            self.broker.start()

    def stop(self) -> None:
        """Workers drain, so that the sink has all of their records; the sink ends after them."""
        for process in (*self._workers, self._sink):
            process.terminate()
            process.wait(30)

    def close(self) -> None:
        """Nothing of it runs after."""
        for process in (*self._workers, self._sink):
            _kill(process)
        self.broker.close()

    def _start_worker(self) -> subprocess.Popen[bytes]:
        while not (self._directory / SOCKET).exists():
            time.sleep(_LOOK_S)
        return self._start("work", "work", str(self._concurrency))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        variables = self.broker.environment(name) if name in _FLEET.agents else {}
        return self._spawn(name, [sys.executable, "-m", "bench.queue_faults_agents", *arguments], variables)

    def _spawn(self, name: str, argv: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._directory / f"{name}.log").open("ab") as log:
            environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), **variables}
            return subprocess.Popen(
                argv, cwd=self._directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


def run_campaign(
    tasks: int, kills: int, seed: int, *, workers: int = 3, concurrency: int = 64, broker: str = "nats"
) -> Campaign:
    """Publishes, works and kills until every task is done. Raises TimeoutError when nothing happens for long."""
    chance = random.Random(seed)
    moments = sorted(chance.randrange(tasks * _RECORDS_A_TASK * 9 // 10) for _ in range(kills))
    with _directory() as directory, contextlib.closing(Rig(directory, workers, concurrency, chance, broker)) as rig:
        asyncio.run(_ensure(rig.broker))
        began = time.monotonic()
        publisher = rig.start_publishing(tasks)
        try:
            for moment in moments:
                _wait_until(rig, lambda moment=moment: rig.recorded >= moment)
                rig.kill_something()
            _wait_until(rig, lambda: publisher.poll() is not None)
            left, dead = asyncio.run(_wait_empty(rig))
        finally:
            _kill(publisher)
        seconds = time.monotonic() - began
        rig.stop()
        verdict = judge((directory / RECORDS).read_bytes(), dead=dead, left=left)
    return Campaign(
        tasks, kills, seed, workers, rig.kills["broker"], rig.kills["worker"], seconds, tasks / seconds, verdict, broker
    )


async def _ensure(broker: Broker) -> None:
    queues = broker.queues()
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(BrokerError):
                    return await queues.ensure(broker.fleet.queues)
                await asyncio.sleep(0.1)
    finally:
        await queues.close()


def _wait_until(rig: Rig, holds: Callable[[], bool]) -> None:
    """Raises TimeoutError when nothing was recorded for long."""
    recorded, moved_at = rig.recorded, time.monotonic()
    while not holds():
        time.sleep(_LOOK_S)
        if rig.recorded != recorded:
            recorded, moved_at = rig.recorded, time.monotonic()
        elif time.monotonic() - moved_at > _STUCK_S:
            raise TimeoutError(f"nothing was done for {_STUCK_S:g} s, after {recorded} records")


async def _wait_empty(rig: Rig) -> tuple[int, int]:
    """How many tasks and dead letters are left, once nothing is in the queue or nothing is done any more."""
    admin = rig.broker.admin()
    moved_at, before = time.monotonic(), None
    try:
        while True:
            with contextlib.suppress(BrokerError):
                (counts,) = await admin.list()
                left = counts.waiting + counts.in_progress
                if left != before:
                    moved_at, before = time.monotonic(), left
                if time.monotonic() - moved_at >= (rig.broker.settled_s if left == 0 else _STUCK_S):
                    return left, counts.dead
            await asyncio.sleep(0.2)
    finally:
        await admin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


@contextlib.contextmanager
def _directory() -> Generator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shoal-faults-", dir="/tmp"))
    try:
        yield path
    except BaseException:
        print(f"what they said is in {path}/*.log", file=sys.stderr)
        raise
    shutil.rmtree(path)


def render_campaigns(campaigns: Sequence[Campaign]) -> str:
    """A Markdown table, a row a campaign."""
    head = ("tasks", "kills", "of them broker, workers", "seed", "lost", "again after ack", "twice before ack", "dead",
            "left", "s", "tasks/s")  # fmt: skip
    lines = [head, tuple("-" for _ in head)]
    for each in campaigns:
        judged = each.verdict
        counts = (judged.lost, judged.again, judged.twice, judged.dead, judged.left)
        ends = (round(each.seconds), round(each.tasks_per_s))
        kills = f"{each.broker_kills}, {each.worker_kills}"
        lines.append((*map(_shown, (each.tasks, each.kills)), kills, *map(_shown, (each.seed, *counts, *ends))))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(count: int) -> str:
    return f"{count:,}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.queue_faults", description="Kills the broker and workers.")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--broker", choices=NAMES, default="nats")
    arguments = parser.parse_args()
    described = machine.describe()
    campaign = run_campaign(
        arguments.tasks, arguments.kills, arguments.seed, workers=arguments.workers, broker=arguments.broker
    )
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"machine": described, "campaign": asdict(campaign)}, indent=2) + "\n")
    print(render_campaigns([campaign]))
    return 0 if campaign.holds else 1


if __name__ == "__main__":
    sys.exit(main())
