"""What the parts of a fleet may be together: names that must exist, routes that must not meet, one kind an agent."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping

from shoal.spec.agent_checks import (
    NAME,
    NAME_RULE,
    QUEUE,
    QUEUE_RULE,
    SECRET,
    SECRET_RULE,
    Known,
    check_agent,
    warn_of_agent,
)
from shoal.spec.broker_checks import check_broker
from shoal.spec.cycles import find_cycles
from shoal.spec.model import Agent, Broker, Fleet, Queue, Secret
from shoal.spec.nodes import Loc
from shoal.spec.registries import check_registry, warn_of_registries
from shoal.spec.suggestions import did_you_mean
from shoal.spec.validation import Draft, Finding
from shoal.spec.values import shown
from shoal.spec.volumes import Volume, parse_volume

MAIN = "main"
NODE_PORTS = range(30000, 32768)  # of a Kubernetes, by default
_OF_ENGINES = {"docker_context": "swarm", "context": "kubernetes", "namespace": "kubernetes"}


def check_draft(draft: Draft) -> Iterator[Finding]:
    """Everything that is wrong between values that are right one by one."""
    known = _known(draft)
    for name, agent in draft.agents.items():
        broken = draft.broken.get(name, frozenset())
        for finding in check_agent(name, agent, known):
            about = finding.about or tuple(str(key) for key in finding.loc[2:3])
            if broken.isdisjoint(about):
                yield finding
    yield from _names(draft)
    yield from _queues(draft)
    yield from _secrets(draft)
    yield from _routes(draft)
    yield from _cycles(draft)
    yield from _volumes(draft)
    yield from _bind(draft)
    yield from _brokers(draft)
    for name, registry in draft.registries.items():
        yield from check_registry(name, registry)
    yield from _keys_of_engines(draft)


def warn_of_draft(draft: Draft) -> Iterator[Finding]:
    """What is not wrong, but hardly meant. Asked only where nothing is wrong."""
    for name, agent in draft.agents.items():
        yield from warn_of_agent(name, agent)
    used = {secret.name for agent in draft.agents.values() for secret in agent.secrets}
    used |= {broker.secret for broker in draft.brokers.values() if broker.secret is not None}
    used |= {registry.secret for registry in draft.registries.values()}
    for name in draft.secrets:
        if name not in used:
            remedy = did_you_mean(name, used) or f"add it to the `secrets` of one: secrets: [{name}]"
            yield Finding(("secrets", name), f"no agent has the secret {name}", remedy, key=True)
    images = [agent.image for agent in draft.agents.values() if agent.image is not None]
    own = [image for engine in ("swarm", "kubernetes") if (image := draft.rest.get(engine, {}).get("image"))]
    yield from warn_of_registries(draft.registries, [*images, *own])
    yield from _node_port(draft)
    consumed = {agent.queue for agent in draft.agents.values()}
    for name, agent in draft.agents.items():
        for index, queue in enumerate(agent.publishes):
            if queue not in consumed and queue not in draft.queues:
                remedy = did_you_mean(queue, [name for name in consumed if name])
                message = f"nobody takes tasks from the queue {queue}, and it is not under `queues`"
                yield Finding(("agents", name, "publishes", index), message, remedy)


def _node_port(draft: Draft) -> Iterator[Finding]:
    """Which ports a cluster gives is asked of nobody: its API refuses another one in earnest alone."""
    options = draft.rest.get("kubernetes", {})
    port = options.get("node_port")
    used = draft.rest.get("engine") == "kubernetes" and options.get("service", "ClusterIP") != "ClusterIP"
    if used and isinstance(port, int) and port not in NODE_PORTS:
        usual = f"{NODE_PORTS[0]} to {NODE_PORTS[-1]}"
        message = f"found {port}; a cluster gives {usual}, and refuses any other port where it was not set up otherwise"
        yield Finding(("kubernetes", "node_port"), message, "take one of these, or leave it out to be given one")


def finished(draft: Draft) -> Fleet:
    """The fleet, with queues and the broker `main` that are used without being written."""
    queues = dict(draft.queues)
    for agent in draft.agents.values():
        for name in (*([agent.queue] if agent.queue else []), *agent.publishes):
            queues.setdefault(name, Queue())
    brokers = dict(draft.brokers)
    if any(queue.broker == MAIN for queue in queues.values()):
        brokers.setdefault(MAIN, Broker())
    agents = {name: with_credentials(agent, queues, brokers) for name, agent in draft.agents.items()}
    blocks = {"agents": agents, "queues": queues, "brokers": brokers, "external": draft.external}
    return Fleet.model_validate({**draft.rest, **blocks, "registries": draft.registries, "secrets": draft.secrets})


def with_credentials(agent: Agent, queues: Mapping[str, Queue], brokers: Mapping[str, Broker]) -> Agent:
    """The agent with the secrets that open the brokers of its queues, as files like any other secret."""
    used = (*([agent.queue] if agent.queue else []), *agent.publishes)
    needed = dict.fromkeys(
        broker.secret for name in used if (broker := brokers.get(queues[name].broker)) and broker.secret is not None
    )
    missing = [name for name in needed if name not in {secret.name for secret in agent.secrets}]
    if not missing:
        return agent
    return agent.model_copy(update={"secrets": (*agent.secrets, *(Secret(name=name) for name in missing))})


def _brokers(draft: Draft) -> Iterator[Finding]:
    engine = draft.rest.get("engine", Fleet.model_fields["engine"].default)
    for name, broker in draft.brokers.items():
        yield from check_broker(name, broker, str(engine))


def _known(draft: Draft) -> Known:
    agents = draft.names["agents"]
    unclear = {name for name in agents if name not in draft.agents or "port" in draft.broken.get(name, ())}
    services = {name for name, agent in draft.agents.items() if agent.port is not None}
    jobs = {name for name, agent in draft.agents.items() if agent.schedule is not None}
    return Known(agents, frozenset(services | unclear), frozenset(jobs), draft.names["external"])


def _names(draft: Draft) -> Iterator[Finding]:
    fleet = draft.rest.get("fleet")
    if isinstance(fleet, str) and not NAME.fullmatch(fleet):
        yield Finding(("fleet",), f"{shown(fleet)} can't be the name of a fleet", NAME_RULE)
    for name in sorted(draft.names["external"]):
        if not NAME.fullmatch(name):
            yield Finding(("external", name), f"{shown(name)} can't be the name of an external", NAME_RULE, key=True)
        if name in draft.names["agents"]:
            message = "there is an agent of that name, so `calls` could mean either"
            yield Finding(("external", name), message, "choose another name", key=True)
    for name in sorted(draft.names["brokers"]):
        if not NAME.fullmatch(name):
            yield Finding(("brokers", name), f"{shown(name)} can't be the name of a broker", NAME_RULE, key=True)


def _queues(draft: Draft) -> Iterator[Finding]:
    brokers = draft.names["brokers"] | {MAIN}
    for name, queue in draft.queues.items():
        if not QUEUE.fullmatch(name):
            yield Finding(("queues", name), f"{shown(name)} can't be the name of a queue", QUEUE_RULE, key=True)
        if queue.broker not in brokers:
            message = f"there is no broker {shown(queue.broker)}"
            yield Finding(("queues", name, "broker"), message, did_you_mean(queue.broker, brokers))
    used: dict[str, tuple[str, Loc]] = {}
    for name, loc in _used_queues(draft):
        variable = name.upper().replace("-", "_")
        other, _ = used.setdefault(variable, (name, loc))
        if other != name:
            message = f"{name} and {other} would share the variables SHOAL_QUEUE_{variable}_..."
            yield Finding(loc, message, "choose names that differ in more than - and _")


def _used_queues(draft: Draft) -> Iterator[tuple[str, Loc]]:
    for name in draft.queues:
        yield name, ("queues", name)
    for name, agent in draft.agents.items():
        if agent.queue is not None:
            yield agent.queue, ("agents", name, "queue")
        for index, queue in enumerate(agent.publishes):
            yield queue, ("agents", name, "publishes", index)


def _secrets(draft: Draft) -> Iterator[Finding]:
    for name, source in draft.secrets.items():
        if not SECRET.fullmatch(name):
            yield Finding(("secrets", name), f"{shown(name)} can't be the name of a secret", SECRET_RULE, key=True)
        given = [key for key in ("file", "environment", "command") if getattr(source, key) is not None]
        if len(given) != 1:
            found = " and ".join(f"`{key}`" for key in given) or "none of them"
            message = f"found {found}; expected exactly one of `file`, `environment` and `command`"
            yield Finding(("secrets", name), message, key=True)


def _routes(draft: Draft) -> Iterator[Finding]:
    """Two agents can't be public under the same host and path."""
    taken: dict[tuple[str | None, str], str] = {}
    for name, agent in draft.agents.items():
        if agent.public is None or (agent.public.path is None and agent.public.host is None):
            continue
        route = (agent.public.host, (agent.public.path or "/").rstrip("/") or "/")
        other = taken.setdefault(route, name)
        if other != name:
            where = f"{route[0] or ''}{route[1]}"
            yield Finding(("agents", name, "public"), f"the agent {other} is public under {where} already")


