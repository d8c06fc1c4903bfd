"""Docker's image archives, as `docker save` writes them, made from trees of files without a daemon.

All that isn't content is the same everywhere (times, owners, order), so the same files have the same image ID on every
machine. A service that names its image by ID makes no node ask a registry for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Layer:
    """A tree of files as a tar; `digest` is of the tar, as `sha256:...`."""

    file: Path
    digest: str


@dataclass(frozen=True)
class Image:
    """Layers, the oldest first, and what a container of them starts with. `image_id` is the same wherever it's made."""

    tag: str
    about: bytes
    layers: tuple[Layer, ...]

    @property
    def image_id(self) -> str:
        return "sha256:" + hashlib.sha256(self.about).hexdigest()


def write_layer(tree: Path, file: Path, owners: Mapping[str, int]) -> Layer:
    """The tree as a layer in `file`: root's but for what `owners` says, by path, and all of time zero."""
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as layer:
        for path in _sorted_paths(tree):
            name = str(path.relative_to(tree))
            member = layer.gettarinfo(path, name)
            member.uid = member.gid = owners.get(name, 0)
            member.uname = member.gname = ""
            member.mtime = 0
            member.mode = _mode(member)
            if path.is_file() and not path.is_symlink():  # hard links too: which of them comes first is chance
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
                with path.open("rb") as content:
                    layer.addfile(member, content)
            else:
                layer.addfile(member)
    with file.open("rb") as written:
        return Layer(file, "sha256:" + hashlib.file_digest(written, "sha256").hexdigest())


def _mode(member: tarfile.TarInfo) -> int:
    """As it is everywhere, whatever the umask of who made the file."""
    if member.mode & 0o1000 or member.issym():
        return member.mode
    return 0o755 if member.isdir() or member.mode & 0o100 else 0o644


def _sorted_paths(tree: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(tree):
        found += [Path(folder) / name for name in (*folders, *files)]
    return sorted(found)


def render_image(tag: str, layers: Sequence[Layer], config: Mapping[str, Any]) -> Image:
    """An image of these layers; `config` is as Docker has it: `Env`, `Cmd`, `Entrypoint`, `User`, `WorkingDir`."""
    about = {
        "architecture": "amd64",
        "os": "linux",
        "created": _EPOCH,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created": _EPOCH, "created_by": "testbed"} for _ in layers],
    }
    return Image(tag, json.dumps(about, sort_keys=True).encode(), tuple(layers))


def write_archive(image: Image, file: Path, *, without: Collection[str] = ()) -> None:
    """The image as `docker load` takes it. The layers `without` are named but not there: for who has them already."""
    members = {layer.digest: f"{layer.digest.removeprefix('sha256:')}/layer.tar" for layer in image.layers}
    config = f"{image.image_id.removeprefix('sha256:')}.json"
    manifest = [{"Config": config, "RepoTags": [image.tag], "Layers": list(members.values())}]
    with tarfile.open(file, "w") as archive:
        for layer in image.layers:
            if layer.digest not in without:
                member = tarfile.TarInfo(members[layer.digest])
                member.size = layer.file.stat().st_size
                with layer.file.open("rb") as content:
                    archive.addfile(member, content)
        for name, data in ((config, image.about), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
