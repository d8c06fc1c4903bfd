"""Logs are kept small, whoever writes them."""

import os
from pathlib import Path

import pytest

from shoal.engines.local.log_reading import read_logs
from shoal.engines.local.logs import LogFile, LogPair


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


def _write(directory: Path, stream: str, written: list[tuple[str, float]], *, last_at: float) -> None:
    """Lines and the times of the notes after them; 0 is an unknown one."""
    directory.mkdir(exist_ok=True)
    size, marks = 0, ""
    for text, at in written:
        size += len(text) + 1
        marks += f"{size} {at}\n" if at >= 0 else ""
    (directory / f"{stream}.log").write_text("".join(f"{text}\n" for text, _ in written))
    (directory / f"{stream}.marks").write_text(marks)
    os.utime(directory / f"{stream}.log", (last_at, last_at))


def test_lines_of_unknown_time_stay_beside_their_neighbours(tmp_path: Path) -> None:
    """Whether nobody noted them at all, or only not yet; -1 is no note."""
    _write(tmp_path / "a-1", "stdout", [("unknown", 0.0), ("10", 10.0), ("away", 0.0), ("30", 30.0)], last_at=30.0)
    _write(tmp_path / "a-1", "stderr", [("12", 12.0), ("new", -1.0)], last_at=40.0)
    _write(tmp_path / "b-1", "stdout", [("20", 20.0), ("35", 35.0)], last_at=35.0)
    lines = list(read_logs({"a": [tmp_path / "a-1"], "b": [tmp_path / "b-1"]}, None, None))
    assert [line.text for line in lines] == ["unknown", "10", "12", "20", "away", "30", "35", "new"]
    assert [line.at for line in lines if line.text in {"unknown", "away", "new"}] == [None] * 3


def test_a_tail_counts_for_each_replica(tmp_path: Path) -> None:
    """Both streams of one together, so that one that writes much hides no other."""
    _write(tmp_path / "a-1", "stdout", [("1", 1.0), ("2", 2.0), ("4", 4.0)], last_at=4.0)
    _write(tmp_path / "a-1", "stderr", [("3", 3.0)], last_at=3.0)
    _write(tmp_path / "a-2", "stdout", [("0", 0.5)], last_at=0.5)
    paths = {"a": [tmp_path / "a-1", tmp_path / "a-2"]}
    assert [line.text for line in read_logs(paths, None, 2)] == ["0", "3", "4"]


def test_streams_stand_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    """A note has the time of the last write, not of the look, and lively files are looked at again soon."""
    pair = LogPair(tmp_path)
    for path, text, at in ((pair.stderr.path, "first", 10.0), (pair.stdout.path, "second", 10.4)):
        path.write_text(f"{text}\n")
        os.utime(path, (at, at))
    pair.look(11.0, 1000, 3)
    assert [(line.text, line.at) for line in read_logs({"a": [tmp_path]}, None, None)] == [
        ("first", 10.0),
        ("second", 10.4),
    ]
    with pair.stderr.path.open("a") as stderr:
        stderr.write("third\n")
    pair.look_if_lively(11.2)
    pair.look_if_lively(20.0)  # quiet since: left to the next look at all
    assert [line.at for line in read_logs({"a": [tmp_path]}, None, None)] == [10.0, 10.4, 11.2]
