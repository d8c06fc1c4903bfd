"""What clients may take of this machine through one Envoy, so that no flood of them ends what serves the others."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

_MOST_CONNECTIONS = 50_000
_LEAST_CONNECTIONS = 64
_OTHER_FILES = 1_000  # Envoy's own: listeners, replicas' health checks, logs
_LEAST_HEAP_BYTES = 512 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Limits:
    """`connections` of clients on the public listener at once; agents' own calls don't count. At `heap_bytes` Envoy
    answers new requests with 503 until it needs less."""

    connections: int
    heap_bytes: int


def machine_limits() -> Limits:
    """What this machine allows: two files a connection, as each may need one to a replica, and a quarter of the
    memory."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        files = 4 * _MOST_CONNECTIONS
    connections = min(_MOST_CONNECTIONS, max(_LEAST_CONNECTIONS, (files - _OTHER_FILES) // 2))
    return Limits(connections, max(_LEAST_HEAP_BYTES, _memory_bytes() // 4))


def allow_many_files() -> None:
    """Raises the soft limit of open files, of this process and of what it starts, as far as is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _memory_bytes() -> int:
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        return min(total, int(_CGROUP_LIMIT.read_text()))
    return total
