"""Nodes become one Swarm."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.commands import on_each, until
from testbed.swarm.bed import Node, Shape
from testbed.swarm.engine_api import NoAnswer, Refused, call

_PORT = 2377
_NANOSECONDS = 1_000_000_000


def form(nodes: Sequence[Node], shape: Shape) -> None:
    """The first `shape.managers` of them are managers. Who is in a Swarm already stays as it is.

    Raises BedError where not all are ready within a minute.
    """
    first, *others = nodes
    if not _in_swarm(first):
        call(first, "POST", "/swarm/init", _addresses(first) | {"Spec": _spec(shape)})
    tokens: dict[str, str] = until(
        lambda: call(first, "GET", "/swarm")["JoinTokens"],
        "the Swarm's first manager",
        timeout_s=60,
        errors=(NoAnswer, Refused),
    )
    managers, workers = others[: shape.managers - 1], others[shape.managers - 1 :]
    for node in managers:  # one after the other: the quorum changes its members one at a time
        _join(node, first, tokens["Manager"])
    on_each(workers, lambda node: _join(node, first, tokens["Worker"]))
    until(
        lambda: _ready(first) >= len(nodes),
        f"{len(nodes)} nodes to be ready",
        timeout_s=60,
        errors=(NoAnswer, Refused),
    )


def _spec(shape: Shape) -> dict[str, dict[str, int]]:
    return {
        "Dispatcher": {"HeartbeatPeriod": round(shape.heartbeat_s * _NANOSECONDS)},
        "Orchestration": {"TaskHistoryRetentionLimit": 5},
    }


def _join(node: Node, first: Node, token: str) -> None:
    if not _in_swarm(node):
        where = {"RemoteAddrs": [f"{first.address}:{_PORT}"], "JoinToken": token}
        call(node, "POST", "/swarm/join", _addresses(node) | where, timeout_s=60)


def _addresses(node: Node) -> dict[str, object]:
    return {
        "ListenAddr": f"{node.address}:{_PORT}",
        "AdvertiseAddr": node.address,
        "DataPathAddr": node.address,
    }


def _in_swarm(node: Node) -> bool:
    return call(node, "GET", "/info")["Swarm"]["LocalNodeState"] not in ("inactive", "error")


def _ready(manager: Node) -> int:
    return sum(node["Status"]["State"] == "ready" for node in call(manager, "GET", "/nodes"))
