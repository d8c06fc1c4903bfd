"""What of Shoal's own on a Swarm does not run, and why: read from the tasks of its services. Pure.

Swarm says it of the tasks alone, and tries again for ever: that a port is taken is nobody's error to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import remedy_for
from shoal.engines.swarm.names import Role
from shoal.engines.swarm.read import BROKEN, epoch_s, task_labels

Json = Mapping[str, Any]

_CALLED: Mapping[str, str] = {Role.GATEWAY: "gateway", Role.NODE: "node agent", Role.BROKER: "broker"}
_RECENT_S = 10.0
_WISHED = frozenset(("running", "ready"))


def troubles_of(tasks: Iterable[Json], hosts: Mapping[str, str], now: float) -> tuple[str, ...]:
    """A line for each service and reason, with the nodes (`hosts`, by id) that it holds for. One that runs now is none,
    and one that starts neither, unless the one before ended a moment before `now` (epoch seconds)."""
    places: dict[tuple[str, str], list[Json]] = {}
    for task in tasks:
        called = _CALLED.get(names.role_of(task_labels(task)))
        if called is not None:
            node = "" if called == "broker" else task.get("NodeID", "")  # that one has a task in all
            places.setdefault((called, node), []).append(task)
    found: dict[tuple[str, str], list[str]] = {}
    for (called, _), history in sorted(places.items()):
        history.sort(key=lambda task: (task["CreatedAt"], task["ID"]), reverse=True)
        why = _why_not(history, now)
        if why:
            node = history[0].get("NodeID", "")
            found.setdefault((called, why), []).append(hosts.get(node, node))
    return tuple(_line(called, why, sorted(filter(None, nodes))) for (called, why), nodes in found.items())


def _why_not(history: list[Json], now: float) -> str:
    """Of one place's tasks, the newest first."""
    wished = [task for task in history if task["DesiredState"] in _WISHED]
    if not wished or wished[0]["Status"]["State"] == "running":
        return ""
    status = wished[0]["Status"]
    broken = next((task["Status"] for task in history if task["Status"]["State"] in BROKEN), None)
    if broken is not None and now - (epoch_s(broken.get("Timestamp")) or 0.0) > _RECENT_S:
        broken = None  # the image is pulled now that was not there, say
    told = status.get("Err") or (broken is not None and (broken.get("Err") or broken.get("Message"))) or ""
    return str(told).removeprefix("task: ")


def _line(called: str, why: str, nodes: list[str]) -> str:
    where = f" on {', '.join(nodes)}" if nodes else ""
    remedy = remedy_for(why)
    return f"the {called}{where} does not run: {why}{f' ({remedy})' if remedy else ''}"
