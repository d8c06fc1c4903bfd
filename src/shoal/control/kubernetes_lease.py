"""Where it stands on Kubernetes who may act for a fleet: a Lease, as the cluster's own controllers have them.

Its times are for people (`kubectl get leases`): what counts is its resourceVersion, which each renewal changes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from shoal.control.lease import TERM_S, Claim
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import LEASE
from shoal.engines.kubernetes.names import CONTROLLER, Role, fleet_labels
from shoal.errors import EngineUnavailable

_ANSWER_S = 2.0  # a connection that hangs is given up while another one can still bring the renewal


class KubernetesLease:
    """See `shoal.control.lease.LeaseKeeper`. It is of the namespace that `kubernetes` is of."""

    granter = "the Kubernetes API"

    def __init__(self, kubernetes: Kubernetes, fleet: str, clock: Callable[[], float] = time.time) -> None:
        self._kubernetes, self._clock = kubernetes, clock
        self._about = {"name": CONTROLLER, "labels": fleet_labels(fleet, Role.CONTROLLER)}

    async def read(self) -> Claim:
        async with _in_time():
            found = await self._kubernetes.find(LEASE, CONTROLLER)
        if found is None:
            return Claim("", "", None)
        return Claim(found["spec"].get("holderIdentity") or "", found["metadata"]["resourceVersion"], found)

    async def write(self, claim: Claim, holder: str) -> None:
        spec = self._spec(claim, holder)
        async with _in_time():
            if claim.found is not None:
                await self._kubernetes.replace(LEASE, {**claim.found, "spec": spec})
                return
            made = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": self._about, "spec": spec}
            await self._kubernetes.create(LEASE, made)

    def _spec(self, claim: Claim, holder: str) -> dict[str, Any]:
        before: dict[str, Any] = {} if claim.found is None else claim.found["spec"]
        now = f"{datetime.fromtimestamp(self._clock(), UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        spec = {**before, "holderIdentity": holder, "leaseDurationSeconds": math.ceil(TERM_S), "renewTime": now}
        if holder not in ("", claim.holder):
            spec["acquireTime"] = now
            spec["leaseTransitions"] = before.get("leaseTransitions", -1) + 1
        return spec


@asynccontextmanager
async def _in_time() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except TimeoutError:
        raise EngineUnavailable(f"Kubernetes did not answer about Lease {CONTROLLER} within {_ANSWER_S:g}s") from None
