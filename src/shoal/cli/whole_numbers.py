"""Whole numbers on the command line, refused in words that name no type of Python or click."""

from __future__ import annotations

from typing import Any

import click


class WholeNumber(click.IntRange):
    """One from `min` to `max`, each where it is given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            least = "" if self.min is None else f" from {self.min} on"
            expected = least if self.max is None else f" from {self.min} to {self.max}"
            self.fail(f"found {value!r}; expected a whole number{expected}", param, ctx)
