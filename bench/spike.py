"""From a spike of load to the first new replica that serves, with the spec's defaults.

Load for one replica, then at once for four, sent on time by another process whatever comes back. What an engine can't
help, the start of the replica's own program, is measured alone in turns with it and taken off. `spike_steps` says
where the rest goes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.answering import Asker
from bench.live_fleet import HERE, LiveFleet, running
from bench.load import Outcome, Request, read_outcomes, summarize, write_schedule
from bench.own_start import AGENT, measure_own_start
from bench.row import Goal, Row, quantile
from bench.spike_steps import STEPS, Steps, steps_of

NAME = "spike"
TARGET = 20  # requests in flight a replica
SERVICE_S = 0.2
BEFORE_RPS, SPIKE_RPS = 75, 375  # times SERVICE_S: 15 in flight, then 75
BEFORE_S = 2.0
_SPIKE_S = 2.5
_LATE_S = 0.25  # a generator that was later than this did not make the spike that was asked for


@dataclass(frozen=True, slots=True)
class Spike:
    """One of them. Seconds."""

    own_start_s: float
    steps: Steps
    failed: int
    late_s: float


def run(quick: bool) -> list[Row]:
    """Thirty spikes, each after a start of the program alone."""
    agents = {
        NAME: {
            "command": AGENT,
            "port": 8000,
            "public": "/spike",
            "health": "/healthz",
            "environment": {"SERVICE_S": str(SERVICE_S), "MARKS": "marks"},
            "scale": {"min": 1, "max": 8, "target": {"concurrency": TARGET}},
        }
    }
    spikes: list[Spike] = []
    with running("bench-spike", agents) as fleet:
        for _ in range(5 if quick else 30):
            own_start_s = measure_own_start()
            spikes.append(_one(fleet, own_start_s))
            _rest(fleet)
    return _rows([spike for spike in spikes if spike.late_s <= _LATE_S], left_out=spikes)


def schedule() -> list[Request]:
    """Evenly spaced requests at the one rate, then at the other."""
    before = [i / BEFORE_RPS for i in range(int(BEFORE_S * BEFORE_RPS))]
    spike = [BEFORE_S + i / SPIKE_RPS for i in range(int(_SPIKE_S * SPIKE_RPS))]
    return [Request(f"r{number}", at_s) for number, at_s in enumerate([*before, *spike])]


def _one(fleet: LiveFleet, own_start_s: float) -> Spike:
    there = {replica.id for replica in fleet.agent(NAME).replicas}
    asker = Asker(fleet.port, "/spike/who")
    asker.start()
    try:
        started_at, outcomes = _send(fleet)
    finally:
        asker.stop()
    spike_at = started_at + BEFORE_S
    new = {name: at for name, at in asker.first_seen.items() if name not in there}
    if not new:
        raise RuntimeError(f"no new replica served within {_SPIKE_S:g}s: {fleet.agent(NAME)}")
    first, seen_at = min(new.items(), key=lambda each: each[1])
    summary = summarize(outcomes)
    steps = steps_of(
        spike_at=spike_at,
        seen_at=seen_at,
        in_flight=[(started_at + each.sent_s, started_at + each.sent_s + each.latency_s) for each in outcomes],
        target=TARGET,
        events=fleet.events(spike_at - 0.5),
        replica=next((each for each in fleet.agent(NAME).replicas if each.id == first), None),
        marks=_marks(fleet.directory / "marks" / f"{first}.jsonl"),
    )
    return Spike(own_start_s, steps, summary.failed, summary.late_s)


def _send(fleet: LiveFleet) -> tuple[float, list[Outcome]]:
    planned, came = fleet.directory / "schedule.jsonl", fleet.directory / "outcomes.jsonl"
    write_schedule(planned, schedule())
    argv = [sys.executable, "-m", "bench.load", "--target", f"{fleet.url}/spike/", "--schedule", str(planned)]
    subprocess.run(
        [*argv, "--out", str(came), "--timeout", "10"],
        cwd=HERE.parent, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return read_outcomes(came)


def _marks(path: Path) -> dict[str, float]:
    return {mark["mark"]: mark["at"] for mark in map(json.loads, path.read_text().splitlines())}


def _rest(fleet: LiveFleet) -> None:
    """Back to one replica. A pin does at once what the autoscaler would do in five minutes."""
    fleet.pin(NAME, 1)
    fleet.wait_for(NAME, lambda agent: len(agent.replicas) == 1 and agent.ready == 1)
    time.sleep(1.5)  # what the windows remember of the load
    fleet.pin(NAME, None)
    fleet.wait_for(NAME, lambda agent: agent.pin is None and agent.desired == 1)


def _rows(spikes: Sequence[Spike], left_out: Sequence[Spike]) -> list[Row]:
    took = tuple(spike.steps.total_s for spike in spikes)
    own = tuple(spike.own_start_s for spike in spikes)
    parts = {name: [spike.steps.parts[name] for spike in spikes if name in spike.steps.parts] for name in STEPS}
    said = ", ".join(f"{name} {quantile(values, 0.5) * 1000:.0f}" for name, values in parts.items() if values)
    late = len(left_out) - len(spikes)
    note = f"medians in ms: {said}; {sum(spike.failed for spike in spikes)} failed requests"
    details = {"steps": parts, "left_out_as_the_load_was_late": late, "late_s": [spike.late_s for spike in left_out]}
    what = f"first new replica serves ({BEFORE_RPS} to {SPIKE_RPS} requests/s of {SERVICE_S:g} s)"
    shared = {"bench": "spike", "what": what, "unit": "s", "ours": took, "baseline": own, "compare": "difference"}
    others = tuple(spike.steps.total_s - spike.steps.program_s for spike in spikes)
    return [
        Row(**shared, goal=Goal(0.8), note=note + (f"; {late} left out, the load was late" if late else ""),
            details=details),
        Row(**shared, goal=Goal(1.5), quantile=0.95),
        Row("spike", "the same, less what the program itself noted", "s", others, Goal(0.8)),
        Row("spike", "the same, less what the program itself noted", "s", others, Goal(1.5), quantile=0.95),
    ]  # fmt: skip
