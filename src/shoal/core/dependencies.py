"""What an agent waits for before its first start, and what goes before what it depends on when both go. Pure.

It is the first start alone that waits: an agent that was started once is started, scaled and changed whatever becomes
of those that it depends on.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.observed import AgentObserved
from shoal.core.rollout import is_available
from shoal.spec.model import Agent, Kind


def lets_start(spec: Agent, observed: AgentObserved, *, desired: int | None, pinned: bool, healthy: int | None) -> bool:
    """Whether those that depend on this agent may start: a replica of it is ready, and of a service the gateways find
    one healthy; or it sleeps, and wakes by itself when it is needed.

    `desired` is its count, `None` while nothing is decided yet; `healthy` is how many endpoints the gateways take for
    healthy (`None`: nobody knows).
    """
    if spec.kind is Kind.JOB:
        return True
    if desired == 0 and spec.scale.min == 0 and not pinned:
        return True
    if not any(is_available(replica) for replica in observed.replicas):
        return False
    return spec.kind is not Kind.SERVICE or bool(healthy)


def dependencies_first(agents: Mapping[str, Agent]) -> tuple[str, ...]:
    """The names, each after those that it depends on: so that within one pass nobody is started by what was true of
    another one before this pass woke it. Circles are errors of the file."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in agents and name not in ordered:
            for other in agents[name].depends_on:
                visit(other)
            ordered[name] = None

    for name in agents:
        visit(name)
    return tuple(ordered)
