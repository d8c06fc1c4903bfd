"""Asking a person before something is gone for good."""

from __future__ import annotations

import click

from shoal.errors import ShoalError


def ask(question: str) -> None:
    """Returns where the answer is yes. Raises ShoalError where it is no: nothing has been done by then."""
    if not click.confirm(question, err=True):
        raise ShoalError("nothing was done, as the answer was no")
