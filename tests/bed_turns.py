"""Whose turn it is on a bed: tests use it side by side, in one run or several; one that breaks it is alone there."""

from __future__ import annotations

import contextlib
import fcntl
import functools
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

import pytest

from testbed.kubernetes.environment import bed_from_environment as kubernetes_bed
from testbed.swarm.bed import Bed
from testbed.swarm.environment import bed_from_environment as swarm_bed


class Turn:
    """This process's, on the bed of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bed: TextIO | None = None  # while it is this one's turn

    @contextlib.contextmanager
    def beside_others(self) -> Generator[None]:
        """Waits for who is alone there."""
        with (self._directory / "in-use").open("w") as self._bed:
            with self._door():
                fcntl.flock(self._bed, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """Within `beside_others`; waits for all who are there."""
        assert self._bed is not None
        fcntl.flock(self._bed, fcntl.LOCK_UN)  # two who want this would wait for each other
        with self._door():
            fcntl.flock(self._bed, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._bed, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _door(self) -> Generator[None]:
        """Who waits to be alone lets nobody in any more."""
        with (self._directory / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield


@functools.cache
def turn_on(bed: Bed) -> Turn:
    """Of a bed that is up."""
    return Turn(bed.directory)


@pytest.fixture(autouse=True)
def in_turn(request: pytest.FixtureRequest) -> Generator[None]:
    """Each test on a bed has its turn."""
    with contextlib.ExitStack() as turns:
        for need, find in (("swarm", swarm_bed), ("kubernetes", kubernetes_bed)):
            if request.node.get_closest_marker(need) and (bed := find()).nodes():
                turns.enter_context(turn_on(bed).beside_others())
        yield
