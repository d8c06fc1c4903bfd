"""`shoal up AGENT...`: the fleet that runs, with some agents alone brought to what the file says."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from shoal.errors import PlanError
from shoal.spec.model import Agent, Fleet


def take_agents(old: Fleet | None, new: Fleet, names: Sequence[str]) -> Fleet:
    """The old fleet with the named agents as `new` has them, and with what these need and is not there yet.

    Raises PlanError for a name that `new` has not.
    """
    unknown = [name for name in names if name not in new.agents]
    if unknown:
        raise PlanError(f"the file has no agent {', '.join(map(repr, unknown))}; it has {', '.join(new.agents)}")
    if old is None:
        return new.model_copy(update={"agents": _with_called(new, names, ())})
    taken = _with_called(new, names, old.agents)
    touched = {queue for agent in taken.values() for queue in (agent.queue, *agent.publishes)}
    queues = {name: queue for name, queue in new.queues.items() if name in touched}
    called = {name for agent in taken.values() for name in agent.calls}
    needed = {secret.name for agent in taken.values() for secret in agent.secrets}
    secrets = {name: source for name, source in new.secrets.items() if name in needed}
    external = {name: each for name, each in new.external.items() if name in called}
    return old.model_copy(
        update={
            "agents": {**old.agents, **taken},
            "queues": {**old.queues, **queues},
            "brokers": {**new.brokers, **old.brokers},
            "external": {**old.external, **external},
            "secrets": {**old.secrets, **secrets},
        }
    )


def _with_called(new: Fleet, names: Sequence[str], there: Collection[str]) -> dict[str, Agent]:
    """The named agents, and whom they call, and so on, but for those that are there."""
    taken: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        taken.add(name)
        waiting += [each for each in new.agents[name].calls if each in new.agents and each not in {*taken, *there}]
    return {name: agent for name, agent in new.agents.items() if name in taken}
