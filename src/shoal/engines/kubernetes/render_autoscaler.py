"""The HorizontalPodAutoscaler to which an agent's count is handed over, as a value: `autoscaling/v2`.

It measures the agent's own container, so that what a cluster puts beside it in the pod does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from shoal.engines.kubernetes.names import Role, fleet_labels, object_name
from shoal.engines.kubernetes.render_own import noted
from shoal.engines.kubernetes.render_pod import CONTAINER, Object
from shoal.spec.scaling import Scale, ScalingRules

_SELECT: Mapping[str, str] = {"max": "Max", "min": "Min", "disabled": "Disabled"}
_POLICY: Mapping[str, str] = {"pods": "Pods", "percent": "Percent"}


def autoscaler_name(agent: str) -> str:
    return object_name(agent)


def render_autoscaler(fleet: str, agent: str, revision: str, scale: Scale, target: tuple[str, str]) -> Object:
    """`target` is the kind and the name of what has the revision's replicas."""
    kind, name = target
    percents = {"cpu": scale.target.cpu, "memory": scale.target.memory}
    spec: Object = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
        "minReplicas": scale.min,
        "maxReplicas": scale.max,
        "metrics": [_metric(resource, percent) for resource, percent in percents.items() if percent is not None],
    }
    up, down = scale.behavior.scale_up, scale.behavior.scale_down
    behavior = {key: _rules(rules) for key, rules in (("scaleUp", up), ("scaleDown", down)) if rules != ScalingRules()}
    if behavior:
        spec["behavior"] = behavior
    labels = fleet_labels(fleet, Role.AUTOSCALER, agent=agent, revision=revision)
    return noted(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": autoscaler_name(agent), "labels": labels},
            "spec": spec,
        }
    )


def _metric(resource: str, percent: float) -> Object:
    target = {"type": "Utilization", "averageUtilization": max(1, round(percent))}
    return {
        "type": "ContainerResource",
        "containerResource": {"name": resource, "container": CONTAINER, "target": target},
    }


def _rules(rules: ScalingRules) -> Object:
    rendered: Object = {"selectPolicy": _SELECT[rules.select_policy]}
    if rules.stabilization_window_s is not None:
        rendered["stabilizationWindowSeconds"] = math.ceil(rules.stabilization_window_s)
    if rules.policies is not None:
        rendered["policies"] = [
            {"type": _POLICY[each.type], "value": each.value, "periodSeconds": math.ceil(each.period_s)}
            for each in rules.policies
        ]
    return rendered
