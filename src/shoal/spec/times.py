"""Whether a cron expression and a time zone mean anything. The answers are remembered: a fleet has few of them."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from shoal.spec.suggestions import did_you_mean
from shoal.spec.values import shown

_LONGEST = 200  # characters of a cron expression


@cache
def check_cron(expression: str) -> tuple[str, str] | None:
    """What is wrong with the expression and what to do, or None."""
    fields = len(expression.split())
    if expression.startswith("@"):
        return f"found {shown(expression)}; expected five fields, such as `0 2 * * *`", ""
    if fields != 5 or len(expression) > _LONGEST:
        count = f"{fields} field{'' if fields == 1 else 's'}"
        expected = "five: minute, hour, day of month, month, day of week"
        return f"found {shown(expression)} with {count}; expected {expected}", ""
    try:
        CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001,RUF100 - only the expression counts
    except (CronSimError, ValueError, AssertionError) as error:
        return f"{shown(expression)} is not a cron expression: {str(error).lower() or 'malformed'}", ""
    return None


@cache
def check_time_zone(name: str) -> tuple[str, str] | None:
    """What is wrong with the name and what to do, or None."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones  # noqa: PLC0415 - reads hundreds of names, for this message alone

        return f"there is no time zone {shown(name)}", did_you_mean(name, available_timezones())
    return None
