"""What of Shoal's own does not run, and whether the outside reaches a gateway."""

from __future__ import annotations

from typing import Any

from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.own_pods import gateway_ready, troubles_of

Object = dict[str, Any]
PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
MADE = {"waiting": {"reason": "ContainerCreating"}}


def pod(role: Role, state: Object, *, ready: bool = False) -> Object:
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
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
    """One is enough; nobody else's pod is one."""
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert not gateway_ready([pod(Role.GATEWAY, running), pod(Role.BROKER, running, ready=True)])
    assert gateway_ready([pod(Role.GATEWAY, running), pod(Role.GATEWAY, running, ready=True)])
