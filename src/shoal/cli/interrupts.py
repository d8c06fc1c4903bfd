"""Signals while a command must not be cut in two: noted from its first step on, acted upon where that is safe.

Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) are the same wish; the second one is to hurry. Where SIGHUP is
ignored from the start, as under `nohup`, it stays so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

_INTERRUPTED = 130  # as every shell has it for Ctrl-C


class Interrupts:
    """What was wished so far. `first` may be set by the command too, where it ends of its own accord."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._number: signal.Signals | None = None
        self._terminals = [number for number in (1, 2) if os.isatty(number)]

    @property
    def wished(self) -> bool:
        """Whether somebody wishes an end."""
        return self.first.is_set()

    def exit_code(self, otherwise: int) -> int:
        """130 after Ctrl-C; who ends a command by another signal is told how the command itself went."""
        return _INTERRUPTED if self._number is signal.SIGINT else otherwise

    def note(self, number: signal.Signals) -> None:
        """A signal came."""
        if number is signal.SIGHUP:
            write_nowhere(self._terminals)
        if self.first.is_set():
            self.second.set()
        else:
            self._number = number
            self.first.set()

    def lost_reader(self) -> None:
        """Nobody reads what the command says: it goes on without words, to its end."""
        write_nowhere((1, 2))
        self.first.set()


def write_nowhere(numbers: Sequence[int]) -> None:
    """Points stdout (1) or stderr (2) at nothing: writing to a terminal that is gone would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for number in numbers:
        os.dup2(nowhere, number)
    os.close(nowhere)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


@contextmanager
def noted_interrupts() -> Generator[Interrupts]:
    """Within, signals are noted instead of ending the command."""
    loop = asyncio.get_running_loop()
    interrupts = Interrupts()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, interrupts.note, number)
    try:
        yield interrupts
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
