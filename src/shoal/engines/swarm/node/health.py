"""What the answers of a container to its probes mean: that it is ready, or that it has to end.

Values only; times are arguments. The rules are the local engine's: dense probes while it starts, then one every
`interval`; ready with the first answer, not ready after `retries` misses in a row, and dead after many more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

from shoal.core.liveness import restarts_after

_DENSEST_S = 0.1
_SHARE_OF_AGE = 0.02


@dataclass(frozen=True, slots=True)
class Check:
    """How one container is asked. Without `path` a TCP connection is enough; `grace_s` is what it has to end in when it
    is dead, before SIGKILL."""

    port: int
    path: str | None = None
    interval_s: float = 2.0
    timeout_s: float = 2.0
    retries: int = 3
    start_period_s: float = 60.0
    grace_s: float = 10.0

    @classmethod
    def parse(cls, label: str) -> Check | None:
        """Of the label `shoal.health`; `None` where there is nothing to be asked. Raises ValueError."""
        if not label:
            return None
        try:
            values = json.loads(label)
            if (
                values.get("protocol") != "http"
            ):  # a gRPC server speaks no HTTP/1, so that a connection has to be enough
                values["path"] = None
            # A newer Shoal may have written more.
            return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{label!r} is no health check") from error


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of one container. `was_ready`: it answered once; `reason`: why it isn't ready, or why it has to end
    (`dead`)."""

    ready: bool = False
    was_ready: bool = False
    dead: bool = False
    misses: int = 0
    reason: str = ""


def after_probe(before: Condition, check: Check, miss: str | None, age_s: float) -> Condition:
    """The condition after one answer (`None`) or miss (why), of a container that runs for `age_s`."""
    if miss is None:
        return Condition(ready=True, was_ready=True)
    misses = before.misses + 1
    if before.was_ready:
        if misses < check.retries:
            return replace(before, misses=misses)
        dead, reason = misses >= restarts_after(check.retries), f"health check failed {misses} times in a row: {miss}"
    else:
        dead = misses >= check.retries and age_s > check.start_period_s
        late = f"does not answer {check.start_period_s:g}s after its start: {miss}"
        reason = late if dead else f"not ready yet: {miss}"
    return replace(before, ready=False, dead=dead, misses=misses, reason=reason)


def next_probe_in_s(condition: Condition, check: Check, age_s: float) -> float:
    """How long to wait before the next probe."""
    if condition.was_ready or age_s > check.start_period_s:
        return check.interval_s
    return min(max(_DENSEST_S, age_s * _SHARE_OF_AGE), check.interval_s)
