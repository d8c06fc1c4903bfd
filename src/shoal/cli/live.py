"""A text that is drawn over itself on a terminal. Lines above it stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType


class LiveText:
    """Shows the last text given, in place. `stream` must be a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> LiveText:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, text: str) -> None:
        """Draw the text (it may hold ANSI colours) over the last one."""
        from rich.text import Text

        self._live.update(Text.from_ansi(text, no_wrap=True, overflow="crop"), refresh=True)

    def above(self, line: str) -> None:
        """A line that stays, above the text."""
        from rich.text import Text

        self._console.print(Text.from_ansi(line), soft_wrap=True)
