"""A namespace on a real Kubernetes for one test: on the cluster that SHOAL_TEST_CONTEXT names, or this machine's bed.

Where there is none, the test is skipped, and says what was missing; with SHOAL_REQUIRE=kubernetes that is a failure.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest

from shoal.engines.kubernetes.api import Access, Kubernetes, find_access
from shoal.engines.kubernetes.api.kinds import NAMESPACE
from shoal.errors import EngineError, EngineUnavailable
from testbed.kubernetes.environment import bed_from_environment


@asynccontextmanager
async def a_namespace() -> AsyncGenerator[Kubernetes]:
    """The API, for a namespace that is made for this, and removed after it."""
    name = f"shoal-test-{secrets.token_hex(4)}"
    async with Kubernetes(_find(), name) as kubernetes:
        try:
            await kubernetes.create(NAMESPACE, {"apiVersion": "v1", "kind": NAMESPACE.name, "metadata": {"name": name}})
        except EngineUnavailable as error:
            _skip(str(error))
        try:
            yield kubernetes
        finally:
            await kubernetes.delete(NAMESPACE, name)


def _find() -> Access:
    context, bed = os.environ.get("SHOAL_TEST_CONTEXT"), bed_from_environment()
    if context is None and not bed.kubeconfig.exists():
        _skip("no Kubernetes: SHOAL_TEST_CONTEXT names none, and the bed (python -m testbed.kubernetes up) is not up")
    try:
        return find_access(context, os.environ if context is not None else {"KUBECONFIG": str(bed.kubeconfig)})
    except EngineError as error:
        _skip(str(error))


def _skip(reason: str) -> NoReturn:
    if "kubernetes" in os.environ.get("SHOAL_REQUIRE", "").split(","):
        pytest.fail(f"SHOAL_REQUIRE=kubernetes, but {reason}", pytrace=False)
    pytest.skip(reason)
