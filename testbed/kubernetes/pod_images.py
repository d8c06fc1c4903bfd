"""Images of one program each, which every node has: what holds a pod's namespaces, and CoreDNS."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from testbed.archive import Image, render_image
from testbed.kubernetes.bed import KubeBed
from testbed.kubernetes.binaries import program
from testbed.layers import LayerCache, key_of

PAUSE = "shoal-testbed/pause:1"
_COREDNS = "shoal-testbed/coredns:1"
_PAUSES = "trap 'exit 0' TERM INT; while :; do /busybox sleep 86400 & wait $!; done"


def node_images(bed: KubeBed, root: Path) -> list[Image]:
    """All of them. `root` is the nodes' file system, whose busybox pauses."""
    pauses = ["/busybox", "sh", "-c", _PAUSES]
    return [
        _image(bed, PAUSE, root / "usr/bin/busybox", pauses),
        _image(bed, _COREDNS, program(bed.cache, "coredns"), ["/coredns"]),
    ]


def _image(bed: KubeBed, tag: str, file: Path, entrypoint: list[str]) -> Image:
    def fill(tree: Path) -> None:
        shutil.copyfile(file, tree / file.name)
        (tree / file.name).chmod(0o755)

    layer = LayerCache(bed.cache / "layers").get(file.name, key_of(files=[file]), fill)
    config: dict[str, Any] = {"Entrypoint": entrypoint, "Env": ["PATH=/"]}
    return render_image(tag, [layer], config)
