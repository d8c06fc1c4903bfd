"""Logs are kept small, whoever writes them."""

import os
from pathlib import Path

import pytest

from shoal.engines.local.logs import LogFile


def test_a_writer_that_is_faster_than_the_copy_is_not_chased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is copied, what comes meanwhile up to a limit, and then the file is emptied."""
    path = tmp_path / "stdout.log"
    path.write_bytes(b"old\n" * 1000)
    read, reads = os.read, 0

    def read_while_it_grows(handle: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert reads < 50, "the copy never ends"
        with path.open("ab") as writer:
            writer.write(b"new\n" * 100_000)
        return read(handle, size)

    monkeypatch.setattr(os, "read", read_while_it_grows)
    LogFile(tmp_path, "stdout").look(1.0, 2000, 3)
    copied = (tmp_path / "stdout.log.1").read_bytes()
    assert copied.startswith(b"old\n" * 1000 + b"new\n")
    assert len(copied) == 4000 + 1024 * 1024
    assert path.stat().st_size == 0
