"""Instants that outlive a controller, and that no step of the wall clock moves.

Deadlines are counted on the kernel's monotonic clock, which every process of one boot reads alike and which stands
still while the machine is suspended: a clock set back an hour holds up no restart, one set forward cuts no grace period
short, and who slept with the machine has still its time. Epoch seconds are for people.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instant:
    """`at_s` on the monotonic clock of one boot."""

    at_s: float
    boot: str

    def after(self, seconds: float) -> Instant:
        """That much later."""
        return Instant(self.at_s + seconds, self.boot)

    def left_s(self, now: Instant) -> float:
        """Seconds until then; none where it is past, or lay in another boot."""
        return max(0.0, self.at_s - now.at_s) if self.boot == now.boot else 0.0

    def age_s(self, now: Instant) -> float:
        """Seconds since then; infinite where it lay in another boot."""
        return max(0.0, now.at_s - self.at_s) if self.boot == now.boot else float("inf")
