"""Where the time of a spike goes: pure arithmetic on what the load, the controller and the replica noted.

All clocks are one machine's, as epoch seconds. The steps follow one another, so that they add up to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal.api.views import EventView, ReplicaView

WINDOW_S = 1.0  # the autoscaler reads the mean of the concurrency over it
TOLERANCE = 1.1

# Name, and what ends it.
STEPS: Mapping[str, str] = {
    "demand": "the mean of the requests in flight passes the target: earlier nobody could decide",
    "decision": "the count was raised",
    "spawn": "the engine starts the process",
    "interpreter": "the program's first line",
    "listening": "it listens",
    "ready": "the engine's probe was answered",
    "gateway": "the gateway's check was answered",
    "first request": "a request reached it",
    "first answer": "a client has its answer",
}
PROGRAM = ("interpreter", "listening")


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds from the spike to the first answer of a new replica, and of each step in between that is known."""

    total_s: float
    parts: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def program_s(self) -> float:
        """The part of the replica's own program: from being started to listening."""
        return sum(self.parts.get(name, 0.0) for name in PROGRAM)


def steps_of(
    *,
    spike_at: float,
    seen_at: float,
    in_flight: Sequence[tuple[float, float]],
    target: float,
    events: Sequence[EventView],
    replica: ReplicaView | None,
    marks: Mapping[str, float],
) -> Steps:
    """`in_flight` has when each request was sent and answered; `marks` is what the new replica noted."""
    scaled = [event.at for event in events if event.kind == "scaled" and event.at >= spike_at]
    instants = {
        "demand": passes_at(in_flight, target * TOLERANCE, spike_at),
        "decision": min(scaled, default=None),
        "spawn": replica.started_at if replica is not None else None,
        "interpreter": marks.get("main"),
        "listening": marks.get("listening"),
        "ready": marks.get("engine-check"),
        "gateway": marks.get("gateway-check"),
        "first request": marks.get("request"),
        "first answer": seen_at,
    }
    parts: dict[str, float] = {}
    before = spike_at
    for name in STEPS:
        at = instants[name]
        if at is not None:
            parts[name] = at - before
            before = at
    return Steps(seen_at - spike_at, parts)


def passes_at(in_flight: Sequence[tuple[float, float]], bound: float, since: float) -> float | None:
    """When the mean by time of what is in flight, over the last `WINDOW_S`, first passes the bound; to 5 ms."""
    last = max((end for _, end in in_flight), default=since)
    at = since
    while at < last:
        area = sum(max(0.0, min(end, at) - max(begin, at - WINDOW_S)) for begin, end in in_flight)
        if area / WINDOW_S > bound:
            return at
        at += 0.005
    return None
