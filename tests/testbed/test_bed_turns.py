"""Tests take turns on a bed: side by side, but for one that breaks it."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from tests.bed_turns import Turn


def is_free(directory: Path, name: str) -> bool:
    """Whether somebody else would be let through now, beside others."""
    with (directory / name).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_side_by_side_but_for_one(tmp_path: Path) -> None:
    one, other = Turn(tmp_path), Turn(tmp_path)
    with one.beside_others(), other.beside_others():
        assert is_free(tmp_path, "door")
    with one.beside_others():
        with one.alone():
            assert not is_free(tmp_path, "door") and not is_free(tmp_path, "in-use")
        assert is_free(tmp_path, "door") and is_free(tmp_path, "in-use")
        with pytest.raises(BlockingIOError), (tmp_path / "in-use").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_who_want_to_be_alone_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """One after the other, however their turns overlap."""
    begin, there = threading.Barrier(2), list[int]()

    def work() -> None:
        turn = Turn(tmp_path)
        with turn.beside_others():
            begin.wait()
            with turn.alone():
                there.append(1)
                assert len(there) == 1
                there.pop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
