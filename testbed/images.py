"""The images that tests run: Shoal's own, the test agents', the warehouse's; made without a daemon or a registry.

    python -m testbed.images          makes them, and prints their IDs

Each has three layers: Debian's Python, what the code needs (by requirements.lock, hashes included), and the code. Only
what changed is made anew, so a change of the code costs seconds.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.archive import Image, Layer, render_image
from testbed.commands import BedError
from testbed.layers import LayerCache, key_of
from testbed.lock import closure, part_of_lock
from testbed.python_base import PACKAGES_PATH, PYTHON, USER_ID, PythonBase
from testbed.swarm.environment import cache_directory

REPOSITORY = Path(__file__).parents[1]
_PLATFORM = "x86_64-manylinux_2_36"  # Debian 12
# What `shoal.sdk` imports, and so every agent that uses it.
_SDK_NEEDS = ("nats-py", "aiormq")
_WAREHOUSE_NEEDS = (*_SDK_NEEDS, "aiohttp")
_SDK = ("__init__.py", "sdk")
# Who asks for the packages in requirements.lock, by uv's option that installs them.
_LISTED_BY = {"--requirement": "shoal (pyproject.toml)", "--group": "shoal (pyproject.toml:example)"}


@dataclass(frozen=True)
class Images:
    """What tests name images by: made from this checkout, each at most once."""

    shoal: Image
    agents: Image
    warehouse: Image

    def all(self) -> tuple[Image, ...]:
        return (self.shoal, self.agents, self.warehouse)


def build_images(cache: Path) -> Images:
    """Makes what isn't there. Raises BedError where a package can't be had."""
    cache.mkdir(parents=True, exist_ok=True)
    layers = LayerCache(cache / "layers")
    base = PythonBase(cache, layers)
    packages = REPOSITORY / "src/shoal"
    project = REPOSITORY / "pyproject.toml"
    shoal = [packages]
    agents = [*(packages / name for name in _SDK), REPOSITORY / "tests/conformance/agents"]
    warehouse = [*(packages / name for name in _SDK), REPOSITORY / "examples/warehouse/warehouse"]
    build = _Builder(layers, base)
    return Images(
        shoal=build.image("shoal", (), shoal, "--requirement", str(project)),
        agents=build.image("agents", _SDK_NEEDS, agents),
        warehouse=build.image("warehouse", _WAREHOUSE_NEEDS, warehouse, "--group", f"{project}:example"),
    )


@dataclass(frozen=True)
class _Builder:
    layers: LayerCache
    base: PythonBase

    def image(self, name: str, needs: Sequence[str], code: Sequence[Path], *listed: str) -> Image:
        """With the packages `needs`, and those that the project lists, by uv's option for it."""
        layers = [self.base.layer, self._needs(name, needs, listed), self._code(name, code)]
        config = {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
            "Cmd": ["python"],
            "User": f"{USER_ID}:{USER_ID}",
            "WorkingDir": "/",
        }
        return render_image(f"shoal-testbed/{name}:latest", layers, config)

    def _needs(self, name: str, needs: Sequence[str], listed: Sequence[str]) -> Layer:
        lock = REPOSITORY / "requirements.lock"
        roots = [*needs, *(_LISTED_BY[option] for option in listed if option in _LISTED_BY)]
        part = part_of_lock(lock.read_text(), closure(lock.read_text(), roots))

        def fill(tree: Path) -> None:
            _install([*needs, *listed], lock, tree)
            self.base.compile(tree)

        return self.layers.get(f"{name}-needs", key_of(self.base.layer.digest, part), fill)

    def _code(self, name: str, code: Sequence[Path]) -> Layer:
        files = [file for path in code for file in _files_of(path)]
        key = key_of(self.base.layer.digest, *(str(path.relative_to(REPOSITORY)) for path in files), *map(_read, files))

        def fill(tree: Path) -> None:
            for file in files:
                place = tree / _place(file)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
            if name == "shoal":
                _write_script(tree / "usr/local/bin/shoal", "shoal.cli.__main__", "run")
            self.base.compile(tree)

        return self.layers.get(f"{name}-code", key, fill)


def _read(file: Path) -> bytes:
    return file.read_bytes()


def _files_of(path: Path) -> Iterable[Path]:
    found = [path] if path.is_file() else path.rglob("*")
    return sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)


def _place(file: Path) -> Path:
    """Where a file of the repository is in an image."""
    inside = file.relative_to(REPOSITORY)
    for folder in ("src", "examples/warehouse"):
        if inside.is_relative_to(folder):
            return Path(PACKAGES_PATH) / inside.relative_to(folder)
    return Path("agents") / inside.name


def _install(needs: Sequence[str], lock: Path, tree: Path) -> None:
    """Wheels for the image's Python and its system, not this one's, with the versions and hashes of the lock."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise BedError("uv: not found beside this Python; run it by `make testbed`, which installs it")
    packages = tree / PACKAGES_PATH
    options = [
        "--quiet",
        "--link-mode",
        "copy",
        "--only-binary",
        ":all:",
        "--verify-hashes",
        "--constraints",
        str(lock),
    ]
    target = ["--target", str(packages), "--python", sys.executable, "--python-version", PYTHON.removeprefix("python")]
    done = subprocess.run(
        [uv, "pip", "install", *options, *target, "--python-platform", _PLATFORM, *needs],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if done.returncode != 0:
        raise BedError(f"uv pip install {' '.join(needs)}: {done.stderr.strip()}")
    programs = tree / "usr/local/bin"
    programs.mkdir(parents=True)
    for program in (packages / "bin").glob("*"):  # scripts name this machine's Python: only real programs are kept
        if program.read_bytes()[:2] != b"#!":
            shutil.copy2(program, programs / program.name)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in (*packages.glob("*.dist-info/RECORD"), packages / ".lock"):
        record.unlink(missing_ok=True)
    for entries in packages.glob("*.dist-info/entry_points.txt"):
        scripts = configparser.ConfigParser(delimiters=("=",))
        scripts.read(entries)
        for name, target_of in scripts["console_scripts"].items() if "console_scripts" in scripts else ():
            module, _, function = target_of.partition(":")
            if not (programs / name).exists():
                _write_script(programs / name, module, function)


def _write_script(path: Path, module: str, function: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/usr/local/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n",
        encoding="utf-8",
    )
    path.chmod(0o755)


def main() -> int:
    """Makes them all; one line an image."""
    try:
        images = build_images(cache_directory())
    except BedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for image in images.all():
        megabytes = sum(layer.file.stat().st_size for layer in image.layers) / 1e6
        print(f"{image.tag}  {image.image_id}  {megabytes:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