def _cycles(draft: Draft) -> Iterator[Finding]:
    """Agents that wait for each other would never start."""
    waiting = {name: agent.depends_on for name, agent in draft.agents.items() if agent.schedule is None}
    for cycle in find_cycles(waiting):
        *_, last, first = cycle
        here = ("agents", last, "depends_on", draft.agents[last].depends_on.index(first))
        message = f"{first} would wait for itself: {' -> '.join(cycle)}"
        yield Finding(here, message, "leave one of them out")


def _volumes(draft: Draft) -> Iterator[Finding]:
    """What each replica of a stateful agent has for itself can't be shared with another agent."""
    owners: dict[str, str] = {}
    for name, _, volume in _named_volumes(draft):
        if draft.agents[name].stateful:
            owners.setdefault(volume.source, name)
    for name, index, volume in _named_volumes(draft):
        owner = owners.get(volume.source)
        if owner is not None and not draft.agents[name].stateful:
            message = f"each replica of {owner}, which is stateful, has a volume {volume.source} of its own"
            yield Finding(("agents", name, "volumes", index), message, "choose another name for one that is shared")


def _named_volumes(draft: Draft) -> Iterator[tuple[str, int, Volume]]:
    for name, agent in draft.agents.items():
        for index, written in enumerate(agent.volumes):
            with contextlib.suppress(ValueError):  # said where the agent is judged
                volume = parse_volume(written)
                if not volume.bound:
                    yield name, index, volume


def _bind(draft: Draft) -> Iterator[Finding]:
    local = draft.rest.get("local")
    bind = local.get("bind") if isinstance(local, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - any data
    if isinstance(bind, str):
        try:
            ipaddress.ip_address(bind)
        except ValueError:
            yield Finding(("local", "bind"), f"found {shown(bind)}; expected an IP address, such as 127.0.0.1")


def _keys_of_engines(draft: Draft) -> Iterator[Finding]:
    """Where another engine finds its cluster says nothing beside this one: it would be taken for obeyed."""
    if ("engine",) in {finding.loc for finding in draft.findings}:
        return
    engine = draft.rest.get("engine", Fleet.model_fields["engine"].default)
    for key, owner in _OF_ENGINES.items():
        if draft.rest.get(key) is not None and engine != owner:
            message = f"only the engine {owner} has this, and the engine is {engine}"
            remedy = f"write it into the environment with `engine: {owner}`, or leave it out"
            yield Finding((key,), message, remedy, key=True)
