"""Who set how many replicas an object has, read from what the API server notes of its fields, and from the autoscalers
that aim at it. Pure.

Nothing has to be remembered for this: who set the count by hand is still known after a restart of the controller. Only
when is not noted there of a count that was set as `kubectl scale` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shoal.core.observed import Autoscaler, CountOwner
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api.client import MANAGER
from shoal.engines.kubernetes.names import Role, labels_of, role_of

Object = Mapping[str, Any]
_NONE: Mapping[str, Any] = {}
_AUTOSCALERS = "kube-controller-manager"  # who sets a count there is the autoscaler's loop
_NOT_NOTED = "somebody"  # who scales to zero is not noted, nor who scales from there: what Shoal sets always is
_AT_ZERO = "ScalingDisabled"


def aims_at(autoscaler: Object, item: Object, kind: str) -> bool:
    """Whether a HorizontalPodAutoscaler sets the count of an object of this kind."""
    target = autoscaler["spec"]["scaleTargetRef"]
    return (target.get("kind"), target.get("name")) == (kind, item["metadata"]["name"])


def read_autoscaler(autoscalers: Iterable[Object]) -> Autoscaler | None:
    """The one to which Shoal handed the count over."""
    for each in autoscalers:
        if role_of(each) == Role.AUTOSCALER and not each["metadata"].get("deletionTimestamp"):
            name = f"HPA {each['metadata']['name']} (autoscaling/v2)"
            return Autoscaler(labels_of(each)[names.REVISION], CountOwner(name, lasting=True, trouble=_trouble(each)))
    return None


def read_owner(item: Object, aiming: Sequence[Object]) -> CountOwner | None:
    """Who else than Shoal has the count of an object at which these autoscalers aim: one of somebody else's, else who
    set it last. What an autoscaler set that is gone is Shoal's again; at zero none of them does anything."""
    if int(item["spec"].get("replicas", 1)) and aiming:
        others = [each for each in aiming if role_of(each) != Role.AUTOSCALER]
        if not others:
            return None
        return CountOwner(_named(others[0]), lasting=True, trouble=_trouble(others[0]))
    noted: Sequence[Object] = item["metadata"].get("managedFields") or ()
    setters = [each for each in noted if _sets_replicas(each)]
    if not noted or any(each.get("manager") in (MANAGER, _AUTOSCALERS) for each in setters):
        return None
    scaled = [str(each.get("manager")) for each in setters if not _made_it(each)]
    if setters and not scaled:
        return None
    return CountOwner(scaled[0] if scaled else _NOT_NOTED)


def _sets_replicas(entry: Object) -> bool:
    return "f:replicas" in ((entry.get("fieldsV1") or _NONE).get("f:spec") or _NONE)


def _made_it(entry: Object) -> bool:
    """Who set all of it, as by applying what `shoal render` wrote, does not own its count for that."""
    return "f:template" in ((entry.get("fieldsV1") or _NONE).get("f:spec") or _NONE)


def _named(autoscaler: Object) -> str:
    """What people made: an autoscaler may be made by a controller from an object of theirs, such as KEDA's."""
    made_by = next(
        (each for each in autoscaler["metadata"].get("ownerReferences") or () if each.get("controller")), None
    )
    if made_by is not None:
        return f"{made_by['kind']} {made_by['name']} (by its HPA)"
    return f"HPA {autoscaler['metadata']['name']}"


def _trouble(autoscaler: Object) -> str:
    """Why it can't tell how many there should be, as its conditions say."""
    conditions: Sequence[Mapping[str, Any]] = (autoscaler.get("status") or _NONE).get("conditions") or ()
    for each in conditions:
        told = each["type"] in ("ScalingActive", "AbleToScale") and each["status"] == "False"
        if told and each.get("reason") != _AT_ZERO:
            return f"{each.get('reason')}: {each.get('message')}"
    return ""
