"""Which revision each ordinal of a stateful agent has, when one of its revisions gets another count. Pure.

One StatefulSet holds all ordinals from 0 on without a gap. What its template says is rolled out from a partition on;
below that a pod stays what it was made as. So the ordinals may be of three revisions and in any order, as when a
rollout is undone in its middle, while Kubernetes knows two of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shoal.core.action import Scale
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.names import labels_of

Object = Mapping[str, Any]

ORDINALS = "shoal.dev/ordinals"  # annotation: revisions and how many ordinals have each, the lowest first
POD_INDEX = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True, slots=True)
class Ordinals:
    """`of` are their revisions, from ordinal 0 on; `rolled_out` is that of the template."""

    of: tuple[str, ...] = ()
    rolled_out: str = ""

    @property
    def partition(self) -> int:
        """From which ordinal on all are of what is rolled out."""
        below = [ordinal for ordinal, revision in enumerate(self.of) if revision != self.rolled_out]
        return below[-1] + 1 if below else 0

    @property
    def counts(self) -> dict[str, int]:
        return {revision: self.of.count(revision) for revision in dict.fromkeys(self.of)}

    def has(self, pod: Object) -> bool:
        """Whether the pod is to stay: Kubernetes ends others in its own time."""
        ordinal = ordinal_of(pod)
        return ordinal is None or self.of[ordinal : ordinal + 1] == (labels_of(pod)[names.REVISION],)


def scaled(there: Ordinals, action: Scale) -> Ordinals:
    """Another count of one revision: more come at the end, and the highest go. An ordinal in the middle is never empty:
    it gets the revision of the last one at once, as do those between them."""
    of = list(there.of)
    missing = action.count - of.count(action.revision)
    if missing > 0:
        return Ordinals((*of, *[action.revision] * missing), action.revision)
    rolled_out = there.rolled_out
    for _ in range(-missing):
        highest = max(ordinal for ordinal, revision in enumerate(of) if revision == action.revision)
        if highest == len(of) - 1:
            of.pop()
        else:
            rolled_out = of[-1]
            of[highest:] = [rolled_out] * (len(of) - highest)
    if rolled_out not in of:
        rolled_out = of[-1] if of else action.revision
    return Ordinals(tuple(of), rolled_out)


def read_ordinals(item: Object, pods: Iterable[Object]) -> Ordinals:
    """As the StatefulSet is set to have them. Kubernetes may make a pod below the partition anew as another revision
    than it was, so that there it is the pod that says. Where somebody set another number of replicas, that holds."""
    annotations: Mapping[str, str] = item["metadata"].get("annotations") or {}
    kept: list[tuple[str, int]] = json.loads(annotations.get(ORDINALS, "[]"))
    rolled_out = labels_of(item["spec"]["template"]).get(names.REVISION, "")
    replicas = int(item["spec"].get("replicas", 1))
    of = [revision for revision, count in kept for _ in range(count)]
    of = [*of, *[rolled_out] * replicas][:replicas]
    partition = Ordinals(tuple(of), rolled_out).partition
    for pod in pods:
        ordinal = ordinal_of(pod)
        if ordinal is not None and ordinal < partition and not pod["metadata"].get("deletionTimestamp"):
            of[ordinal] = labels_of(pod)[names.REVISION]
    return Ordinals(tuple(of), rolled_out)


def render_ordinals(ordinals: Ordinals) -> str:
    """The annotation."""
    return json.dumps([(revision, len(list(same))) for revision, same in groupby(ordinals.of)])


def ordinal_of(pod: Object) -> int | None:
    """`None` for a pod that is not of a stateful agent."""
    labels = labels_of(pod)
    if labels.get(names.ROLE) != names.Role.STATEFUL or POD_INDEX not in labels:
        return None
    return int(labels[POD_INDEX])
