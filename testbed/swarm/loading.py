"""Images into nodes, without a registry: what a node has already isn't sent again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.archive import Image, write_archive
from testbed.commands import BedError, on_each
from testbed.swarm.bed import Node
from testbed.swarm.engine_api import Refused, call

_LOAD = "/images/load?quiet=1"
_LONGEST_S = 300.0


def load_images(nodes: Sequence[Node], images: Iterable[Image]) -> None:
    """Each image into each node; of layers only those that a node hasn't."""
    wanted = list(images)
    on_each(nodes, lambda node: [_load(node, image) for image in wanted])


def load_files(nodes: Sequence[Node], files: Iterable[Path]) -> None:
    """Archives, as `docker save` writes them, into each node."""
    wanted = list(files)
    on_each(nodes, lambda node: [call(node, "POST", _LOAD, archive=file, timeout_s=_LONGEST_S) for file in wanted])


def _load(node: Node, image: Image) -> None:
    if not _has(node, image):
        with tempfile.NamedTemporaryFile(dir=node.directory, suffix=".tar") as part:
            write_archive(image, Path(part.name), without=_layers_that_it_has(node, image))
            call(node, "POST", _LOAD, archive=Path(part.name), timeout_s=_LONGEST_S)
        if not _has(node, image):
            raise BedError(f"{node.name}: {image.tag} was loaded, but {image.image_id} isn't there")
    repository, _, name = image.tag.rpartition(":")
    call(node, "POST", f"/images/{image.image_id}/tag?repo={repository}&tag={name}")


def _has(node: Node, image: Image) -> bool:
    try:
        return bool(call(node, "GET", f"/images/{image.image_id}/json"))
    except Refused:
        return False


def _layers_that_it_has(node: Node, image: Image) -> set[str]:
    """The first layers that an image of the node begins with too: Docker knows a layer by all those below it."""
    ours = [layer.digest for layer in image.layers]
    common = 0
    for other in call(node, "GET", "/images/json?all=1"):
        theirs = call(node, "GET", f"/images/{other['Id']}/json")["RootFS"]["Layers"]
        same = [one == another for one, another in zip(ours, theirs, strict=False)]
        common = max(common, same.index(False) if False in same else len(same))
    return set(ours[:common])


def forget_untagged(node: Node) -> None:
    """Removes the images that later ones took the name of: only while nothing runs yet."""
    call(node, "POST", '/images/prune?filters={"dangling":["true"]}', timeout_s=_LONGEST_S)
