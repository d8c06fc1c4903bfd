"""What Kubernetes tells in events alone: why a pod can't be made, or its volumes can't be had. Pure.

Events have no labels of ours, so they are of the whole namespace; what is told better elsewhere is left out by the API
server, so that a fleet of which much crashes costs no watch more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal.engines.kubernetes.api.refusals import remedy_for

Object = Mapping[str, Any]
Warnings = Mapping[tuple[str, str], str]  # by kind and name of what they are about

# The container's own state says these with more words, or the pod's conditions do.
_TOLD_ELSEWHERE = ("BackOff", "Unhealthy", "Failed", "FailedScheduling")
WARNINGS = ",".join(("type=Warning", *(f"reason!={reason}" for reason in _TOLD_ELSEWHERE)))  # a field selector
NONE: Warnings = {}


def about(event: Object) -> tuple[str, str]:
    """The kind and the name of what it is about."""
    return str(event["involvedObject"].get("kind", "")), str(event["involvedObject"].get("name", ""))


def read_warnings(events: Iterable[Object]) -> Warnings:
    """The last of each object."""
    found: dict[tuple[str, str], str] = {}
    for event in sorted(events, key=_at):
        found[about(event)] = _words(event)
    return found


def _words(event: Object) -> str:
    said = f"{event.get('reason', '')}: {str(event.get('message', '')).strip()}".strip(": ")
    remedy = remedy_for(said)
    return f"{said} ({remedy})" if remedy else said


def _at(event: Object) -> str:
    series: Mapping[str, str] = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max((str(each) for each in times if each), default="")
