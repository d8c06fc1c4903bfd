"""Until the cluster has done what it was told: bounded in time, and in words why not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, NAMESPACE, POD, STATEFUL_SET
from shoal.engines.kubernetes.own_pods import troubles_of
from shoal.engines.kubernetes.read import why_refused
from shoal.errors import EngineError

GONE_S = 90.0
_RUNS_S, _TROUBLED_S = 120.0, 10.0  # an image may have to be pulled, and a claim be bound
_LOOK_S = 0.25


async def wait_gone(kubernetes: Kubernetes, kind: Kind, labels: Mapping[str, str], timeout_s: float = GONE_S) -> None:
    """Until there is none of them. Raises EngineError."""
    left: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            while left := [item["metadata"]["name"] for item in (await kubernetes.list(kind, labels))[0]]:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise EngineError(
            f"{', '.join(left)} in {kubernetes.namespace} did not end within {timeout_s:g} s; `kubectl describe "
            f"{kind.plural}` says why (a node that is away keeps its pods), `shoal down` tries again"
        ) from None


async def wait_runs(kubernetes: Kubernetes, stateful_set: str, pods_of: Mapping[str, str]) -> None:
    """Until it runs as it was last told to; or until its pods have told for a while what keeps them from that."""
    now = asyncio.get_running_loop().time
    end, troubled_until = now() + _RUNS_S, now() + _TROUBLED_S
    while not runs_as_told(await kubernetes.get(STATEFUL_SET, stateful_set)) and now() < min(end, troubled_until):
        if not troubles_of((await kubernetes.list(POD, pods_of))[0]):
            troubled_until = now() + _TROUBLED_S
        await asyncio.sleep(_LOOK_S)


async def wait_replaced(kubernetes: Kubernetes, deployment: str, pods_of: Mapping[str, str]) -> None:
    """Until all its pods are of what it was last told, or for as long as an image may take. Raises EngineError with
    what has kept them from that for a while."""
    now = asyncio.get_running_loop().time
    end, fine_at = now() + _RUNS_S, now()
    while not is_replaced(there := await kubernetes.get(DEPLOYMENT, deployment)) and now() < end:
        told = troubles_of((await kubernetes.list(POD, pods_of))[0])
        if refused := why_refused(there):
            told = (*told, f"{deployment} has not all of its pods: {refused}")
        if not told:
            fine_at = now()
        elif now() >= fine_at + _TROUBLED_S:
            raise EngineError(f"{'; '.join(told)}. What ran before goes on meanwhile")
        await asyncio.sleep(_LOOK_S)


def is_replaced(deployment: Mapping[str, Any]) -> bool:
    """Whether none of its pods is of what it was told before."""
    told: Mapping[str, Any] = deployment.get("status") or {}
    heard = told.get("observedGeneration") == deployment["metadata"].get("generation")
    return heard and told.get("updatedReplicas", 0) == told.get("replicas", 0)


def runs_as_told(stateful_set: Mapping[str, Any]) -> bool:
    """Whether all its pods are ready, and of what it was last set to."""
    told: Mapping[str, Any] = stateful_set.get("status") or {}
    heard = told.get("observedGeneration") == stateful_set["metadata"].get("generation")
    whole = told.get("currentRevision") == told.get("updateRevision")
    return heard and whole and told.get("readyReplicas") == stateful_set["spec"]["replicas"]


async def wait_namespace_gone(kubernetes: Kubernetes) -> None:
    """Until the namespace that is being deleted is gone with all that is in it. Raises EngineError."""
    try:
        async with asyncio.timeout(GONE_S):
            while await kubernetes.find(NAMESPACE, kubernetes.namespace) is not None:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise EngineError(
            f"the namespace {kubernetes.namespace} is not gone within {GONE_S:g} s; `kubectl describe namespace "
            f"{kubernetes.namespace}` says what it waits for"
        ) from None
