"""What replicas use, as the cluster's metrics-server measured it: ten to fifteen seconds ago.

Of a pod the agent's own container counts alone, as it does for an autoscaler: its request is what targets are a share
of, and what a cluster puts beside it has one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from shoal.core.signals import Usage
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import POD_METRICS
from shoal.engines.kubernetes.read import replica_id
from shoal.engines.kubernetes.render_pod import CONTAINER
from shoal.engines.kubernetes.times import epoch_s
from shoal.errors import EngineUnavailable

_SCALES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)([a-zA-Z]*)")


def parse_quantity(text: str) -> float:
    """A number of Kubernetes: `250m`, `12Ki`. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SCALES:
        raise ValueError(f"{text!r} is no quantity")
    return float(match[1]) * _SCALES[match[2]]


async def read_usage(kubernetes: Kubernetes, fleet: str, pods: Iterable[Mapping[str, Any]]) -> Mapping[str, Usage]:
    """By replica id; nothing where there is no metrics.k8s.io, or it is away."""
    by_pod = {pod["metadata"]["name"]: pod for pod in pods}
    try:
        items, _ = await kubernetes.list(POD_METRICS, {names.FLEET: fleet})
    except (KubernetesError, EngineUnavailable):
        return {}
    found: dict[str, Usage] = {}
    for item in items:
        pod = by_pod.get(item["metadata"]["name"])
        used = next((each["usage"] for each in item.get("containers") or () if each["name"] == CONTAINER), None)
        at = epoch_s(item.get("timestamp"))
        if pod is None or used is None or at is None:
            continue
        found[replica_id(pod)] = Usage(
            cpu_cores=parse_quantity(used["cpu"]),
            memory_bytes=int(parse_quantity(used["memory"])),
            at=at,
            window_s=parse_window(item.get("window", "15s")),
        )
    return found


def parse_window(text: str) -> float:
    """Go's way to write a time: `15.5s`, `1m30s`."""
    parts = re.findall(r"([0-9.]+)(h|ms|m|s)", text)
    return sum(float(number) * {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}[unit] for number, unit in parts) or 15.0
