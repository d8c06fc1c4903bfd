"""`shoal up AGENT...`: the fleet that runs, with some agents alone brought to what the file says."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from shoal.errors import PlanError, likely_meant
from shoal.spec.cycles import find_cycles
from shoal.spec.model import Agent, Fleet


def take_agents(old: Fleet | None, new: Fleet, names: Sequence[str]) -> Fleet:
    """The old fleet with the named agents as `new` has them, and with what these need and is not there yet.

    Raises PlanError for a name that `new` has not, and where agents would wait for each other.
    """
    unknown = [name for name in names if name not in new.agents]
    if unknown:
        said = (f"no agent {name!r} in the file; {likely_meant(name, new.agents)}" for name in unknown)
        raise PlanError("\n".join(said))
    if old is None:
        return new.model_copy(update={"agents": _with_needed(new, names, ())})
    taken = _with_needed(new, names, old.agents)
    agents = {**old.agents, **taken}
    for cycle in find_cycles({name: agent.depends_on for name, agent in agents.items()}):
        raise PlanError(
            f"agents.{cycle[0]}.depends_on: with {', '.join(names)} alone changed, agents would wait for each other: "
            f"{' -> '.join(cycle)} (change all of them: shoal up)"
        )
    touched = {queue for agent in taken.values() for queue in (agent.queue, *agent.publishes)}
    queues = {name: queue for name, queue in new.queues.items() if name in touched}
    called = {name for agent in taken.values() for name in agent.calls}
    registries = {**new.registries, **old.registries}
    needed = {secret.name for agent in taken.values() for secret in agent.secrets}
    needed |= {registry.secret for registry in registries.values()}
    secrets = {name: source for name, source in new.secrets.items() if name in needed}
    external = {name: each for name, each in new.external.items() if name in called}
    return old.model_copy(
        update={
            "agents": agents,
            "queues": {**old.queues, **queues},
            "brokers": {**new.brokers, **old.brokers},
            "external": {**old.external, **external},
            "registries": registries,
            "secrets": {**old.secrets, **secrets},
        }
    )


def _with_needed(new: Fleet, names: Sequence[str], there: Collection[str]) -> dict[str, Agent]:
    """The named agents, and whom they call and depend on, and so on, but for those that are there."""
    taken: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        taken.add(name)
        needed = (*new.agents[name].calls, *new.agents[name].depends_on)
        waiting += [each for each in needed if each in new.agents and each not in {*taken, *there}]
    return {name: agent for name, agent in new.agents.items() if name in taken}
