"""What must outlive the controller, an agent at a time. Everything else is rebuilt from observation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.core.decision import Pin, ScaleEvent
from shoal.core.rollout import Rollout


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """`desired` is the count that was decided last, `ups` and `downs` the scale events that a policy's window may
    still count, `last_fire_at` the scheduled time of the last run that was started (epoch seconds) under `schedule`: a
    new schedule has missed nothing. `rollout` is the last one, until the agent leaves the fleet. `started`: it was
    started once, so that no start of it waits for those that it depends on any more."""

    desired: int = 0
    pin: Pin | None = None
    ups: tuple[ScaleEvent, ...] = ()
    downs: tuple[ScaleEvent, ...] = ()
    last_fire_at: float | None = None
    schedule: str = ""
    rollout: Rollout | None = None
    started: bool = False

    def pinned(self, pin: Pin | None) -> AgentRecord:
        """The same with another pin, or none."""
        return replace(self, pin=pin)
