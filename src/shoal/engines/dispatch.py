"""Who carries an action out: the same in every engine that keeps an object for each agent, and in every one that asks
a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from shoal.core.action import Action, ActionFailure, Autoscale, EnsureRevision, Remove, RunJob, Scale
from shoal.engines.protocol import no_autoscaler
from shoal.errors import EngineError, EngineUnavailable, Outdated


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
        case Autoscale():
            raise no_autoscaler(action.agent)
        case RunJob():
            _among(known, action.agent).run(action)
        case Remove():
            if action.agent in known:
                known[action.agent].remove(action.revision)


async def act_in_order(
    actions: Sequence[Action], carry_out: Callable[[Action], Awaitable[None]]
) -> tuple[ActionFailure, ...]:
    """Goes on past what fails; what is decided again is told without a reason. Raises EngineUnavailable where the
    cluster is away."""
    failures: list[ActionFailure] = []
    for action in actions:
        try:
            await carry_out(action)
        except EngineUnavailable:
            raise
        except Outdated:
            failures.append(ActionFailure(action, ""))
        except EngineError as error:
            failures.append(ActionFailure(action, str(error)))
    return tuple(failures)


def _among(known: Mapping[str, AgentActions], name: str) -> AgentActions:
    if name not in known:
        raise EngineError(f"agents.{name}: not known; ensure a revision first")
    return known[name]
