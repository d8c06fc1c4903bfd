"""What the bed decides without acting: its names, its shape, its images' IDs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from testbed.archive import Image, Layer, render_image, write_archive, write_layer
from testbed.commands import BedError, run, until
from testbed.layers import LayerCache, key_of
from testbed.lock import closure, part_of_lock
from testbed.swarm.bed import Bed, Shape


@pytest.mark.parametrize(("name", "network"), [("Bed", "10.0.0"), ("toolongname", "10.0.0"), ("bed", "10.0.0.0/24")])
def test_a_bed_is_named_so_that_links_can_be(tmp_path: Path, name: str, network: str) -> None:
    """A name is part of a link's, which has 15 characters; a network is three numbers."""
    with pytest.raises(BedError, match="expected"):
        Bed(name, network, tmp_path)


def test_sockets_have_room_for_their_path() -> None:
    """A cache too deep for Unix sockets is told at once."""
    with pytest.raises(BedError, match="SHOAL_BED_CACHE"):
        Bed("bed", "10.0.0", Path("/") / ("x" * 100))


def test_a_shape_is_kept_and_forgotten(tmp_path: Path) -> None:
    """The bed that is up says what it was made of."""
    bed = Bed("bed", "10.0.0", tmp_path)
    shape = Shape(managers=3, workers=1, heartbeat_s=1.0, generic={"n4": ["gpu=GPU-1"]})
    assert (bed.shape.read(), bed.nodes()) == (None, [])
    bed.directory.mkdir(parents=True)
    bed.shape.write(shape)
    assert bed.shape.read() == shape
    assert [(node.name, node.address) for node in bed.nodes()][-1] == ("n4", "10.0.0.4")
    with pytest.raises(BedError, match="n5: no such node; expected one of n1, n2, n3, n4"):
        bed.node_named("n5")
    bed.shape.write(None)
    assert bed.shape.read() is None


def test_generic_resources_are_a_node_of_the_bed() -> None:
    """A slip in `--gres` is told."""
    with pytest.raises(BedError, match="n9: no such node"):
        Shape(generic={"n9": ["gpu=GPU-1"]})


def test_an_image_id_is_of_content_alone(tmp_path: Path) -> None:
    """The same files have the same ID, whenever and by whomever they were made."""
    digests: set[str] = set()
    for number, mode in enumerate((0o600, 0o644)):
        tree = tmp_path / str(number)
        (tree / "etc").mkdir(parents=True, mode=0o755 if number else 0o700)
        (tree / "etc/name").write_text("shoal")
        (tree / "etc/name").chmod(mode)
        (tree / "link").symlink_to("etc/name")
        digests.add(write_layer(tree, tmp_path / f"{number}.tar", {"etc": 7}).digest)
    assert len(digests) == 1
    with tarfile.open(tmp_path / "0.tar") as layer:
        assert [(member.name, member.uid, member.mtime) for member in layer][:2] == [("etc", 7, 0), ("etc/name", 0, 0)]


def test_an_archive_leaves_out_what_is_there_already(tmp_path: Path) -> None:
    """A layer that a node has is named in the archive, and not sent."""
    image = _image(tmp_path, "base", "code")
    write_archive(image, tmp_path / "image.tar", without={image.layers[0].digest})
    with tarfile.open(tmp_path / "image.tar") as archive:
        names = archive.getnames()
    assert [name for name in names if name.endswith("layer.tar")] == [f"{image.layers[1].digest[7:]}/layer.tar"]
    assert f"{image.image_id[7:]}.json" in names


def _image(folder: Path, *texts: str) -> Image:
    layers: list[Layer] = []
    for text in texts:
        tree = folder / text
        tree.mkdir()
        (tree / "file").write_text(text)
        layers.append(write_layer(tree, folder / f"{text}.tar", {}))
    return render_image("test:1", layers, {"Cmd": ["sh"]})


def test_a_layer_is_made_once(tmp_path: Path) -> None:
    """What has the same key is not made again."""
    cache = LayerCache(tmp_path)
    made: list[str] = []

    def fill(tree: Path) -> None:
        (tree / "file").write_text("x")
        made.append("x")

    assert cache.get("code", key_of("1"), fill) == cache.get("code", key_of("1"), fill)
    assert len(made) == 1
    cache.get("code", key_of("2"), fill)
    assert len(made) == 2


def test_keys_tell_parts_from_each_other() -> None:
    """Two texts are not one text."""
    assert key_of("ab", "c") != key_of("a", "bc")


def test_a_program_says_what_went_wrong() -> None:
    """Missing, failing and slow programs each have their words."""
    with pytest.raises(BedError, match=r"no such program \(apt-get install no-such-program\)"):
        run(["no-such-program"])
    with pytest.raises(BedError, match=r"exit code 3: broken"):
        run(["sh", "-c", "echo broken >&2; exit 3"])
    with pytest.raises(BedError, match=r"not done after 0\.1 s"):
        run(["sleep", "5"], timeout_s=0.1)


def test_waiting_ends() -> None:
    """Who waits in vain is told for what, and what was seen last."""

    def refuse() -> bool:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(BedError, match=r"waited 0 s for a daemon; last: nobody listens"):
        until(refuse, "a daemon", timeout_s=0, errors=(OSError,))


LOCK = """\
a-b==1 \\
    --hash=sha256:1
    # via c
c==2 ; sys_platform == 'linux' \\
    --hash=sha256:2
    # via
    #   shoal (pyproject.toml)
    #   d
d==3 \\
    --hash=sha256:3
    # via shoal (pyproject.toml:dev)
"""


def test_a_part_of_a_lock_file_keeps_its_hashes() -> None:
    """However a name is written; what isn't asked for is left out."""
    assert part_of_lock(LOCK, ["A_b"]) == "a-b==1 \\\n    --hash=sha256:1\n    # via c\n"


@pytest.mark.parametrize(
    ("root", "needed"),
    [("shoal (pyproject.toml)", {"c", "a-b"}), ("shoal (pyproject.toml:dev)", {"d", "c", "a-b"}), ("A.B", {"a-b"})],
)
def test_a_lock_file_says_who_needs_whom(root: str, needed: set[str]) -> None:
    """A layer is made anew when one of these changes, and not for any other."""
    assert closure(LOCK, [root]) == needed


def test_a_lock_file_that_has_nothing_is_told() -> None:
    """Else a layer would never be made anew."""
    with pytest.raises(BedError, match=r"requirements\.lock has no package for e; make it anew with: make lock"):
        closure(LOCK, ["e"])


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["status"], 3, "the bed is not up; start it with: python -m testbed.swarm up"),
        (["env", "n1"], 1, "error: n1: no such node; the bed is not up"),
        (["sh", "n1"], 1, "error: n1: no such node; the bed is not up"),
    ],
)
def test_verbs_say_that_there_is_no_bed(tmp_path: Path, words: list[str], exit_code: int, said: str) -> None:
    """Without a bed nothing is a traceback."""
    environment = {**os.environ, "SHOAL_BED_CACHE": str(tmp_path), "SHOAL_BED_NAME": "none"}
    command = [sys.executable, "-m", "testbed.swarm", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, (done.stdout + done.stderr).strip()) == (exit_code, said)
