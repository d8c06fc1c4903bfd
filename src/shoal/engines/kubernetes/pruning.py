"""What a fleet has no use for any more, once all is settled: the Secrets that nothing is made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.render_pull import PULL
from shoal.spec.model import Fleet


def secrets_of(pod: Mapping[str, Any]) -> Iterator[str]:
    """The Secrets that a pod needs to be started (again), by its `spec`."""
    for each in pod.get("imagePullSecrets") or ():
        yield each["name"]
    for volume in pod.get("volumes") or ():
        if "secret" in volume:
            yield volume["secret"]["secretName"]
        projected: Mapping[str, Any] = volume.get("projected") or {}
        for source in projected.get("sources") or ():
            if "secret" in source:
                yield source["secret"]["name"]
    for container in pod["containers"]:
        for variable in container.get("env") or ():
            given: Mapping[str, Any] = variable.get("valueFrom") or {}
            if "secretKeyRef" in given:
                yield given["secretKeyRef"]["name"]


async def prune_pull(kubernetes: Kubernetes, fleet: Fleet, used: Collection[str]) -> None:
    """The password for images, where no registry asks for one any more. `used` are the names of Secrets that something
    is made from."""
    if not fleet.registries and PULL not in used:
        await kubernetes.delete(SECRET, PULL)
