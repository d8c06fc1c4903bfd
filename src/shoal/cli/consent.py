"""Asking a person before something is gone for good."""

from __future__ import annotations

import sys

import click

from shoal.errors import ShoalError


def ask_before_loss(loss: str, question: str) -> None:
    """As `ask`, before what is gone for good afterwards. `loss` says what that is, for who has no terminal: nobody can
    be asked there, and that is no yes."""
    if not sys.stdin.isatty():
        raise ShoalError(f"{loss}, and nobody is here to ask; add --yes")
    ask(question)


def ask(question: str) -> None:
    """Returns where the answer is yes. Raises ShoalError where it is no: nothing has been done by then."""
    if not click.confirm(question, err=True):
        raise ShoalError("nothing was done, as the answer was no")
