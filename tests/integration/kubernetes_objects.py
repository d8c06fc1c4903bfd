"""What of a fleet stands in its namespace, and in which version: to see whether anybody wrote anything."""

from __future__ import annotations

import asyncio

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    NETWORK_POLICY,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from tests.kubernetes_cluster import Cluster

_KINDS = (
    DEPLOYMENT, STATEFUL_SET, JOB, SERVICE, DISRUPTION_BUDGET, NETWORK_POLICY, ROLE, ROLE_BINDING, SERVICE_ACCOUNT,
    CONFIG_MAP, SECRET,
)  # fmt: skip


def versions_of(cluster: Cluster, namespace: str) -> dict[tuple[str, str], str]:
    """By kind and name. Leases, which are renewed, and pods, which kubelets report on, are not among them."""

    async def read() -> dict[tuple[str, str], str]:
        async with Kubernetes(cluster.access, namespace) as kubernetes:
            return {
                (kind.name, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
                for kind in _KINDS
                for item in (await kubernetes.list(kind))[0]
            }

    return asyncio.run(read())
