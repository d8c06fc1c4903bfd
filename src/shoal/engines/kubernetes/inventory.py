"""Everything of a fleet that the cluster has, kept up to date by watches, and which agents changed since the last look.

A fleet of 1,000 quiet agents costs a pass nothing, and the API server its watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from shoal.core.observed import AgentObserved
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.informer import Informer
from shoal.engines.kubernetes.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    EVENT,
    JOB,
    POD,
    SERVICE,
    STATEFUL_SET,
)
from shoal.engines.kubernetes.names import Role, labels_of
from shoal.engines.kubernetes.ownership import aims_at
from shoal.engines.kubernetes.read import Parts, read_agent
from shoal.engines.kubernetes.warnings import WARNINGS, Warnings, about, read_warnings
from shoal.errors import EngineError, EngineUnavailable

Object = Mapping[str, Any]

_SILENT_S = 30.0
_KINDS: Mapping[Kind, Mapping[str, str]] = {
    DEPLOYMENT: {}, STATEFUL_SET: {}, JOB: {}, POD: {}, SERVICE: {}, CONFIG_MAP: {names.ROLE: Role.TEMPLATE.value},
}  # fmt: skip


class Inventory:
    """Of one fleet. `run` goes beside the rest; `news` is set with every change."""

    def __init__(self, kubernetes: Kubernetes, fleet: str, news: asyncio.Event) -> None:
        self._fleet, self._news = fleet, news
        self._informers = {
            kind: Informer(kubernetes, kind, {names.FLEET: fleet, **more}, self._hear(kind))
            for kind, more in _KINDS.items()
        }
        # Of these all are watched: an autoscaler of somebody else's may set the count of an agent, and a budget of
        # somebody else's stands for one of ours.
        for kind in (AUTOSCALER, DISRUPTION_BUDGET):
            self._informers[kind] = Informer(kubernetes, kind, {}, self._hear(kind))
        self._foreign: dict[str, Object] = {}  # autoscalers that are not of this fleet
        self._events = Informer(kubernetes, EVENT, {}, self._hear_warning, WARNINGS)
        self._warnings: Warnings | None = None  # None: not read since there was another
        self._of: dict[str, dict[Kind, dict[str, Object]]] = {}  # by agent and kind: by name
        self._own_pods: dict[str, Object] = {}  # by name: those of no agent
        self._dirty: set[str] = set()
        self._agents: dict[str, AgentObserved] = {}
        self._synced = asyncio.Event()

    async def run(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in (*self._informers.values(), self._events):
                tasks.create_task(informer.run())

    async def ready(self) -> None:
        """Returns once everything was listed. Raises EngineUnavailable where it can't be, or is not heard of now."""
        while not all(each.synced for each in self._informers.values()):
            if (away := self._away()) is not None:
                raise EngineUnavailable(str(away))
            pages = self._pages()
            self._synced.clear()
            try:
                await asyncio.wait_for(self._synced.wait(), _SILENT_S)
            except TimeoutError:
                if self._pages() == pages:  # else there is much, and the cluster is slow
                    raise EngineUnavailable(f"the cluster tells nothing for {_SILENT_S:g}s") from None
        if (away := self._away()) is not None:
            raise EngineUnavailable(str(away))

    def _pages(self) -> int:
        return sum(each.pages for each in self._informers.values())

    def agents(self, mask: Callable[[str], str] = str) -> dict[str, AgentObserved]:
        """Every agent of which there is something; the same object again for one of which nothing changed."""
        for agent in self._dirty:
            found = read_agent(agent, replace(self.parts(agent), mask=mask))
            if not (found.counts or found.replicas or found.runs):
                self._agents.pop(agent, None)
                if not any(self._of.get(agent, {}).values()):
                    self._of.pop(agent, None)
            elif found != self._agents.get(agent):
                self._agents[agent] = found
        self._dirty.clear()
        return dict(self._agents)

    def read_again(self) -> None:
        """Every agent is read again in the next look."""
        self._dirty.update(self._of)
        self._news.set()

    def parts(self, agent: str) -> Parts:
        """The objects of one agent."""
        of = self._of.get(agent, {})

        def items(kind: Kind) -> list[Object]:
            return list(of.get(kind, {}).values())

        aiming = [each for each in self._foreign.values() if self._aimed_at(each) == agent]
        return Parts(
            items(DEPLOYMENT),
            items(STATEFUL_SET),
            items(CONFIG_MAP),
            items(JOB),
            items(POD),
            [*items(AUTOSCALER), *aiming],
            self.warnings(),
            governed=self.item(SERVICE, agent) is not None,
            budgeted=self.item(DISRUPTION_BUDGET, agent) is not None,
        )

    def warnings(self) -> Warnings:
        """What events tell of the namespace's objects."""
        if self._warnings is None:
            self._warnings = read_warnings(self._events.items.values())
        return self._warnings

    def item(self, kind: Kind, name: str) -> Object | None:
        return self._informers[kind].items.get(name)

    def items(self, kind: Kind) -> list[Object]:
        return list(self._informers[kind].items.values())

    def known(self, kind: Kind) -> list[Object] | None:
        """All of a kind; `None` while they are not heard of."""
        informer = self._informers[kind]
        return self.items(kind) if informer.synced and informer.away is None else None

    def is_there(self, kind: Kind, name: str) -> bool:
        """As far as is known: what is not heard of is not gone."""
        informer = self._informers[kind]
        return not informer.synced or informer.away is not None or name in informer.items

    def own_pods(self) -> list[Object]:
        """Those of what Shoal itself runs."""
        return list(self._own_pods.values())

    def put(self, kind: Kind, item: Object) -> None:
        """What a write gave back, before the watch tells of it."""
        if self._informers[kind].put(item):
            self._index(kind, item)

    def drop(self, kind: Kind, name: str) -> None:
        """What was removed, likewise."""
        item = self._informers[kind].items.pop(name, None)
        if item is not None:
            self._index(kind, item)

    def _away(self) -> EngineError | None:
        return next((each.away for each in self._informers.values() if each.away is not None), None)

    def _hear(self, kind: Kind) -> Callable[[Object | None], None]:
        def changed(item: Object | None) -> None:
            if item is None:
                self._index_all(kind)
                self._synced.set()
            else:
                self._index(kind, item)
            self._news.set()

        return changed

    def _hear_warning(self, event: Object | None) -> None:
        self._warnings = None
        if event is None:
            self._dirty.update(self._of)
        else:
            kind, name = about(event)
            for known, informer in self._informers.items():
                if known.name == kind and name in informer.items:
                    self._index(known, informer.items[name])
        self._news.set()

    def _index(self, kind: Kind, item: Object) -> None:
        if kind is AUTOSCALER and labels_of(item).get(names.FLEET) != self._fleet:
            self._index_foreign(item)
            return
        agent, name = labels_of(item).get(names.AGENT), item["metadata"]["name"]
        if agent is not None:
            self._dirty.add(agent)
            mine = self._of.setdefault(agent, {}).setdefault(kind, {})
        elif kind is POD:
            mine = self._own_pods
        else:
            if kind is DISRUPTION_BUDGET and name in self._of:
                self._dirty.add(name)  # one of somebody else stands for that agent's, or did
            return
        if name in self._informers[kind].items:
            mine[name] = item
        else:
            mine.pop(name, None)

    def _index_foreign(self, item: Object) -> None:
        """Whom it aims at now, and whom it aimed at before, is to be looked at."""
        name = item["metadata"]["name"]
        before = self._foreign.pop(name, None)
        if name in self._informers[AUTOSCALER].items:
            self._foreign[name] = item
        aimed = {self._aimed_at(each) for each in (before, item) if each is not None}
        self._dirty.update(agent for agent in aimed if agent is not None)

    def _aimed_at(self, autoscaler: Object) -> str | None:
        """The agent whose count it sets; `None` where that is none of ours."""
        for kind in (DEPLOYMENT, STATEFUL_SET):
            item = self.item(kind, autoscaler["spec"]["scaleTargetRef"].get("name", ""))
            if item is not None and aims_at(autoscaler, item, kind.name):
                return labels_of(item).get(names.AGENT)
        return None

    def _index_all(self, kind: Kind) -> None:
        if kind is AUTOSCALER:
            for item in list(self._foreign.values()):
                self._index_foreign(item)
        if kind is POD:
            self._own_pods.clear()
        for agent, of in self._of.items():
            if of.pop(kind, None):
                self._dirty.add(agent)
        for item in self._informers[kind].items.values():
            self._index(kind, item)
