"""When what the cluster was told to run runs."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.engines.kubernetes import waiting
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD
from shoal.engines.kubernetes.names import CONTROLLER, Role, fleet_labels
from shoal.engines.kubernetes.waiting import is_replaced, runs_as_told, wait_replaced
from shoal.errors import EngineError
from tests.fake_kubernetes import FakeKubernetes

WHOLE = {"observedGeneration": 2, "currentRevision": "b", "updateRevision": "b", "readyReplicas": 1}


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        (WHOLE, True),
        (None, False),
        ({**WHOLE, "observedGeneration": 1}, False),  # it is still what it was before
        ({**WHOLE, "currentRevision": "a"}, False),
        ({**WHOLE, "readyReplicas": 0}, False),
    ],
)
def test_what_runs_as_told(status: dict[str, Any] | None, runs: bool) -> None:
    """Ready pods of what was told before are none."""
    assert runs_as_told({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}) is runs


REPLACED = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}
STUCK = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1}
REFUSED = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}


@pytest.mark.parametrize(
    ("status", "replaced"),
    [
        (REPLACED, True),
        ({"observedGeneration": 2}, True),  # it has none yet
        ({**REPLACED, "observedGeneration": 1}, False),
        (STUCK, False),
        ({"observedGeneration": 2, "replicas": 2}, False),
    ],
)
def test_what_is_replaced(status: dict[str, Any], replaced: bool) -> None:
    """Pods of what was told before are left until those of now run."""
    assert is_replaced({"metadata": {"generation": 2}, "status": status}) is replaced


async def make_controllers(cluster: FakeKubernetes, status: dict[str, Any], state: dict[str, Any]) -> None:
    pod = {"containerStatuses": [{"name": "shoal", "state": state}]}
    for kind, name, spec, found in (
        (DEPLOYMENT, CONTROLLER, {"replicas": 2}, status),
        (POD, "next", {"containers": [{"name": "shoal"}]}, pod),
    ):
        about = {"name": name, "labels": fleet_labels("shop", Role.CONTROLLER), "generation": 2}
        made = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": about, "spec": spec, "status": found}
        await cluster.create(kind, made)


@pytest.mark.parametrize(
    ("status", "state", "why"),
    [
        (STUCK, {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}, "run: ErrImagePull: no such host"),
        ({**STUCK, "conditions": [REFUSED]}, {"running": {}}, "has not all of its pods: exceeded quota: small"),
    ],
)
async def test_what_can_not_be_replaced_is_told(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, Any], state: dict[str, Any], why: str
) -> None:
    """While those from before go on, so that nobody else would notice."""
    monkeypatch.setattr(waiting, "_TROUBLED_S", 0.0)
    cluster = FakeKubernetes()
    await make_controllers(cluster, status, state)
    with pytest.raises(EngineError, match=why):
        await wait_replaced(cluster, CONTROLLER, fleet_labels("shop", Role.CONTROLLER))


async def test_what_takes_long_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an image that is being pulled: after a while it goes on by itself."""
    monkeypatch.setattr(waiting, "_TROUBLED_S", 0.0)
    monkeypatch.setattr(waiting, "_RUNS_S", 0.01)
    monkeypatch.setattr(waiting, "_LOOK_S", 0.0)
    cluster = FakeKubernetes()
    await make_controllers(cluster, STUCK, {"waiting": {"reason": "ContainerCreating"}})
    await wait_replaced(cluster, CONTROLLER, fleet_labels("shop", Role.CONTROLLER))
    assert not is_replaced(await cluster.get(DEPLOYMENT, CONTROLLER))
