"""When a job's runs are due."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from cronsim import CronSimError
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.schedule import CATCH_UP_LIMIT, due_fires, next_fire, retry_delay_s, run_id
from shoal.spec.model import Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(*parts: int, fold: int = 0) -> float:
    year, month, day, *clock = parts
    return datetime(year, month, day, *clock, tzinfo=BERLIN, fold=fold).timestamp()


def utc(*parts: int) -> float:
    year, month, day, *clock = parts
    return datetime(year, month, day, *clock, tzinfo=UTC).timestamp()


def fires(cron: str, start: float, until: float) -> list[float]:
    found: list[float] = []
    instant = next_fire(cron, "Europe/Berlin", start)
    while instant is not None and instant <= until:
        found.append(instant)
        instant = next_fire(cron, "Europe/Berlin", instant)
    return found


def test_the_next_run_is_in_the_schedules_zone() -> None:
    """02:00 in Berlin is 01:00 UTC in winter; the instant itself is not after itself."""
    assert next_fire("0 2 * * *", "Europe/Berlin", utc(2026, 1, 10)) == utc(2026, 1, 10, 1)
    assert next_fire("0 2 * * *", "Europe/Berlin", utc(2026, 1, 10, 1)) == utc(2026, 1, 11, 1)
    assert next_fire("0 2 * * *", "Europe/Berlin", utc(2026, 1, 10, 1) - 0.001) == utc(2026, 1, 10, 1)


def test_a_skipped_time_runs_when_the_clock_has_jumped() -> None:
    """On 29 March 2026 there is no 02:30 in Berlin: the run is at 03:00, once."""
    found = fires("30 2 * * *", berlin(2026, 3, 28, 12), berlin(2026, 3, 30, 12))
    assert found == [berlin(2026, 3, 29, 3), berlin(2026, 3, 30, 2, 30)]


def test_a_repeated_time_runs_once() -> None:
    """On 25 October 2026 02:30 comes twice in Berlin: the run is at the first."""
    found = fires("30 2 * * *", berlin(2026, 10, 24, 12), berlin(2026, 10, 26, 12))
    assert found == [berlin(2026, 10, 25, 2, 30), berlin(2026, 10, 26, 2, 30)]
    assert next_fire("30 2 * * *", "Europe/Berlin", berlin(2026, 10, 25, 2, 10, fold=1)) == berlin(2026, 10, 26, 2, 30)


def test_intervals_go_on_in_real_time() -> None:
    """Every 30 minutes stays every 30 minutes through both changes."""
    for day in ((2026, 3, 29), (2026, 10, 25)):
        found = fires("*/30 * * * *", berlin(*day), berlin(*day) + 6 * 3600)
        assert found == [berlin(*day) + 1800 * n for n in range(1, 13)]


def test_what_never_comes_is_none() -> None:
    """30 February with no weekday to match."""
    assert next_fire("0 0 31 6,9 1#5", "UTC", utc(2026, 1, 1)) is not None
    with pytest.raises(CronSimError):
        next_fire("0 0 30 2 *", "UTC", utc(2026, 1, 1))
    with pytest.raises(ZoneInfoNotFoundError):
        next_fire("0 0 * * *", "Mars/Olympus", utc(2026, 1, 1))


def test_a_new_job_has_missed_nothing() -> None:
    """Its first run is the next one; what it says to remember makes that one due then."""
    schedule = Schedule(cron="0 2 * * *", catch_up="all")
    first = due_fires("report", schedule, None, utc(2026, 1, 10, 12))
    assert (first.fires, first.due_at) == ((), utc(2026, 1, 11, 2))
    assert first.due_at is not None
    then = due_fires("report", schedule, first.last_fire_at, first.due_at)
    assert [fire.run_id for fire in then.fires] == ["report-20260111t020000z"]
    assert then.due_at == utc(2026, 1, 12, 2)


@pytest.mark.parametrize(
    ("catch_up", "late_s", "days"),
    [("none", 59, [4]), ("none", 61, []), ("one", 7200, [4]), ("all", 7200, [2, 3, 4])],
)
def test_missed_runs_are_caught_up_as_told(catch_up: str, late_s: float, days: list[int]) -> None:
    """Three runs missed: none but a late one, the newest, or all in order; then nothing until the next."""
    schedule = Schedule.model_validate({"cron": "0 2 * * *", "catch_up": catch_up})
    now = utc(2026, 1, 4, 2) + late_s
    due = due_fires("report", schedule, utc(2026, 1, 1, 2), now)
    assert [fire.scheduled_at for fire in due.fires] == [utc(2026, 1, day, 2) for day in days]
    again = due_fires("report", schedule, due.last_fire_at, now + 1)
    assert (again.fires, again.due_at) == ((), utc(2026, 1, 5, 2))


def test_a_long_absence_catches_up_the_newest() -> None:
    """Of ten years of minutes the newest thousand, at once."""
    now = utc(2026, 1, 1)
    due = due_fires("report", Schedule(cron="* * * * *", catch_up="all"), utc(2016, 1, 1), now)
    assert len(due.fires) == CATCH_UP_LIMIT
    assert due.fires[-1].scheduled_at == now
    assert due.fires[0].scheduled_at == now - 60 * (CATCH_UP_LIMIT - 1)


def test_a_clock_set_back_repeats_no_run() -> None:
    """What was started stays started; the next is after it."""
    schedule = Schedule(cron="0 2 * * *", catch_up="all")
    due = due_fires("report", schedule, utc(2026, 1, 4, 2), utc(2026, 1, 3))
    assert (due.fires, due.due_at) == ((), utc(2026, 1, 5, 2))


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "15 1-3 * * 0", "0 0 1 * *", "*/20 2 * * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.integers(int(utc(2024, 1, 1)), int(utc(2027, 1, 1))),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=12),
)
def test_however_often_it_is_asked_each_run_starts_once(cron: str, zone: str, start: int, steps: list[int]) -> None:
    """With `all`, the runs of many calls are those of one call, in order, and none is before `due_at`."""
    schedule = Schedule(cron=cron, time_zone=zone, catch_up="all")
    now, last, due_at = float(start), float(start), float(start)
    found: list[float] = []
    for step in steps:
        now += step
        due = due_fires("a", schedule, last, now)
        assert not due.fires or due_at <= now
        found += [fire.scheduled_at for fire in due.fires]
        last = due.last_fire_at
        assert due.due_at is not None
        assert due.due_at > now
        due_at = due.due_at
    at_once = due_fires("a", schedule, float(start), now)
    assert found == [fire.scheduled_at for fire in at_once.fires]
    assert found == sorted(set(found))


def test_a_runs_id_names_its_time_in_utc() -> None:
    """So a second start of the same run is told by its name."""
    assert run_id("report", berlin(2026, 7, 1, 2)) == "report-20260701t000000z"


def test_a_failed_run_is_repeated_with_growing_pauses() -> None:
    """1 s, doubled, at most 6 min."""
    assert [retry_delay_s(n) for n in (1, 2, 3, 9, 10, 100)] == [1, 2, 4, 256, 360, 360]
