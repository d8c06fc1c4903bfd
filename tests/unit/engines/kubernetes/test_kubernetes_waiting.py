"""When what the cluster was told to run runs."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.engines.kubernetes.waiting import runs_as_told

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
