"""Several beds that start on a bare machine at once share what is built."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.kubernetes.binaries import program

_GO = """#!/bin/sh
if [ "$1" = version ]; then echo go version go1.99.0 linux/amd64; exit; fi
echo built >>{log}
while [ "$1" != -o ]; do shift; done
echo program >"$2"
"""


def test_what_several_want_at_once_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, go = tmp_path / "log", tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(_GO.format(log=log))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
    with ThreadPoolExecutor(4) as several:
        found = set(several.map(lambda _: program(tmp_path / "cache", "coredns"), range(4)))
    (file,) = found
    assert (file.read_text(), log.read_text()) == ("program\n", "built\n")
