"""Which method of an agent carries an action out: the same in every engine that keeps an object for each agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from shoal.core.action import Action, EnsureRevision, Remove, RunJob, Scale
from shoal.errors import EngineError


class AgentActions(Protocol):
    """One agent in an engine. Each may raise EngineError."""

    def ensure(self, action: EnsureRevision) -> None: ...

    def scale(self, action: Scale) -> None: ...

    def run(self, action: RunJob) -> None: ...

    def remove(self, revision: str | None) -> None: ...


def carry_out(action: Action, known: Mapping[str, AgentActions], make: Callable[[str], AgentActions]) -> None:
    """Hands the action to its agent among the `known` ones; only a revision may make one. Raises EngineError."""
    match action:
        case EnsureRevision():
            make(action.agent).ensure(action)
        case Scale():
            _among(known, action.agent).scale(action)
        case RunJob():
            _among(known, action.agent).run(action)
        case Remove():
            if action.agent in known:
                known[action.agent].remove(action.revision)


def _among(known: Mapping[str, AgentActions], name: str) -> AgentActions:
    if name not in known:
        raise EngineError(f"agents.{name}: not known; ensure a revision first")
    return known[name]
