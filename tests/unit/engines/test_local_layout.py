"""What must outlive a controller is written as a whole."""

import os
from pathlib import Path

import pytest

from shoal.engines.local.layout import append_line, write_whole


def test_what_the_disk_takes_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """write(2) may take less than it was given, and says how much."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, bytes(content)[:3]))
    write_whole(tmp_path / "state.json", b"0123456789")
    append_line(tmp_path / "lines", "first one")
    append_line(tmp_path / "lines", "second one")
    assert (tmp_path / "state.json").read_bytes() == b"0123456789"
    assert (tmp_path / "lines").read_text() == "first one\nsecond one\n"
