"""What a wake from zero adds to the start of the agent's own program: one request to an agent that has no replica."""

from __future__ import annotations

import json
import time

from bench.answering import ask_once
from bench.live_fleet import LiveFleet, running
from bench.own_start import AGENT, measure_own_start
from bench.row import Goal, Row, quantile
from bench.spike_steps import PROGRAM

NAME = "wake"


def run(quick: bool) -> list[Row]:
    """Wakes in turns with starts of the program alone."""
    agents = {
        NAME: {
            "command": AGENT,
            "port": 8000,
            "public": "/wake",
            "health": "/healthz",
            "environment": {"MARKS": "marks"},
            "scale": {"min": 0, "max": 4, "target": {"concurrency": 20}},
        }
    }
    ours: list[float] = []
    own: list[float] = []
    parts: dict[str, list[float]] = {}
    with running("bench-wake", agents) as fleet:
        for _ in range(5 if quick else 20):
            own.append(measure_own_start())
            sent_at = time.time()
            replica, took = ask_once(fleet.port, "/wake/who")
            ours.append(took)
            for name, seconds in _parts(fleet, replica, sent_at, sent_at + took).items():
                parts.setdefault(name, []).append(seconds)
            _sleep(fleet)
    program = [sum(each) for each in zip(*(parts[name] for name in PROGRAM), strict=True)]
    others = tuple((took - own_part) * 1000 for took, own_part in zip(ours, program, strict=True))
    said = ", ".join(f"{name} {quantile(values, 0.5) * 1000:.0f}" for name, values in parts.items())
    return [
        Row("wake", "first request from zero", "ms", tuple(each * 1000 for each in ours), Goal(50.0),
            tuple(each * 1000 for each in own), "difference", note=f"medians in ms: {said}", details={"steps": parts}),
        Row("wake", "the same, less what the program itself noted", "ms", others, Goal(50.0)),
    ]  # fmt: skip


def _parts(fleet: LiveFleet, replica: str, sent_at: float, answered_at: float) -> dict[str, float]:
    """What lay between the request and its answer, each from the end of the one before."""
    lines = (fleet.directory / "marks" / f"{replica}.jsonl").read_text().splitlines()
    marks = {mark["mark"]: mark["at"] for mark in map(json.loads, lines)}
    started = next((each.started_at for each in fleet.agent(NAME).replicas if each.id == replica), None)
    scaled = [event.at for event in fleet.events(sent_at) if event.kind == "scaled" and event.at >= sent_at]
    instants = {
        "decision": min(scaled, default=None),
        "spawn": started,
        "interpreter": marks.get("main"),
        "listening": marks.get("listening"),
        "ready": marks.get("engine-check"),
        "gateway": marks.get("gateway-check"),
        "first request": marks.get("request"),
        "answer": answered_at,
    }
    parts: dict[str, float] = {}
    before = sent_at
    for name, at in instants.items():
        if at is not None:
            parts[name], before = at - before, at
    return parts


def _sleep(fleet: LiveFleet) -> None:
    """Back to zero. A pin does at once what the autoscaler would do in five minutes."""
    fleet.pin(NAME, 0)
    fleet.wait_for(NAME, lambda agent: not agent.replicas)
    time.sleep(1.5)  # what the windows remember of the request
    fleet.pin(NAME, None)
    fleet.wait_for(NAME, lambda agent: agent.pin is None and agent.desired == 0)
