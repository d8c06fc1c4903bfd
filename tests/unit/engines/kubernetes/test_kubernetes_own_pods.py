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


def test_a_controller_that_does_not_run_is_told_by_the_other() -> None:
    """One that ran before goes on; nobody else would say that the next one can't."""
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    (told,) = troubles_of([pod(Role.CONTROLLER, running, ready=True), pod(Role.CONTROLLER, PULL)])
    assert told.startswith("a controller does not run: ImagePullBackOff: no such image")


def test_one_that_another_took_the_place_of_is_no_trouble() -> None:
    """As it is left for a while where a node had no more memory, or was shut down."""
    evicted = pod(Role.CONTROLLER, {"terminated": {"exitCode": 137, "reason": "Error"}})
    evicted["status"] |= {"phase": "Failed", "reason": "Evicted"}
    assert troubles_of([evicted]) == ()


def test_a_gateway_is_reached_once_its_pod_is_ready() -> None:
    """One is enough, two seconds later, when the nodes' proxies have learned of it; nobody else's pod is one."""
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    two = [pod(Role.GATEWAY, running), pod(Role.GATEWAY, running, ready=True)]
    assert not gateway_ready([two[0], pod(Role.BROKER, running, ready=True)], NEW_YEAR + 9)
    assert (gateway_ready(two, NEW_YEAR + 6), gateway_ready(two, NEW_YEAR + 7)) == (False, True)
