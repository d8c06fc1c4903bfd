"""A StatefulSet as Kubernetes' controller keeps it, as far as its order goes: what tests of Shoal's steps run on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shoal.core.action import Scale
from shoal.core.observed import AgentObserved
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.read import Parts, read_agent
from shoal.engines.kubernetes.stateful import ORDINALS, POD_INDEX, Ordinals, read_ordinals, render_ordinals, scaled

Object = dict[str, Any]

BEGIN = "2026-01-01T00:00:00Z"


@dataclass
class Pod:
    """One of it; `life` tells it from others of the same name."""

    ordinal: int
    revision: str
    life: int
    ready: bool = False
    ending: bool = False


@dataclass
class StatefulSet:
    """`spec` is what Shoal set, `current` the revision below the partition."""

    agent: str
    spec: Ordinals = field(default_factory=Ordinals)
    pods: dict[int, Pod] = field(default_factory=dict[int, Pod])
    current: str = ""
    lives: int = 0

    def item(self) -> Object:
        """As the API server has it."""
        labels = fleet_labels("shop", Role.STATEFUL, agent=self.agent)
        return {
            "metadata": {"name": self.agent, "labels": labels, "annotations": {ORDINALS: render_ordinals(self.spec)}},
            "spec": {
                "replicas": len(self.spec.of),
                "template": {"metadata": {"labels": {**labels, names.REVISION: self.spec.rolled_out}}},
            },
        }

    def pod_items(self) -> list[Object]:
        return [self._pod_item(pod) for pod in self.pods.values()]

    def _pod_item(self, pod: Pod) -> Object:
        labels = fleet_labels("shop", Role.STATEFUL, agent=self.agent, revision=pod.revision)
        metadata: Object = {
            "name": f"{self.agent}-{pod.ordinal}", "uid": str(pod.life), "creationTimestamp": BEGIN,
            "labels": {**labels, POD_INDEX: str(pod.ordinal)},
        }  # fmt: skip
        if pod.ending:
            metadata["deletionTimestamp"] = BEGIN
        status = {
            "conditions": [{"type": "Ready", "status": str(pod.ready), "lastTransitionTime": BEGIN}],
            "containerStatuses": [{"name": "agent", "state": {"running": {"startedAt": BEGIN}}, "restartCount": 0}],
        }
        return {"metadata": metadata, "spec": {"containers": [{"name": "agent"}]}, "status": status}

    def scale(self, action: Scale) -> None:
        """As the engine does it."""
        self.spec = scaled(read_ordinals(self.item(), self.pod_items()), action)
        self.current = self.current or self.spec.rolled_out

    def observed(self, known: set[str]) -> AgentObserved:
        """With the revisions whose templates are there."""
        templates = [
            {"metadata": {"labels": fleet_labels("shop", Role.TEMPLATE, agent=self.agent, revision=revision)}}
            for revision in known
        ]
        return read_agent(self.agent, Parts((), [self.item()], templates, (), self.pod_items()))

    def work(self) -> None:
        """One sync of the controller: what is missing is made, what is too many ends, and the highest outdated one
        ends where those above it are ready."""
        wanted, partition = len(self.spec.of), self.spec.partition
        for ordinal in range(wanted):
            if ordinal not in self.pods:
                self._make(ordinal, self.current if ordinal < partition else self.spec.rolled_out)
        for ordinal, pod in self.pods.items():
            pod.ending = pod.ending or ordinal >= wanted
        for ordinal in range(wanted - 1, partition - 1, -1):
            pod = self.pods[ordinal]
            if pod.revision != self.spec.rolled_out and not pod.ending:
                pod.ending = True
                return
            if not pod.ready or pod.ending:
                return
        if not partition and not any(pod.ending for pod in self.pods.values()):
            self.current = self.spec.rolled_out

    def end(self) -> None:
        """Pods that were told to have ended."""
        self.pods = {ordinal: pod for ordinal, pod in self.pods.items() if not pod.ending}

    def _make(self, ordinal: int, revision: str) -> None:
        self.lives += 1
        self.pods[ordinal] = Pod(ordinal, revision, self.lives)
