"""Layers by what they are made of: made once, kept in the cache, and thrown away when nobody has used them for long."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from testbed.archive import Layer, write_layer

_KEPT_S = 7 * 86_400.0


class LayerCache:
    """The layers in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def get(self, name: str, key: str, fill: Callable[[Path], None], owners: Mapping[str, int] | None = None) -> Layer:
        """The layer `name` of the content that `key` stands for; `fill` puts its files into an empty directory."""
        file = self._directory / f"{name}-{key[:20]}.tar"
        known = file.with_suffix(".digest")
        if known.exists() and file.exists():
            file.touch()
            return Layer(file, known.read_text())
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=f"{name}-") as scratch:
            tree = Path(scratch) / "tree"
            tree.mkdir()
            fill(tree)
            made = write_layer(tree, Path(scratch) / "layer.tar", owners or {})
            made.file.rename(file)
        known.write_text(made.digest)
        self._forget_old()
        return Layer(file, made.digest)

    def _forget_old(self) -> None:
        for file in self._directory.glob("*.tar"):
            if time.time() - file.stat().st_mtime > _KEPT_S:
                file.unlink()
                file.with_suffix(".digest").unlink(missing_ok=True)


def key_of(*parts: str | bytes | Path, files: Iterable[Path] = ()) -> str:
    """Of texts, and of files with their names."""
    digest = hashlib.sha256()
    for part in (*parts, *(piece for file in sorted(files) for piece in (str(file), file.read_bytes()))):
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()
