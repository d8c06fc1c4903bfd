"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.bed_turns", "tests.swarm_bed", "tests.kubernetes_cluster")

# A shell starts background jobs with SIGINT ignored, which every process started from here would inherit: the tests of
# Ctrl-C would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for a Swarm or a Kubernetes is marked so, and can be left out: `pytest -m "not swarm"`."""
    for item in items:
        case = getattr(item, "callspec", None)
        engine = case.params.get("bed") if case is not None else None
        for need in ("swarm", "kubernetes"):
            if engine == need or need in getattr(item, "fixturenames", ()):
                item.add_marker(need)
