"""Progress of a command that waits, on stderr: a table that is drawn in place on a terminal, else a line a change.

Should nobody read it any more, the command is told so and goes on: its work is not ended by what it says of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from shoal.cli.output import say, terminal_width

if TYPE_CHECKING:
    from types import TracebackType

    from shoal.api.views import EventView, StatusView
    from shoal.cli.live import LiveText


class Progress:
    """Shows looks at the fleet until left. `lost_reader` is called when nobody reads; without it that is an error."""

    def __init__(self, lost_reader: Callable[[], None] | None = None) -> None:
        self._live: LiveText | None = None
        self._previous: StatusView | None = None
        self._lost_reader = lost_reader
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from shoal.cli.live import LiveText

            with self._reader():
                self._live = self._stack.enter_context(LiveText(sys.stderr))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._reader():
            self._stack.__exit__(kind, error, trace)

    @property
    def last(self) -> StatusView | None:
        """The last look that was shown."""
        return self._previous

    def show(self, view: StatusView) -> None:
        """One look."""
        from shoal.cli.status_text import describe_changes, render_status

        with self._reader():
            if self._live is not None:
                self._live.show(render_status(view, terminal_width(sys.stderr)))
            else:
                for line in describe_changes(self._previous, view):
                    click.echo(line, err=True)
        if self._live is None and self._previous is not None and self._previous.agents and not view.agents:
            self.tell("Agents are gone; the gateway is ending, and the broker where there are queues.")
        self._previous = view

    def tell(self, line: str) -> None:
        """A line that stays, above what is drawn."""
        with self._reader():
            if self._live is not None:
                self._live.above(line)
            else:
                say(line)

    def event(self, event: EventView) -> None:
        """Something that happened; without a terminal the changes have said it."""
        from shoal.cli.events import render_event

        if self._live is not None:
            with self._reader():
                self._live.above(render_event(event))

    @contextmanager
    def _reader(self) -> Generator[None]:
        try:
            yield
        except OSError:
            if self._lost_reader is None:
                raise
            self._live = None
            self._lost_reader()
