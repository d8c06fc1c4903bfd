"""A base for Docker's own builds on the bed, whose containers reach no package index: pip, and wheels to install from.

With it the repository's Dockerfiles are built as people build them, but for their `BASE`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from testbed.archive import Image, Layer, render_image
from testbed.commands import BedError, run
from testbed.images import REPOSITORY, build_images
from testbed.layers import LayerCache, key_of
from testbed.lock import part_of_lock
from testbed.python_base import PACKAGES_PATH, PythonBase

_METADATA = re.compile(rf"{PACKAGES_PATH}/([^/]+)-[^-/]+\.dist-info/METADATA")
_TOOLS = ("uv",)
_PIP_SETTINGS = "[global]\nno-index = true\nfind-links = /wheels\n"
_UV_SETTINGS = 'no-index = true\nfind-links = ["/wheels"]\n'


def build_base(cache: Path) -> Image:
    """Makes it if it isn't there. Raises BedError where a wheel can't be had, or this Python has no pip."""
    layers = LayerCache(cache / "layers")
    base = PythonBase(cache, layers)
    needs = [image.layers[1] for image in build_images(cache).all()]
    lock = (REPOSITORY / "requirements.lock").read_text()
    wanted = part_of_lock(lock, {*_TOOLS, *(name for layer in needs for name in _packages_in(layer))})

    def fill(tree: Path) -> None:
        _copy_pip(tree / PACKAGES_PATH)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(wanted)
            file.flush()
            options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", tree / "wheels"]
            run([sys.executable, "-m", "pip", "download", *options, "--requirement", file.name], timeout_s=600)

    wheels = layers.get("build-base", key_of(base.layer.digest, wanted), fill)
    settings = layers.get("build-base-settings", key_of(_PIP_SETTINGS, _UV_SETTINGS), _write_settings)
    config = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["python"]}
    return render_image("shoal-testbed/build-base:latest", [base.layer, wheels, settings], config)


def _packages_in(layer: Layer) -> list[str]:
    with tarfile.open(layer.file) as content:
        return [found[1] for name in content.getnames() if (found := _METADATA.fullmatch(name))]


def _write_settings(tree: Path) -> None:
    (tree / "etc/uv").mkdir(parents=True)
    (tree / "etc/pip.conf").write_text(_PIP_SETTINGS)
    (tree / "etc/uv/uv.toml").write_text(_UV_SETTINGS)


def _copy_pip(packages: Path) -> None:
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise BedError("this Python has no pip, which a base for Docker's builds needs: python -m ensurepip")
    shutil.copytree(Path(spec.origin).parent, packages / "pip", ignore=shutil.ignore_patterns("__pycache__"))
