"""A namespace on a real Kubernetes for one test: on the cluster that `tests.kubernetes_cluster` finds."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import NAMESPACE
from shoal.errors import EngineUnavailable
from tests.kubernetes_cluster import find_or_skip, skip


@asynccontextmanager
async def a_namespace() -> AsyncGenerator[Kubernetes]:
    """The API, for a namespace that is made for this, and removed after it."""
    name = f"shoal-test-{secrets.token_hex(4)}"
    async with Kubernetes(find_or_skip(os.environ).access, name) as kubernetes:
        try:
            await kubernetes.create(NAMESPACE, {"apiVersion": "v1", "kind": NAMESPACE.name, "metadata": {"name": name}})
        except EngineUnavailable as error:
            skip(str(error))
        try:
            yield kubernetes
        finally:
            await kubernetes.delete(NAMESPACE, name)
