"""What replicas use, children included: one look at all processes for all replicas."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from shoal.core.signals import Usage

_SHORTEST_WINDOW_S = 0.05


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    cpu_s: float


class UsageMeter:
    """CPU is a rate between two calls, so that a replica is absent from the first that sees it. Memory is resident
    bytes, summed: pages that forked children share are counted for each."""

    def __init__(self) -> None:
        self._looks: dict[tuple[str, int], _Look] = {}

    def measure(self, sessions: Mapping[str, int], now: float) -> dict[str, Usage]:
        """Use by replica; `sessions` is the session of each."""
        members = _members(set(sessions.values()))
        looks: dict[tuple[str, int], _Look] = {}
        usage: dict[str, Usage] = {}
        for replica, session in sessions.items():
            measured = _sum(members.get(session, []))
            if measured is None:
                continue
            cpu_s, memory_bytes = measured
            before = self._looks.get((replica, session))
            looks[replica, session] = _Look(now, cpu_s)
            if before is None:
                continue
            window_s = now - before.at
            if window_s < _SHORTEST_WINDOW_S:
                looks[replica, session] = before
                window_s = max(window_s, 1e-3)
            # A child whose parent never waited for it takes its time with it: not less than nothing.
            cores = max(0.0, cpu_s - before.cpu_s) / window_s
            usage[replica] = Usage(cores, memory_bytes, now, window_s)
        self._looks = looks
        return usage


def _members(sessions: set[int]) -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            session = os.getsid(pid)
            if session in sessions:
                members.setdefault(session, []).append(pid)
    return members


def _sum(pids: list[int]) -> tuple[float, int] | None:
    """CPU seconds, those of ended children included, and resident bytes; `None` if nothing could be measured."""
    cpu_s, memory_bytes, seen = 0.0, 0, False
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                memory_bytes += process.memory_info().rss
            cpu_s += times.user + times.system
            cpu_s += float(getattr(times, "children_user", 0.0)) + float(getattr(times, "children_system", 0.0))
            seen = True
    return (cpu_s, memory_bytes) if seen else None
