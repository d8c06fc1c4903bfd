"""A whole fleet as the objects of its first start: what `up` and the controller make, without a cluster and without
anything secret.

Each object is rendered by what renders it for them. The key by which contents of secrets are named is the cluster's
own, so that their Secrets have stand-ins for names here, and agents that use them stand-ins for revisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shoal.core.action import EnsureRevision
from shoal.core.broker import broker_users
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api.kinds import KINDS
from shoal.engines.kubernetes.names import Role, secret_name
from shoal.engines.kubernetes.render import (
    read_template,
    render_budget,
    render_governing,
    render_revision,
    render_stateful,
    role_of_pods,
    settings_of,
    started_with,
)
from shoal.engines.kubernetes.render_own import (
    ADMIN,
    JOIN,
    KEYS,
    Own,
    noted,
    render_accounts,
    render_broker,
    render_controller,
    render_gateway,
    render_gateway_budget,
    render_namespace,
)
from shoal.engines.kubernetes.render_pod import Object, PrivateVariable, private_variables
from shoal.engines.kubernetes.render_policies import render_policies
from shoal.engines.kubernetes.render_pull import PULL
from shoal.engines.kubernetes.stateful import Ordinals
from shoal.engines.kubernetes.wiring import environments_of, render_broker_secret, unknown_password
from shoal.errors import EngineError
from shoal.spec.model import Fleet

_UNKNOWN = "unknown"  # the HMAC of what a secret holds


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A Secret that is named and not rendered, and what it holds; `stand_in` where it will have another name."""

    name: str
    holds: str
    stand_in: bool = False


@dataclass(frozen=True, slots=True)
class RenderedFleet:
    """`objects` are in an order in which they can be made."""

    objects: Sequence[Object]
    left_out: Sequence[LeftOut]


def render_installed(own: Own, fleet: Fleet) -> list[Object]:
    """What `up` itself makes in the namespace, but for what is secret; all else is the controller's to make."""
    return [*render_accounts(own), *render_policies(own, fleet), render_gateway_budget(own), *render_controller(own)]


def render_fleet(fleet: Fleet, namespace: str) -> RenderedFleet:
    """Raises EngineError for what an agent can't have on Kubernetes."""
    own = Own.of(fleet, namespace)
    configuration = render_broker_secret(fleet, unknown_password)["metadata"]["name"] if broker_users(fleet) else None
    objects = [*render_installed(own, fleet), *render_gateway(own)]
    if configuration is not None:
        objects += render_broker(own, configuration)
    objects = [render_namespace(fleet.fleet, namespace), *map(noted, objects)]
    left_out = [*_own_secrets(fleet, configuration), *_agents_secrets(fleet)]
    for action in _revisions(fleet):
        private = private_variables(action.agent, action.environment, action.revision)
        left_out += [LeftOut(each.secret, f"how {action.agent} reaches the broker") for each in private[:1]]
        objects += _agent(fleet, action, private)
    once = {(item["kind"], item["metadata"]["name"]): item for item in objects}  # a volume may be of several agents
    order = list(KINDS)
    placed = sorted(once.values(), key=lambda item: order.index(item["kind"]))
    return RenderedFleet([_in_namespace(item, namespace) for item in placed], left_out)


def refused_agents(fleet: Fleet) -> Iterator[tuple[str, EngineError]]:
    """Agents that ask for what they can't have on Kubernetes, with what is said of the first of it."""
    for action in _revisions(fleet):
        private = private_variables(action.agent, action.environment, action.revision)
        try:
            list(_agent(fleet, action, private))
        except EngineError as error:
            yield action.agent, error


def _revisions(fleet: Fleet) -> Iterator[EnsureRevision]:
    digests = {secret.name: _UNKNOWN for agent in fleet.agents.values() for secret in agent.secrets}
    for name, told in environments_of(fleet).items():
        template = template_of(fleet, name, digests)
        yield EnsureRevision(name, revision_of(template), template, told)


def _agent(fleet: Fleet, action: EnsureRevision, private: Sequence[PrivateVariable]) -> Iterator[Object]:
    """With as many replicas as it has before anything is known of its demand."""
    name, count = action.agent, fleet.agents[action.agent].scale.min
    role = role_of_pods(action)
    *claims, made = render_revision(fleet.fleet, action, private, settings_of(fleet))
    yield from claims
    yield started_with(made, count)
    if role is Role.STATEFUL:
        yield render_governing(fleet.fleet, name, action.template.port)
        ordinals = Ordinals((action.revision,) * count, action.revision)
        yield render_stateful(fleet.fleet, name, read_template(made), ordinals)
    if role is not Role.RUN and count > 1:
        yield render_budget(fleet.fleet, name)


def _own_secrets(fleet: Fleet, configuration: str | None) -> Iterator[LeftOut]:
    yield LeftOut(KEYS, "the fleet's certificate authority, and what passwords are made of")
    yield LeftOut(JOIN, "by what gateways prove that they are the fleet's")
    yield LeftOut(ADMIN, "by what people do")
    if configuration is not None:
        yield LeftOut(configuration, "the broker's configuration with its users", stand_in=True)
    if fleet.registries:
        yield LeftOut(PULL, f"user and password of {', '.join(fleet.registries)}")


def _agents_secrets(fleet: Fleet) -> Iterator[LeftOut]:
    users: dict[str, list[str]] = {}
    for name, agent in fleet.agents.items():
        for secret in agent.secrets:
            users.setdefault(secret.name, []).append(name)
    for name, agents in sorted(users.items()):
        yield LeftOut(secret_name(name, _UNKNOWN), f"the key {name}: the secret of {', '.join(agents)}", stand_in=True)


def _in_namespace(item: Object, namespace: str) -> Object:
    if not KINDS[item["kind"]].namespaced:
        return item
    metadata: Mapping[str, object] = item["metadata"]
    return {**item, "metadata": {"name": metadata["name"], "namespace": namespace, **metadata}}
