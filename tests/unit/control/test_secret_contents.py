"""Contents by their HMAC: kept apart, private, and gone when nothing names them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shoal.control.secret_contents import SecretContents


def test_a_content_comes_back_as_it_was_given(tmp_path: Path) -> None:
    """Text, bytes and newlines; only the owner may look, and the name says nothing without the key."""
    contents = SecretContents(tmp_path / "fleet")
    for content in (b"text", b"\0\xff\n", "schön\r\n".encode()):
        assert contents.get(contents.put(content)) == content
    files = [path for path in (tmp_path / "fleet").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "fleet" / "secrets").stat().st_mode) == 0o700
    assert SecretContents(tmp_path / "other").digest(b"text") != contents.digest(b"text")
    assert SecretContents(tmp_path / "fleet").digest(b"text") == contents.digest(b"text")


def test_what_nothing_names_goes_once_it_is_old(tmp_path: Path) -> None:
    """A young one may be about to be named."""
    contents = SecretContents(tmp_path, clock=lambda: 10_000.0)
    named, old, young, released = (contents.put(content) for content in (b"named", b"old", b"young", b"released"))
    for digest, age_s in ((named, 9000), (old, 9000), (young, 10)):
        os.utime(tmp_path / "secrets" / digest, (10_000 - age_s, 10_000 - age_s))
    contents.release(released)
    contents.prune({named})
    assert [contents.has(digest) for digest in (named, old, young, released)] == [True, False, True, False]
    contents.prune((), unnamed_s=0.0)
    os.utime(tmp_path, None)
    assert not contents.has(named)


def test_every_kept_secret_is_masked(tmp_path: Path) -> None:
    """As soon as it is kept, and not what is short."""
    contents = SecretContents(tmp_path)
    assert contents.mask("hunter2-one") == "hunter2-one"
    contents.put(b"hunter2")
    contents.put(b"true")
    assert contents.mask("it is hunter2, true") == "it is ***, true"
    contents.put(b"hunter2-one\nsecond line\n")
    assert contents.mask("hunter2-one | second line") == "*** | ***"
