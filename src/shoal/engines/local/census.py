"""Which processes belong to which replica, wherever they went.

A replica's processes are those of its leader's session, those that descend from one of them, and those whose
environment has the mark that the leader was started with: a child that calls setsid(2), even one that was orphaned on
purpose (a daemon), is still found, and who was once seen to belong to a replica does so until it ends. What isn't
found: a process that both cleared its environment and lost its parents before anybody looked (four times a second), or
under an earlier controller; and one that runs as a user whose environment we may not read.

One look at /proc serves all replicas, and a mark is read once for each process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "SHOAL_LIFE"
_MARK_BYTES = f"{MARK}=".encode()
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Member:
    """One process at the time of the look. `cpu_s` has that of ended children that were waited for."""

    pid: int
    started: str
    parent: int
    session: int
    threads: int
    cpu_s: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """All processes of the machine, and the directory of the life whose mark each has."""

    members: Mapping[int, Member]
    directories: Mapping[int, str]
    cost_s: float

    def family(self, directory: Path, session: int | None) -> list[Member]:
        """The processes of the life with this directory. `session`: its leader's; `None` where the leader's pid may be
        another's by now."""
        return self.families({"": (directory, session)}).get("", [])

    def families(self, wanted: Mapping[str, tuple[Path, int | None]]) -> dict[str, list[Member]]:
        """Those of many lives at once: by id, from each one's directory and session."""
        by_directory = {str(directory): identity for identity, (directory, _) in wanted.items()}
        by_session = {session: identity for identity, (_, session) in wanted.items() if session is not None}
        owners: dict[int, str | None] = {}
        found: dict[str, list[Member]] = {}
        for member in self.members.values():
            owner = self._owner(member, by_directory, by_session, owners)
            if owner is not None:
                found.setdefault(owner, []).append(member)
        return found

    def _owner(
        self,
        member: Member,
        by_directory: Mapping[str, str],
        by_session: Mapping[int, str],
        known: dict[int, str | None],
    ) -> str | None:
        """By its own mark or session, else its nearest ancestor's."""
        path: list[int] = []
        owner: str | None = None
        current: Member | None = member
        while current is not None and current.pid not in path:
            if current.pid in known:
                owner = known[current.pid]
                break
            path.append(current.pid)
            owner = by_session.get(current.session, by_directory.get(self.directories.get(current.pid, "")))
            if owner is not None:
                break
            current = self.members.get(current.parent)
        known.update(dict.fromkeys(path, owner))
        return owner


class Census:
    """Looks, one at a time; who asks while one is under way shares the next."""

    def __init__(self) -> None:
        self._marked: dict[tuple[int, str], str] = {}
        self._lock = asyncio.Lock()
        self._asked = 0
        self._began = 0
        self._latest: Look | None = None

    async def look(self) -> Look:
        """A look that began after the call."""
        self._asked += 1
        asked = self._asked
        async with self._lock:
            if self._latest is None or self._began < asked:
                self._began = self._asked
                self._latest = await asyncio.to_thread(self.look_now)
            return self._latest

    def remember(self, directory: Path, members: Iterable[Member]) -> None:
        """These belong to the life with this directory, whatever becomes of their parents."""
        for member in members:
            key = (member.pid, member.started)
            self._marked[key] = self._marked.get(key) or f"@{directory}"

    def look_now(self) -> Look:
        """The same at once, in this thread."""
        began = time.thread_time()
        members: dict[int, Member] = {}
        directories: dict[int, str] = {}
        marked: dict[tuple[int, str], str] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed, thousands of them
            if name.isdecimal() and (member := read_member(int(name))) is not None:
                members[member.pid] = member
                key = (member.pid, member.started)
                mark = self._marked.get(key)
                marked[key] = mark = read_mark(member.pid) if mark is None else mark
                if mark:
                    directories[member.pid] = mark.partition("@")[2]
        self._marked = marked
        return Look(members, directories, time.thread_time() - began)


def render_mark(kind: str, revision: str, directory: Path) -> str:
    """The value of `$SHOAL_LIFE`: enough to know a process again whose life's own file is lost."""
    return f"{kind}:{revision}@{directory}"


def read_mark(pid: int) -> str:
    """The mark in the environment that a process was started with; empty if it has none, or can't be read."""
    with contextlib.suppress(OSError):
        for entry in _read(f"/proc/{pid}/environ").split(b"\0"):
            if entry.startswith(_MARK_BYTES):
                return os.fsdecode(entry[len(_MARK_BYTES) :])
    return ""


def read_member(pid: int) -> Member | None:
    """What /proc says of a process now; `None` for none and for one that has ended."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold blanks and brackets
    if has_ended(fields):
        return None
    cpu_ticks = sum(int(field) for field in fields[11:15])
    return Member(
        pid, fields[19].decode(), int(fields[1]), int(fields[3]), int(fields[17]), cpu_ticks * _TICK_S,
        int(fields[21]) * _PAGE_BYTES,
    )  # fmt: skip


def has_ended(fields: Sequence[bytes]) -> bool:
    """By the fields of /proc/<pid>/stat from its state on. One whose first thread is a zombie while others still run
    has not: it holds its files, locks and ports until the last of them ends."""
    return fields[0] in {b"X", b"x"} or (fields[0] == b"Z" and int(fields[17]) <= 1)


def proportional_bytes(pid: int) -> int | None:
    """A process's resident memory, each shared page counted in part (PSS); `None` where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(handle, 64 * 1024):
            content += chunk
        return content
    finally:
        os.close(handle)
