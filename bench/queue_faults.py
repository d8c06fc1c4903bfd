"""Kills the broker and workers with SIGKILL while tasks are published and worked on, and counts what became of them.

    python -m bench.queue_faults [--tasks N] [--kills K] [--seed S] [--workers W]

Each task that the broker confirmed must have been done (0 lost), and none may be run after its acknowledgement was
confirmed. A task that runs twice before that is what at-least-once means; those are counted. Exits with 1 when a task
was lost, died, or was done again. The kills are at moments drawn from the seed, in terms of records at the sink.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
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
from bench.live_fleet import free_port
from bench.queue_faults_agents import ACKNOWLEDGED, PUBLISHED, QUEUE, RAN, RECORD, RECORDS, SOCKET
from shoal.core.broker import ADMIN_USER, broker_url, render_config
from shoal.core.wiring import Wiring, environment_for
from shoal.errors import BrokerError
from shoal.sources.jetstream import JetStreamQueues
from shoal.sources.jetstream_admin import JetStreamAdmin
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
    def holds(self) -> bool:
        return not (self.lost or self.again or self.unasked or self.dead or self.left)


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

    def __init__(self, directory: Path, workers: int, concurrency: int, chance: random.Random) -> None:
        self._directory, self._concurrency, self._chance = directory, concurrency, chance
        self._port = free_port()
        self.admin_url = broker_url(ADMIN_USER, "secret-of-shoal", "127.0.0.1", self._port)
        (directory / "nats.conf").write_text(
            render_config(
                _FLEET,
                passwords=dict.fromkeys(_FLEET.agents, "secret"),
                admin_password="secret-of-shoal",
                store_dir=str(directory / "store"),
                port=self._port,
            )
        )
        self._broker = self._start_broker()
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
            _kill(self._broker)
            self.kills["broker"] += 1
        if what != "broker":
            victim = self._chance.randrange(len(self._workers))
            _kill(self._workers[victim])
            self._workers[victim] = self._start_worker()
            self.kills["worker"] += 1
        if what != "worker":
            time.sleep(self._chance.uniform(0.0, 0.3))
            self._broker = self._start_broker()

    def stop(self) -> None:
        """Workers drain, so that the sink has all of their records; the sink ends after them."""
        for process in (*self._workers, self._sink):
            process.terminate()
            process.wait(30)

    def close(self) -> None:
        """Nothing of it runs after."""
        for process in (*self._workers, self._sink, self._broker):
            _kill(process)

    def _start_broker(self) -> subprocess.Popen[bytes]:
        return self._spawn("broker", [str(Path(sys.executable).with_name("nats-server")), "-c", "nats.conf"], {})

    def _start_worker(self) -> subprocess.Popen[bytes]:
        while not (self._directory / SOCKET).exists():
            time.sleep(_LOOK_S)
        return self._start("work", "work", str(self._concurrency))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        agent = _FLEET.agents.get(name)
        variables: dict[str, str] = {}
        if agent is not None:
            url = broker_url(name, "secret", "127.0.0.1", self._port)
            wiring = Wiring(bind="127.0.0.1", public_port=1, broker_url={name: url})
            variables = environment_for(_FLEET.fleet, name, agent, wiring)
        return self._spawn(name, [sys.executable, "-m", "bench.queue_faults_agents", *arguments], variables)

    def _spawn(self, name: str, argv: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._directory / f"{name}.log").open("ab") as log:
            environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
            return subprocess.Popen(
                argv, cwd=self._directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


def run_campaign(tasks: int, kills: int, seed: int, *, workers: int = 3, concurrency: int = 64) -> Campaign:
    """Publishes, works and kills until every task is done. Raises TimeoutError when nothing happens for long."""
    chance = random.Random(seed)
    moments = sorted(chance.randrange(tasks * _RECORDS_A_TASK * 9 // 10) for _ in range(kills))
    with _directory() as directory, contextlib.closing(Rig(directory, workers, concurrency, chance)) as rig:
        asyncio.run(_ensure(rig.admin_url))
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
        tasks, kills, seed, workers, rig.kills["broker"], rig.kills["worker"], seconds, tasks / seconds, verdict
    )


async def _ensure(admin_url: str) -> None:
    queues = JetStreamQueues(admin_url, _FLEET.fleet)
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(BrokerError):
                    return await queues.ensure(_FLEET.queues)
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
    admin = JetStreamAdmin(rig.admin_url, _FLEET.fleet)
    moved_at, before = time.monotonic(), None
    try:
        while True:
            with contextlib.suppress(BrokerError):
                (counts,) = await admin.list()
                left = counts.waiting + counts.in_progress
                if left == 0 or time.monotonic() - moved_at > _STUCK_S:
                    return left, counts.dead
                if left != before:
                    moved_at, before = time.monotonic(), left
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
    arguments = parser.parse_args()
    described = machine.describe()
    campaign = run_campaign(arguments.tasks, arguments.kills, arguments.seed, workers=arguments.workers)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"machine": described, "campaign": asdict(campaign)}, indent=2) + "\n")
    print(render_campaigns([campaign]))
    return 0 if campaign.verdict.holds and campaign.verdict.published == arguments.tasks else 1


if __name__ == "__main__":
    sys.exit(main())
