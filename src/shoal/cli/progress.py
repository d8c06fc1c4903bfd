"""Progress of a command that waits, on stderr: a table that is drawn in place on a terminal, else a line a change."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from shoal.cli.output import say, terminal_width

if TYPE_CHECKING:
    from types import TracebackType

    from shoal.api.views import EventView, StatusView
    from shoal.cli.live import LiveText


class Progress:
    """Shows looks at the fleet until left."""

    def __init__(self) -> None:
        self._live: LiveText | None = None
        self._previous: StatusView | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from shoal.cli.live import LiveText

            self._live = self._stack.enter_context(LiveText(sys.stderr))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def last(self) -> StatusView | None:
        """The last look that was shown."""
        return self._previous

    def show(self, view: StatusView) -> None:
        """One look."""
        from shoal.cli.status_text import describe_changes, render_status

        if self._live is not None:
            self._live.show(render_status(view, terminal_width(sys.stderr)))
        else:
            for line in describe_changes(self._previous, view):
                click.echo(line, err=True)
        if self._previous is not None and self._previous.agents and not view.agents:
            self.tell("Agents are gone; gateway and broker are ending.")
        self._previous = view

    def tell(self, line: str) -> None:
        """A line that stays, above what is drawn."""
        if self._live is not None:
            self._live.above(line)
        else:
            say(line)

    def event(self, event: EventView) -> None:
        """Something that happened; without a terminal the changes have said it."""
        from shoal.cli.events import render_event

        if self._live is not None:
            self._live.above(render_event(event))
