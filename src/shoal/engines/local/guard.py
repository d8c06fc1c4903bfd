"""Limits that Shoal itself keeps: an agent that has too much memory, or too many processes, is killed and started anew.

Sampled, as a kernel's limit (a cgroup) needs rights that a user seldom has: what grows faster than a look every quarter
of a second is seen that much too late. Looks take at most a fiftieth of a core, so with very many processes there are
fewer of them.

Memory is what is resident, children included. Where the sum is too large for several processes, pages that they share
are counted once (PSS) before anybody is killed for them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from shoal.engines.local.census import Member, proportional_bytes
from shoal.engines.local.life import Life
from shoal.engines.local.machine import Machine

_COST_FACTOR = 50.0
_MIB = 2**20


async def keep_limits(machine: Machine, lives: Callable[[], Iterable[Life]]) -> None:
    """Looks for ever, and evicts what has too much."""
    pause_s = machine.timing.limits_s
    while True:
        await asyncio.sleep(pause_s)
        watched = {life.id: life for life in lives() if life.session is not None}
        if not watched:
            continue
        look = await machine.census.look()
        families = look.families({identity: (life.directory, life.session) for identity, life in watched.items()})
        for identity, members in families.items():
            machine.census.remember(watched[identity].directory, members)
        excesses = await asyncio.to_thread(_find_excesses, families, watched, machine.timing.most_tasks)
        for identity, (excess, members) in excesses.items():
            watched[identity].evict(excess, members)
        pause_s = max(machine.timing.limits_s, look.cost_s * _COST_FACTOR)


def _find_excesses(
    families: Mapping[str, Sequence[Member]], watched: Mapping[str, Life], most_tasks: int
) -> dict[str, tuple[str, Sequence[Member]]]:
    found: dict[str, tuple[str, Sequence[Member]]] = {}
    for identity, members in families.items():
        excess = find_excess(members, watched[identity].memory_limit_bytes, most_tasks)
        if excess is not None:
            found[identity] = excess, members
    return found


def find_excess(members: Sequence[Member], memory_limit_bytes: int | None, most_tasks: int) -> str | None:
    """What a family has too much of, as a reason; `None` if it keeps within its limits."""
    tasks = sum(member.threads for member in members)
    if tasks > most_tasks:
        return f"too many processes: {tasks} processes and threads, limit {most_tasks}"
    if memory_limit_bytes is None or sum(member.resident_bytes for member in members) <= memory_limit_bytes:
        return None
    used = sum(_fair_bytes(member) for member in members) if len(members) > 1 else members[0].resident_bytes
    if used <= memory_limit_bytes:
        return None
    return f"out of memory: used {math.ceil(used / _MIB)} MiB, limit {_mib(memory_limit_bytes)} (resources.memory)"


def _fair_bytes(member: Member) -> int:
    fair = proportional_bytes(member.pid)
    return member.resident_bytes if fair is None else fair


def _mib(amount_bytes: int) -> str:
    return f"{amount_bytes / _MIB:.0f} MiB"
