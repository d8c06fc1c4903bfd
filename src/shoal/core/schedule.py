"""When a job's runs are due: cron in a time zone, runs missed, and when a failed run is repeated.

Instants are epoch seconds. Cron is as on Debian (five fields, or six with seconds first), read by `cronsim`: a run at
a fixed time that daylight saving skips starts when the clock has jumped, one that it repeats starts once; intervals
(a field that begins with `*`) go on in real time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from shoal.spec.model import Schedule

ON_TIME_S = 60.0  # a run that starts this late is late, not missed: what a restart or a takeover takes
CATCH_UP_LIMIT = 1000  # of a long absence the newest runs are caught up
# Kubernetes' jobs begin with 10 s and end with the same 6 min; at a laptop a person waits for the first repeat.
_RETRY_FIRST_S, _RETRY_LONGEST_S = 1.0, 360.0


@dataclass(frozen=True, slots=True)
class Fire:
    """One run to start: its id, which names the scheduled time so that it can't start twice, and that time."""

    run_id: str
    scheduled_at: float


@dataclass(frozen=True, slots=True)
class Fires:
    """What is due, oldest first. `last_fire_at` is to be remembered, `due_at` when to ask again (`None`: never)."""

    fires: tuple[Fire, ...]
    last_fire_at: float
    due_at: float | None


def run_id(agent: str, scheduled_at: float) -> str:
    """`agent-20260102t030405z`: the scheduled time in UTC, fit for a name on every engine."""
    return f"{agent}-{datetime.fromtimestamp(scheduled_at, UTC):%Y%m%dt%H%M%Sz}"


def next_fire(cron: str, time_zone: str, after: float) -> float | None:
    """The first scheduled instant later than `after`, `None` if there is none within 50 years.

    Raises CronSimError for a bad expression, ZoneInfoNotFoundError for a bad zone.
    """
    # Fires are at whole seconds, and without a field for them at whole minutes: what is asked often is looked up.
    grain = 60 if len(cron.split()) == 5 else 1
    return _next_fire(cron, time_zone, math.floor(after / grain) * grain)


@lru_cache(maxsize=4096)
def _next_fire(cron: str, time_zone: str, after: int) -> float | None:
    return next(_fires_after(cron, time_zone, after), None)


def _fires_after(cron: str, time_zone: str, after: float) -> Iterator[float]:
    for moment in CronSim(cron, datetime.fromtimestamp(math.floor(after), ZoneInfo(time_zone))):
        instant = moment.timestamp()
        if instant > after:  # in a repeated hour the wall clock alone would give what has been
            yield instant


def due_fires(agent: str, schedule: Schedule, last_fire_at: float | None, now: float) -> Fires:
    """The runs to start now, and when to ask next.

    `last_fire_at` is what the last call said to remember; `None` for a new job or a new schedule, which has missed
    nothing. Of several that are due `none` starts the newest if it is on time, `one` the newest, `all` every one
    (at most the newest `CATCH_UP_LIMIT`). Raises as `next_fire`.
    """
    if last_fire_at is None:
        return Fires((), now, next_fire(schedule.cron, schedule.time_zone, now))
    wanted = CATCH_UP_LIMIT if schedule.catch_up == "all" else 1
    instants = _newest_fires(schedule.cron, schedule.time_zone, last_fire_at, now, wanted)
    due_at = next_fire(schedule.cron, schedule.time_zone, max(now, last_fire_at))
    if not instants:
        return Fires((), last_fire_at, due_at)
    newest = instants[-1]
    if schedule.catch_up == "none" and now - newest > ON_TIME_S:
        instants = ()
    fires = tuple(Fire(run_id(agent, instant), instant) for instant in instants)
    return Fires(fires, newest, due_at)


def _newest_fires(cron: str, time_zone: str, after: float, until: float, count: int) -> tuple[float, ...]:
    """The newest `count` scheduled instants in (after, until], oldest first, looking back further step by step."""
    span = 60.0
    while True:
        start = max(after, until - span)
        found: list[float] = []
        for instant in _fires_after(cron, time_zone, start):
            if instant > until:
                break
            found.append(instant)
        if len(found) >= count or start == after or after >= until:
            return tuple(found[-count:])
        span *= 4


def retry_delay_s(failures: int) -> float:
    """How long after its `failures`-th failure (from 1) a run is repeated: 1 s, doubled each time, at most 6 min."""
    return min(_RETRY_LONGEST_S, _RETRY_FIRST_S * 2.0 ** min(failures - 1, 10))
