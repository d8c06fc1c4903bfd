"""Times on the command line: `--since` (a span back from now, a moment, or seconds of the epoch), and spans."""

from __future__ import annotations

import time
from datetime import datetime

import click


class Since(click.ParamType[float]):
    """An epoch second."""

    name = "WHEN"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`10m`, `2025-06-15T02:00` (local time unless it says otherwise) or `1750000000`."""
        from shoal.units import parse_duration_s

        text = str(value)
        try:
            number = float(text)
        except ValueError:
            pass
        else:
            return number if number >= 1e8 else time.time() - number
        try:
            return time.time() - parse_duration_s(text)
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(text).astimezone().timestamp()
        except ValueError:
            self.fail(
                f"{text!r} is no time; expected a span such as 10m, or a moment such as 2025-06-15T02:00", param, ctx
            )


class Span(click.ParamType[float]):
    """Seconds, from `90s` or `1h30m`."""

    name = "SPAN"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As durations in the file."""
        from shoal.units import parse_duration_s

        try:
            return parse_duration_s(value if isinstance(value, float) else str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


WAIT_TIMEOUT = click.option(
    "--wait-timeout", type=Span(), default="10m", show_default=True, help="How long it may take until all is settled."
)
