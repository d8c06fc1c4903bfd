"""What secrets hold, in a place of their own: beside the state, and never in it.

A content is kept by its HMAC, under a key that never leaves the fleet's directory. The HMAC stands where a content
must not (revisions, records): equal contents have equal ones, so that nothing restarts for them, and without the key
nobody can try out what might be behind one.

    digest.key             32 random bytes, made with the first secret
    secrets/<hmac>         one content, as it was given; never changed, only removed

Files are the user's own (0600 in 0700) and not encrypted: who can read them can read the agents' memory too.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from shoal.core.masking import Mask
from shoal.errors import StoreError

KEY_FILE = "digest.key"
FOLDER = "secrets"
KEPT_UNNAMED_S = 3600.0  # a content is stored before the generation that names it


class SecretContents:
    """The contents of one fleet's secrets. `directory` is the fleet's; nothing is made in it before the first `put`."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._key_path = directory / KEY_FILE
        self._folder = directory / FOLDER
        self._clock = clock
        self._mask = (0, Mask(()))

    def digest(self, content: bytes) -> str:
        """The HMAC that the content has in this fleet. Raises StoreError."""
        return hmac.new(self._key(), content, hashlib.sha256).hexdigest()

    def put(self, content: bytes) -> str:
        """Keeps the content, and gives its HMAC. Raises StoreError."""
        digest = self.digest(content)
        path = self._folder / digest
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.is_file() and path.read_bytes() == content:
                now = self._clock()
                os.utime(path, (now, now))  # it is wanted anew
            else:
                _write_whole(path, content)
        except OSError as error:
            raise StoreError(f"{self._folder}: a secret can't be stored: {error.strerror or error}") from error
        return digest

    def has(self, digest: str) -> bool:
        """Whether the content of this HMAC is kept."""
        return bool(digest) and (self._folder / digest).is_file()

    def get(self, digest: str) -> bytes | None:
        """The content of this HMAC; `None` if it is not kept. Raises StoreError."""
        if not digest:
            return None
        try:
            return (self._folder / digest).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self._folder}: a secret can't be read: {error.strerror or error}") from error

    def prune(self, kept: Collection[str], unnamed_s: float = KEPT_UNNAMED_S) -> None:
        """Removes contents that none of these HMACs names, those aside that are younger than `unnamed_s`: somebody
        may be about to store what names them."""
        for path in self._files():
            with contextlib.suppress(OSError):
                if path.name not in kept and path.stat().st_mtime <= self._clock() - unnamed_s:
                    path.unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # where nothing is left in it

    def release(self, digest: str) -> None:
        """The next `prune` may remove this one, however young it is."""
        with contextlib.suppress(OSError):
            os.utime(self._folder / digest, (0, 0))

    def mask(self, text: str) -> str:
        """The text without what any kept secret holds, as `shoal.core.masking` says."""
        try:
            version = self._folder.stat().st_mtime_ns
        except OSError:
            return text
        if self._mask[0] != version:
            contents: list[bytes] = []
            for path in self._files():
                with contextlib.suppress(OSError):
                    contents.append(path.read_bytes())
            self._mask = (version, Mask(contents))
        return self._mask[1].apply(text)

    def _files(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.is_file()]
        except OSError:
            return []

    def _key(self) -> bytes:
        try:
            if not self._key_path.exists():
                self._key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _make_key(self._key_path)
            return self._key_path.read_bytes()
        except OSError as error:
            raise StoreError(f"{self._key_path} can't be used: {error.strerror or error}") from error


def _make_key(path: Path) -> None:
    """Of several at once one wins, and all of them use its key."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    _write_whole(beside, os.urandom(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _write_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
