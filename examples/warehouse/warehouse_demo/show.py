"""The demo from beginning to end: up, load, a replica killed, down, verdict."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench.load import Outcome, Request, read_outcomes, write_schedule
from examples.warehouse.warehouse.sink import read_effects
from shoal.api.views import AgentView
from shoal.errors import ControllerUnavailable, ShoalError

from .fleet import DemoFleet, FleetFailed, end, kill_listener
from .ledger import Ledger
from .screen import Moment, Screen
from .traffic import EXCERPT, WINDOW_S, Traffic, busiest_window, compress, load_arrivals, make_traffic
from .verdict import TASK_KINDS, ids_of, judge, render

LOAD_SHARE = 0.87  # of the time; the rest is quiet, so that the fleet is seen to shrink
KILL_AFTER_S = 3.0  # after the start of the spike, once two replicas are ready
TICK_S = 0.5
FINISH_S = 45.0  # how long the queues may take to empty after the load
ENDING_S = 5.0  # how long processes may take to end after `shoal down`
INTERRUPTED = 130


@dataclass
class Run:
    """One run of the demo, as it goes on."""

    fleet: DemoFleet
    traffic: Traffic
    seconds: float
    inject: str | None
    ledger: Ledger
    killed: str = "none: there were never two ready ones"
    killed_at_s: float | None = None
    stolen: str | None = None

    @property
    def outcomes_file(self) -> Path:
        return self.fleet.home / "outcomes.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 is a run without a failed request or a lost task."""
    options = parse_arguments(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with what `shoal` prints, also into a pipe
    traffic = plan_traffic(options)
    print(
        f"{len(traffic.requests)} requests in {options.seconds:g} s, up to {traffic.peak_rps} in a second; "
        f"the spike starts at {traffic.spike_at_s:.0f} s"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt_once)
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as home:
        fleet = DemoFleet(Path(home))
        run = Run(fleet, traffic, options.seconds, options.inject, Ledger())
        try:
            print("shoal up -d")
            fleet.up()
            asyncio.run(perform(run))
            code = 0
        except KeyboardInterrupt:
            code = INTERRUPTED
        except (FleetFailed, ShoalError, subprocess.TimeoutExpired) as error:
            print(f"error: {error}")
            code = 1
        finally:
            left = take_down(fleet)
        return conclude(run, left) if code == 0 else code


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The warehouse under a spike of real traffic.")
    parser.add_argument("--seconds", type=float, default=90, help="how long the load lasts (default 90)")
    parser.add_argument("--peak-rps", type=float, default=40, help="thin the trace to about this peak (default 40)")
    parser.add_argument("--trace", metavar="FILE", help="another trace, in the directory that SHOAL_TRACES names")
    parser.add_argument("--inject", choices=("failed-request", "lost-task"), help="break something, to see it found")
    options = parser.parse_args(arguments)
    if options.trace and not (Path(os.environ.get("SHOAL_TRACES", "")) / options.trace).is_file():
        parser.error(f"--trace {options.trace}: no such file in SHOAL_TRACES={os.environ.get('SHOAL_TRACES', '')}")
    return options


def plan_traffic(options: argparse.Namespace) -> Traffic:
    """The trace in the time that there is, and where wished a request that nobody can serve."""
    arrivals = load_arrivals(EXCERPT)
    if options.trace:
        arrivals = busiest_window(load_arrivals(Path(os.environ["SHOAL_TRACES"]) / options.trace), WINDOW_S)
    arrivals = compress(arrivals, options.seconds * LOAD_SHARE, options.peak_rps)
    traffic = make_traffic(arrivals, options.seconds)
    if options.inject == "failed-request":
        lost = Request("injected", traffic.requests[-1].at_s, "GET", "/nobody-serves-this")
        traffic = replace(traffic, requests=(*traffic.requests, lost))
    return traffic


async def perform(run: Run) -> None:
    """Send the load, watch, kill a replica, and wait until the queues are empty again."""
    status = await run.fleet.client.status()
    if status.gateway_url is None:
        raise FleetFailed("the fleet has no gateway")
    schedule = run.fleet.home / "schedule.jsonl"
    write_schedule(schedule, run.traffic.requests)
    load = run.fleet.start_load(status.gateway_url, schedule, run.outcomes_file, run.seconds + FINISH_S)
    try:
        async with watching(run), asyncio.timeout(run.seconds + 2 * FINISH_S):
            await follow(run, load)
        await note_what_happened(run)
    finally:
        load.terminate()
        load.wait()


@contextlib.asynccontextmanager
async def watching(run: Run) -> AsyncIterator[None]:
    """Feed the ledger from the controller's stream meanwhile."""

    async def watch() -> None:
        while True:
            with contextlib.suppress(ControllerUnavailable):
                async with contextlib.aclosing(run.fleet.client.watch()) as views:
                    async for view in views:
                        run.ledger.see(view)
            await asyncio.sleep(TICK_S)

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        yield
        watcher.cancel()


async def follow(run: Run, load: subprocess.Popen[bytes]) -> None:
    """Tick by tick, until the load was answered, its time is over and all tasks are done (or can't be any more)."""
    began = time.time()
    with Screen() as screen:
        while True:
            at_s = time.time() - began
            outcomes = outcomes_so_far(run)
            done = {kind: set(ids_of(list(read_effects(run.fleet.sink)), kind)) for kind in TASK_KINDS}
            note = "" if run.killed_at_s is None else f"killed at {run.killed_at_s:.0f} s: {run.killed}"
            screen.show(Moment(at_s, run.seconds, run.ledger.last, outcomes, len(done["metadata"]), note))
            interfere(run, at_s)
            ended = load.poll() is not None and at_s >= run.seconds
            if ended and (all(run.traffic.tasks_in(ids) for ids in done.values()) or at_s > run.seconds + FINISH_S):
                return
            await asyncio.sleep(TICK_S)


def interfere(run: Run, at_s: float) -> None:
    """Kill a replica in the spike; steal a task where that is wished."""
    ingest = agent_now(run, "ingest")
    ready = [replica for replica in ingest.replicas if replica.ready and replica.address] if ingest else []
    if run.killed_at_s is None and at_s >= run.traffic.spike_at_s + KILL_AFTER_S and len(ready) >= 2:
        victim = ready[0]
        pid = kill_listener(victim.address or "")
        if pid is not None:
            run.killed, run.killed_at_s = f"{victim.id} (kill -9 of pid {pid}, {len(ready)} were ready)", at_s
    if run.inject == "lost-task" and run.stolen is None and at_s >= run.traffic.spike_at_s:
        run.stolen = run.fleet.steal_task()


def outcomes_so_far(run: Run) -> list[Outcome]:
    try:
        return read_outcomes(run.outcomes_file)[1]
    except (OSError, ValueError):
        return []  # the generator is just starting


def agent_now(run: Run, name: str) -> AgentView | None:
    agents = run.ledger.last.agents if run.ledger.last else ()
    return next((agent for agent in agents if agent.name == name), None)


async def note_what_happened(run: Run) -> None:
    """Decisions that came and went between two looks, and who ended by itself, or by our hand."""
    async with contextlib.aclosing(run.fleet.client.events()) as events:
        run.ledger.crashes += [event.message async for event in events if event.kind == "crashed"]
    for agent in run.ledger.last.agents if run.ledger.last else ():
        for decision in await run.fleet.client.explain(agent.name, last=50):
            run.ledger.decide(agent.name, decision)


def interrupt_once(*_: object) -> None:
    """The first Ctrl-C ends the demo in order; a second one must not end the ending."""
    ignore_interrupts()
    raise KeyboardInterrupt


def ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def take_down(fleet: DemoFleet) -> int:
    """`shoal down`, whatever happened before; gives how many processes it left, and ends those."""
    ignore_interrupts()
    print("shoal down")
    try:
        fleet.down()
    except (FleetFailed, subprocess.TimeoutExpired) as error:
        print(f"error: {error}")
    deadline = time.monotonic() + ENDING_S
    while (left := fleet.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            print(f"left behind: {process.pid} {' '.join(' '.join(process.cmdline()).split())[:150]}")
    end(left)
    return len(left)


def conclude(run: Run, left: int) -> int:
    """Print the verdict; 1 where something is wrong."""
    started_at, outcomes = read_outcomes(run.outcomes_file)
    verdict = judge(run.traffic, started_at, outcomes, list(read_effects(run.fleet.sink)))
    print(render(verdict, run.ledger, run.killed, left))
    problems = [*verdict.problems, *([f"{left} processes left behind"] if left else [])]
    print(f"FAILED: {'; '.join(problems)}" if problems else "all requests answered, all tasks done once")
    return 1 if problems else 0
