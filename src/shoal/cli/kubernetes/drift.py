"""What somebody else changed of a fleet's objects in the cluster since Shoal wrote them: looked at for a plan.

Of agents the metadata are listed, which say who set what; an object is read only where somebody else did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal.core.action import EnsureRevision
from shoal.core.broker import broker_users
from shoal.core.drift import Drift
from shoal.core.ownership import is_native
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api.kinds import AUTOSCALER, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, STATEFUL_SET
from shoal.engines.kubernetes.applying import is_as_applied, list_own, name_of
from shoal.engines.kubernetes.drift import additions_of, drift_of, touched_by_others
from shoal.engines.kubernetes.names import BROKER, CONTROLLER, Role, labels_of
from shoal.engines.kubernetes.render import (
    read_template,
    render_budget,
    render_governing,
    render_revision,
    revision_name,
    settings_of,
)
from shoal.engines.kubernetes.render_autoscaler import render_autoscaler
from shoal.engines.kubernetes.render_fleet import render_installed
from shoal.engines.kubernetes.render_own import Own, noted, render_broker, render_gateway
from shoal.engines.kubernetes.render_pod import private_variables
from shoal.engines.kubernetes.wiring import environments_of

if TYPE_CHECKING:
    from shoal.control.store import StoredFleet
    from shoal.engines.kubernetes.api import Kind, Kubernetes
    from shoal.spec.model import Fleet

Object = Mapping[str, Any]


async def find_drift(kubernetes: Kubernetes, stored: StoredFleet) -> tuple[Drift, ...]:
    """Of Shoal's own objects, and of those that replicas of the stored revisions are made from. Raises EngineError."""
    assert stored.fleet is not None
    fleet = stored.fleet
    found = await asyncio.gather(
        _of_own(kubernetes, fleet), _of_agents(kubernetes, fleet, stored), _of_companions(kubernetes, fleet)
    )
    return tuple(sorted((each for drift in found for each in drift), key=lambda each: (each.where, each.path)))


async def _of_own(kubernetes: Kubernetes, fleet: Fleet) -> list[Drift]:
    own = Own.of(fleet, kubernetes.namespace)
    items = [*render_installed(own, fleet), *render_gateway(own)]
    if broker_users(fleet):
        broker = await kubernetes.find(STATEFUL_SET, BROKER)
        items += render_broker(own, _configuration(broker) if broker is not None else "")
    there = await list_own(kubernetes, fleet.fleet, items)
    if (DEPLOYMENT.name, CONTROLLER) not in there:
        return []  # `up` was never done with it, or `down` ended it
    found: list[Drift] = []
    for item in map(noted, items):
        as_it_is = there.get(name_of(item))
        if as_it_is is None:
            found.append(Drift(" ".join(name_of(item)), ""))
        elif is_as_applied(item, as_it_is):
            found += drift_of(item, as_it_is)
    return found


def _configuration(broker: Object) -> str:
    """Which Secret it is started with: what that is called is the controller's to know."""
    volumes: Iterable[Mapping[str, Any]] = broker["spec"]["template"]["spec"]["volumes"]
    return next((str(each["secret"]["secretName"]) for each in volumes if each["name"] == "configuration"), "")


async def _of_agents(kubernetes: Kubernetes, fleet: Fleet, stored: StoredFleet) -> list[Drift]:
    touched = await asyncio.gather(
        _touched(kubernetes, fleet, DEPLOYMENT, Role.REVISION), _touched(kubernetes, fleet, STATEFUL_SET, Role.STATEFUL)
    )
    digests = {name: record.digest for name, record in stored.secrets.items()}
    told = environments_of(fleet)
    found: list[Drift] = []
    for there in (item for items in touched for item in items):
        agent = labels_of(there)[names.AGENT]
        if agent in fleet.agents:
            template = template_of(fleet, agent, digests, stored.nonces.get(agent, ""))
            action = EnsureRevision(agent, revision_of(template), template, told[agent])
            found += [replace(each, agent=agent) for each in _of_agent(fleet, action, there)]
    return found


async def _of_companions(kubernetes: Kubernetes, fleet: Fleet) -> list[Drift]:
    """What agents have beside their replicas; what of it is gone the controller makes again by itself."""
    kinds = [(SERVICE, Role.STATEFUL), (DISRUPTION_BUDGET, Role.AGENT)]
    if any(is_native(fleet, agent) for agent in fleet.agents.values()):
        kinds.append((AUTOSCALER, Role.AUTOSCALER))
    found = await asyncio.gather(*(_touched(kubernetes, fleet, kind, role) for kind, role in kinds))
    return [
        drift
        for there in (item for items in found for item in items)
        if labels_of(there).get(names.AGENT) in fleet.agents
        for drift in drift_of(_companion(fleet, labels_of(there)[names.AGENT], there), there)
    ]


def _companion(fleet: Fleet, agent: str, there: Object) -> Object:
    """As it is rendered; nothing of an autoscaler that was made by other rules than those of now."""
    spec = fleet.agents[agent]
    if there["kind"] == SERVICE.name:
        return render_governing(fleet.fleet, agent, spec.port)
    if there["kind"] == DISRUPTION_BUDGET.name:
        return render_budget(fleet.fleet, agent)
    revision = labels_of(there)[names.REVISION]
    target = (STATEFUL_SET.name, agent) if spec.stateful else (DEPLOYMENT.name, revision_name(agent, revision))
    rendered = render_autoscaler(fleet.fleet, agent, revision, spec.scale, target)
    return rendered if is_as_applied(rendered, there) else {}


async def _touched(kubernetes: Kubernetes, fleet: Fleet, kind: Kind, role: Role) -> Iterable[Object]:
    listed = await kubernetes.list_metadata(kind, {names.FLEET: fleet.fleet, names.ROLE: role.value})
    touched = [each["metadata"]["name"] for each in listed if touched_by_others(each)]
    found = await asyncio.gather(*(kubernetes.find(kind, name) for name in touched))
    return [each for each in found if each is not None]


def _of_agent(fleet: Fleet, action: EnsureRevision, there: Object) -> list[Drift]:
    """How many replicas there are is told by who owns that; nothing of an older revision, which is on its way out."""
    if labels_of(there["spec"]["template"]).get(names.REVISION) != action.revision:
        return []
    rendered = render_revision(fleet.fleet, replace(action, environment={}), (), settings_of(fleet))[-1]
    if there["kind"] == STATEFUL_SET.name:
        pod = read_template(rendered)["pod"]
        return drift_of({"spec": {"template": pod}}, there)
    if there["metadata"]["name"] != revision_name(action.agent, action.revision):
        return []
    wanted = {**rendered, "spec": {key: value for key, value in rendered["spec"].items() if key != "replicas"}}
    private = private_variables(action.agent, action.environment, action.revision)
    with_told = render_revision(fleet.fleet, action, private, settings_of(fleet))[-1]  # whoever applied it
    return [*drift_of(wanted, there), *additions_of(with_told, there)]
