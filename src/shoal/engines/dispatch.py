"""Who carries an action out: the same in every engine that keeps an object for each agent, and in every one that asks
a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from shoal.core.action import Action, ActionFailure, Autoscale, EnsureRevision, Remove, RunJob, Scale
from shoal.engines.protocol import no_autoscaler
from shoal.errors import EngineError, EngineUnavailable


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


async def act_side_by_side(
    actions: Sequence[Action], carry_out: Callable[[Action], Awaitable[None]], *, at_once: int
) -> tuple[ActionFailure, ...]:
    """Those of one agent in their order, `at_once` agents side by side; what fails of one stops no other. Raises
    EngineUnavailable after all, where the cluster was away for one of them."""
    by_agent: dict[str, list[Action]] = {}
    for action in actions:
        by_agent.setdefault(action.agent, []).append(action)
    failures: list[ActionFailure] = []
    away: list[EngineUnavailable] = []
    slots = asyncio.Semaphore(at_once)

    async def act_on(of_agent: Sequence[Action]) -> None:
        async with slots:
            for action in of_agent:
                try:
                    await carry_out(action)
                except EngineUnavailable as error:
                    away.append(error)
                except EngineError as error:
                    failures.append(ActionFailure(action, str(error)))

    async with asyncio.TaskGroup() as tasks:
        for of_agent in by_agent.values():
            tasks.create_task(act_on(of_agent))
    if away:
        raise away[0]
    return tuple(failures)


def _among(known: Mapping[str, AgentActions], name: str) -> AgentActions:
    if name not in known:
        raise EngineError(f"agents.{name}: not known; ensure a revision first")
    return known[name]
