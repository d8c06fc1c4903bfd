"""What must outlive the controller, an agent at a time. Everything else is rebuilt from observation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.core.decision import Pin, ScaleEvent
from shoal.core.rollout import Rollout, RolloutPhase

SERVED_KEPT = 10  # as many as there are revisions that one can come back to


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """`desired` is the count that was decided last, `ups` and `downs` the scale events that a policy's window may
    still count, `last_fire_at` the scheduled time of the last run that was started (epoch seconds) under `schedule`: a
    new schedule has missed nothing. `rollout` is the last one, until the agent leaves the fleet; `served` are the
    last revisions that took over in full, the newest first. `started`: it was started once, so that no start of it
    waits for those that it depends on any more; `held_since`: since when its count is seen to be somebody else's."""

    desired: int = 0
    pin: Pin | None = None
    ups: tuple[ScaleEvent, ...] = ()
    downs: tuple[ScaleEvent, ...] = ()
    last_fire_at: float | None = None
    schedule: str = ""
    rollout: Rollout | None = None
    started: bool = False
    held_since: float | None = None
    served: tuple[str, ...] = ()

    @property
    def known_to_serve(self) -> frozenset[str] | None:
        """Every revision that did its work, as far as this tells; `None` where it tells nothing."""
        if self.rollout is None or (self.rollout.phase is RolloutPhase.COMPLETE and not self.served):
            return None
        return frozenset((*self.served, *([self.rollout.stable] if self.rollout.stable is not None else [])))

    def rolled(self, rollout: Rollout) -> AgentRecord:
        """The same with this rollout."""
        served = self.served
        if rollout.phase is RolloutPhase.COMPLETE:
            served = (rollout.revision, *(each for each in served if each != rollout.revision))[:SERVED_KEPT]
        return replace(self, rollout=rollout, served=served)

    @property
    def kept_at_end(self) -> AgentRecord | None:
        """What still holds once all of it is stopped with its fleet: the count that a person set, and what served.
        `None`: nothing does."""
        stable = self.rollout.stable if self.rollout is not None else None
        missing = (stable,) if stable is not None and stable not in self.served else ()
        kept = AgentRecord(pin=self.pin, served=(*missing, *self.served)[:SERVED_KEPT])
        return None if kept == AgentRecord() else kept

    def pinned(self, pin: Pin | None) -> AgentRecord:
        """The same with another pin, or none."""
        return replace(self, pin=pin)
