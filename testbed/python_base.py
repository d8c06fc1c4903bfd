"""The layer below every image: Debian's Python 3.11 and a small system around it, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from testbed.archive import Layer
from testbed.commands import run
from testbed.debian import Apt, unpack, versions
from testbed.layers import LayerCache, key_of

SUITE = "bookworm"
PYTHON = "python3.11"
PACKAGES_PATH = f"usr/local/lib/{PYTHON}/dist-packages"
USER_ID = 10_001  # who a container is, unless it is told otherwise

# What Python needs to run: no dpkg, no perl. libstdc++ and libgcc are for wheels.
_PACKAGES = (
    *("libc6", "libcrypt1", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libssl3", "libffi8", "libsqlite3-0"),
    *("liblzma5", "libbz2-1.0", "libuuid1", "libtirpc3", "libnsl2", "libdb5.3", "libreadline8", "libtinfo6"),
    *(
        "libncursesw6",
        "libgssapi-krb5-2",
        "libkrb5-3",
        "libk5crypto3",
        "libkrb5support0",
        "libcom-err2",
        "libkeyutils1",
    ),
    *(
        "busybox",
        "python3.11-minimal",
        "libpython3.11-minimal",
        "libpython3.11-stdlib",
        "ca-certificates",
        "media-types",
    ),
)
_NOT_NEEDED = (
    *("usr/share/pixmaps", "usr/share/applications", "usr/share/binfmts", "usr/share/debconf", "usr/share/perl5"),
    *("usr/share/initramfs-tools", "usr/lib/x86_64-linux-gnu/gconv"),
    *(f"usr/lib/{PYTHON}/{name}" for name in ("lib2to3", "pydoc_data", "test")),
)
_RECIPE = "1"  # another one when what is made of the packages changes


class PythonBase:
    """The unpacked tree, kept beside its layer: with its Python, code is compiled for the layers above."""

    def __init__(self, cache: Path, layers: LayerCache) -> None:
        """Makes it if it isn't there, which takes the network."""
        self._key = key_of(_RECIPE, SUITE, *_PACKAGES)
        self._tree = cache / f"python-{self._key[:12]}"
        if not self._tree.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix="python-") as scratch:
                tree = Path(scratch) / "tree"
                tree.mkdir()
                _fill(tree, Path(scratch) / "apt")
                _compile(tree, tree)
                tree.rename(self._tree)
        own = {"var/lib/shoal": USER_ID, "data": USER_ID}
        self.layer: Layer = layers.get("python", self._key, self._copy, own)

    def compile(self, tree: Path) -> None:
        """Compiles all Python code below a layer's tree, as the image has it: a read-only container can't."""
        _compile(self._tree, tree)

    def _copy(self, tree: Path) -> None:
        shutil.copytree(self._tree, tree, symlinks=True, dirs_exist_ok=True)


def _fill(tree: Path, scratch: Path) -> None:
    archives = Apt(SUITE, scratch).download(_PACKAGES)
    unpack(archives, tree)
    authorities = sorted((tree / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle = b"".join(path.read_bytes() for path in authorities)
    for name in (*_NOT_NEEDED, "usr/share/ca-certificates"):
        shutil.rmtree(tree / name, ignore_errors=True)
    for name in ("tmp", "proc", "sys", "dev", "run", "root", "data", "var/lib/shoal", "usr/local/bin", PACKAGES_PATH):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (tree / "etc/ssl/certs/ca-certificates.crt").write_bytes(bundle)
    (tree / "etc/packages.txt").write_text(versions(archives))
    (tree / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    nobody = "nobody:x:65534:65534::/:/bin/false\n"
    shoal = f"shoal:x:{USER_ID}:{USER_ID}::/var/lib/shoal:/bin/sh\n"
    (tree / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{shoal}{nobody}")
    (tree / "etc/group").write_text(f"root:x:0:\nshoal:x:{USER_ID}:\nnogroup:x:65534:\n")
    for name in ("python", "python3"):
        (tree / "usr/local/bin" / name).symlink_to(f"/usr/bin/{PYTHON}")
    _link_applets(tree)


def _link_applets(tree: Path) -> None:
    """`sh` and what people look around with, all by busybox."""
    for applet in run([*_loader(tree), tree / "bin/busybox", "--list"]).split():
        if not os.path.lexists(tree / "bin" / applet):
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "usr/bin/env").symlink_to("/bin/busybox")


def _compile(system: Path, tree: Path) -> None:
    """With the tree's own Python; the same code gives the same bytes, and nobody looks at times of files."""
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"]
    run(
        [*_loader(system), system / "usr/bin" / PYTHON, "-m", "compileall", *options, tree],
        timeout_s=300,
        env={"PYTHONHOME": str(system / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def _loader(system: Path) -> list[Path | str]:
    """Runs a program of the tree with the tree's own libraries."""
    libraries = ":".join(str(system / name / "x86_64-linux-gnu") for name in ("lib", "usr/lib"))
    return [system / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--library-path", libraries]
