"""What of Shoal's own does not run, and whether the outside reaches a gateway."""

from __future__ import annotations

from typing import Any

from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.own_pods import gateway_ready, troubles_of

Object = dict[str, Any]
NEW_YEAR = 1767225600.0
PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
MADE = {"waiting": {"reason": "ContainerCreating"}}


def pod(role: Role, state: Object, *, ready: bool = False) -> Object:
    since = {"lastTransitionTime": "2026-01-01T00:00:05Z"}
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready), **since}]
    return {
        "metadata": {"name": "x", "labels": fleet_labels("shop", role)},
        "spec": {"containers": [{"name": "shoal"}]},
        "status": {"conditions": conditions, "containerStatuses": [{"name": "shoal", "state": state}]},
    }


def test_what_keeps_them_from_running_is_told_once() -> None:
    """What is on its way is no trouble, and an agent's pod is its agent's."""
    pods = [pod(Role.GATEWAY, PULL), pod(Role.GATEWAY, PULL), pod(Role.BROKER, MADE), pod(Role.REVISION, PULL)]
    (told,) = troubles_of(pods)
    assert told.startswith("the gateway does not run: ImagePullBackOff: no such image")


def test_a_gateway_is_reached_once_its_pod_is_ready() -> None:
    """One is enough, two seconds later, when the nodes' proxies have learned of it; nobody else's pod is one."""
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    two = [pod(Role.GATEWAY, running), pod(Role.GATEWAY, running, ready=True)]
    assert not gateway_ready([two[0], pod(Role.BROKER, running, ready=True)], NEW_YEAR + 9)
    assert (gateway_ready(two, NEW_YEAR + 6), gateway_ready(two, NEW_YEAR + 7)) == (False, True)
