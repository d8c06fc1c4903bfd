"""What of Shoal's own in the cluster does not run, and why: read from its pods. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal.core.observed import Phase
from shoal.engines.kubernetes.names import Role, role_of
from shoal.engines.kubernetes.read import ON_ITS_WAY, condition, is_over, phase_of
from shoal.engines.kubernetes.times import epoch_s
from shoal.engines.kubernetes.warnings import NONE, Warnings

_PROXIED_S = 2.0  # from a pod's readiness until the proxies of all nodes have learned of it
_CALLED: Mapping[str, str] = {  # of several controllers another one tells it
    Role.GATEWAY: "the gateway",
    Role.BROKER: "the broker",
    Role.CONTROLLER: "a controller",
}


def troubles_of(pods: Iterable[Mapping[str, Any]], warnings: Warnings = NONE) -> tuple[str, ...]:
    """A line for each of them and reason. One that runs is none, and one that is merely on its way neither."""
    found: dict[tuple[str, str], None] = {}
    for pod in pods:
        called = _CALLED.get(role_of(pod))
        if called is None or is_over(pod):
            continue
        phase, reason = phase_of(pod, warnings)
        if phase in (Phase.PENDING, Phase.BACKOFF) and reason not in ("", ON_ITS_WAY):
            found[called, reason] = None
    return tuple(f"{called} does not run: {reason}" for called, reason in sorted(found))


def gateway_ready(pods: Iterable[Mapping[str, Any]], now: float) -> bool:
    """Whether the Service of the gateways leads to one, at `now` (epoch seconds)."""
    ready = (condition(pod, "Ready") for pod in pods if role_of(pod) == Role.GATEWAY)
    since = [epoch_s(each.get("lastTransitionTime")) for each in ready if each.get("status") == "True"]
    return any(at is not None and now - at >= _PROXIED_S for at in since)
