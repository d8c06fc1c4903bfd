"""The engine on Kubernetes: replicas are pods of Deployments and StatefulSets, which Kubernetes places, starts and
replaces.

Nothing of a fleet is remembered here but what the API server can be asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from shoal.core.action import Action, ActionFailure, Autoscale, EnsureRevision, Remove, RunJob, Scale
from shoal.core.observed import Observed, Phase
from shoal.core.signals import Usage
from shoal.engines.dispatch import act_in_order
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kind, Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import (
    AUTOSCALER,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    POD,
    STATEFUL_SET,
    kind_of,
)
from shoal.engines.kubernetes.applying import find_ours, is_as_applied
from shoal.engines.kubernetes.capabilities import CAPABILITIES
from shoal.engines.kubernetes.companions import Companions
from shoal.engines.kubernetes.counting import write_count
from shoal.engines.kubernetes.drift import drift_of
from shoal.engines.kubernetes.exec import open_command
from shoal.engines.kubernetes.inventory import Inventory
from shoal.engines.kubernetes.logs import Logs
from shoal.engines.kubernetes.names import labels_of, object_name
from shoal.engines.kubernetes.own_pods import gateway_ready, troubles_of
from shoal.engines.kubernetes.private import PrivateSecrets
from shoal.engines.kubernetes.pruning import secrets_of
from shoal.engines.kubernetes.read import read_agent, replica_id
from shoal.engines.kubernetes.render import (
    Settings,
    read_template,
    render_count,
    render_revision,
    render_run,
    render_stateful,
    render_wiring_secret,
    revision_name,
    started_with,
)
from shoal.engines.kubernetes.render_autoscaler import autoscaler_name, render_autoscaler
from shoal.engines.kubernetes.render_pod import CONTAINER, Object, private_variables
from shoal.engines.kubernetes.stateful import Ordinals, read_ordinals, scaled
from shoal.engines.kubernetes.usage import read_usage
from shoal.engines.protocol import Capabilities, Command, LogLine, not_running
from shoal.errors import EngineError

RUNS_KEPT = 20
_LOOK_S = 0.5
_TOGETHER_S = 0.02  # what comes within this time is looked at once
_USAGE_S = 3.0  # the cluster measures every fifteen seconds
_LEAST_COST = "-2147483648"


class KubernetesEngine:
    """Implements `Engine` and `Inspector` for one fleet in its namespace. `run` has to go beside it.

    `streams` is another client of the same, for what people follow and run: each holds a connection for as long as they
    like, for which nothing else may wait. `mask` takes secrets out of what replicas write; `clock` gives epoch seconds.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        fleet: str,
        *,
        streams: Kubernetes | None = None,
        mask: Callable[[str], str] = str,
        told_secret: Callable[[Object], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.capabilities: Capabilities = CAPABILITIES
        self.settings = Settings()
        self._kubernetes, self._fleet, self._mask, self._clock = kubernetes, fleet, mask, clock
        self._news = asyncio.Event()
        self._reachable = True
        self._usage: Mapping[str, Usage] = {}
        self._used_at = float("-inf")
        self._inventory = Inventory(kubernetes, fleet, self._news)
        self._streams = streams or kubernetes
        self._logs = Logs(self._streams, self._pods)
        self._companions = Companions(kubernetes, fleet, self._inventory)
        self._private = PrivateSecrets(kubernetes, fleet, told_secret)

    async def run(self) -> None:
        """Watches the cluster until cancelled."""
        await self._inventory.run()

    # What control asks.

    async def observe(self) -> Observed:
        """Every agent; the same object again for one of which nothing changed. Raises EngineUnavailable while the API
        server is not heard of."""
        await self._inventory.ready()
        at = self._clock()
        agents = self._inventory.agents(self._mask)
        own = self._inventory.own_pods()
        self._reachable = gateway_ready(own, at)
        return Observed(at, agents, troubles=troubles_of(own, self._inventory.warnings()), reachable=self._reachable)

    async def changes(self) -> AsyncIterator[None]:
        """Yields a moment after the cluster told of a change, and now and then while no gateway is reached."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._reachable else _LOOK_S):
                    await self._news.wait()
            await asyncio.sleep(_TOGETHER_S)
            self._news.clear()
            yield

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        """Carries the actions out in order. Raises EngineUnavailable where the API server is away."""
        counts = {(each.agent, each.revision): each.count for each in actions if isinstance(each, Scale)}

        async def carry_out(action: Action) -> None:
            await self._carry_out(action, counts)

        return await act_in_order(actions, carry_out)

    def is_there(self, kind: Kind, name: str) -> bool:
        """Whether the cluster has an object of the fleet's, as far as is known."""
        return self._inventory.is_there(kind, name)

    def mask_changed(self) -> None:
        """Other secrets are taken out of what replicas write: the next look reads again what was read."""
        self._inventory.read_again()

    def used_secrets(self) -> frozenset[str]:
        """The Secrets that something in the cluster is made from, or would be."""
        inventory = self._inventory
        pods = [pod["spec"] for pod in inventory.items(POD)]
        pods += [
            each["spec"]["template"]["spec"] for kind in (DEPLOYMENT, STATEFUL_SET) for each in inventory.items(kind)
        ]
        pods += [read_template(each)["pod"]["spec"] for each in inventory.items(CONFIG_MAP)]
        return frozenset(name for pod in pods for name in secrets_of(pod))

    # What people ask.

    async def logs(
        self, *agents: str, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[LogLine]:
        """What the pods that there are wrote, the oldest first."""
        now = self._clock()
        for line in await self._logs.read(agents, since, tail, until=now if follow else None):
            yield self._masked(line)
        if follow:
            async with contextlib.aclosing(self._logs.follow(agents, now)) as lines:
                async for line in lines:
                    yield self._masked(line)

    async def usage(self) -> Mapping[str, Usage]:
        """By replica id, from metrics.k8s.io, which is asked now and then; nothing where the cluster does not have
        that."""
        now = self._clock()
        if abs(now - self._used_at) >= _USAGE_S:
            self._used_at = now
            self._usage = await read_usage(self._kubernetes, self._fleet, self._inventory.items(POD))
        return self._usage

    @contextlib.asynccontextmanager
    async def exec(self, replica: str, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[Command]:
        """By the API server, in the pod's container."""
        running = sorted(
            pod["metadata"]["name"]
            for pod in await self._pods()
            if replica in (replica_id(pod), labels_of(pod).get(names.RUN)) and pod["status"].get("phase") == "Running"
        )
        if not running:
            raise not_running(replica)
        async with open_command(self._streams, running[-1], CONTAINER, argv, tty=tty) as command:
            yield command

    # Within.

    async def _pods(self) -> Sequence[Mapping[str, Any]]:
        """As the watch tells them, which costs the API server nothing; listed where there is none."""
        known = self._inventory.known(POD)
        return (await self._kubernetes.list(POD, {names.FLEET: self._fleet}))[0] if known is None else known

    def _masked(self, line: LogLine) -> LogLine:
        return LogLine(line.replica, line.agent, self._mask(line.text), line.stream, line.at)

    async def _carry_out(self, action: Action, counts: Mapping[tuple[str, str], int]) -> None:
        match action:
            case EnsureRevision():
                await self._ensure(action, counts.get((action.agent, action.revision), 0))
            case Scale():
                await self._scale(action)
            case Autoscale():
                await self._autoscale(action)
            case RunJob():
                await self._run(action)
            case Remove():
                await self._remove(action)

    async def _ensure(self, action: EnsureRevision, count: int) -> None:
        """Makes what the revision is, with the count that it is about to get. One that is there stays as it is: another
        one would restart replicas. What the agent has beside them is put back."""
        private = private_variables(action.agent, action.environment, action.revision)
        if private:
            missed = self._inventory.parts(action.agent).lacks_variables
            await self._private.ensure(render_wiring_secret(self._fleet, action.agent, private), missed=missed)
        name = revision_name(action.agent, action.revision)
        if not (self._inventory.item(DEPLOYMENT, name) or self._inventory.item(CONFIG_MAP, name)):
            for item in render_revision(self._fleet, action, private, self.settings):
                await self._make(started_with(item, count))
        await self._companions.keep(action.agent)

    async def _make(self, item: Object) -> None:
        """Unless it is there; a claim is taken whoever made it. Raises EngineError where it is of somebody else."""
        kind = kind_of(item)
        made: Mapping[str, Any] | None = await self._kubernetes.make(kind, item)
        if made is None and kind != CLAIM:
            made = await find_ours(self._kubernetes, self._fleet, item)
        if made is not None and kind != CLAIM:
            self._inventory.put(kind, made)

    async def _scale(self, action: Scale) -> None:
        if action.count > 1:
            await self._companions.budget(action.agent)
        name = revision_name(action.agent, action.revision)
        if self._inventory.item(CONFIG_MAP, name) is not None:
            await self._scale_stateful(action)
            return
        deployment = self._inventory.item(DEPLOYMENT, name)
        if deployment is None:
            raise EngineError(f"agents.{action.agent}: revision {action.revision} is not known; ensure it first")
        await self._condemn(action)

        def render(there: Mapping[str, Any], taken: bool) -> Object | None:
            # Applied where it is taken, so that it is Shoal's from then on even if another one had set the same.
            right = there["spec"].get("replicas", 1) == action.count
            return None if right and not taken else render_count(name, action.count)

        there = self._inventory.item(DEPLOYMENT, name) or deployment  # victims took their time
        await write_count(self._kubernetes, self._inventory, DEPLOYMENT, there, action, render)

    async def _condemn(self, action: Scale) -> None:
        """Of the pods of a Deployment those of the least cost go first. One that was to go and is there still, as
        another broke meanwhile and went in its place, is not to go next time."""
        condemned = {
            pod["metadata"]["name"]
            for pod in self._inventory.parts(action.agent).pods
            if names.DELETION_COST in (pod["metadata"].get("annotations") or {})
            and labels_of(pod)[names.REVISION] == action.revision
        }
        costs = dict.fromkeys(condemned.difference(action.victims)) | dict.fromkeys(action.victims, _LEAST_COST)
        failures: list[EngineError] = []

        async def mark(pod: str, cost: str | None) -> None:
            try:
                await self._kubernetes.patch(POD, pod, {"metadata": {"annotations": {names.DELETION_COST: cost}}})
            except EngineError as error:
                if not isinstance(error, KubernetesError) or error.status != 404:  # gone already
                    failures.append(error)

        async with asyncio.TaskGroup() as tasks:
            for pod, cost in costs.items():
                tasks.create_task(mark(pod, cost))
        if failures:
            raise failures[0]

    async def _scale_stateful(self, action: Scale) -> None:
        there = self._inventory.item(STATEFUL_SET, action.agent)
        wanted = self._render_stateful(action, there)
        await self._companions.govern(action.agent, wanted["spec"]["template"])
        there = there or await find_ours(self._kubernetes, self._fleet, wanted)
        if there is None:
            self._inventory.put(STATEFUL_SET, await self._kubernetes.apply(STATEFUL_SET, wanted, force=True))
            return
        await write_count(
            self._kubernetes, self._inventory, STATEFUL_SET, there, action,
            lambda as_it_is, _: self._render_stateful(action, as_it_is),
        )  # fmt: skip

    def _render_stateful(self, action: Scale, there: Mapping[str, Any] | None) -> Object:
        """What the StatefulSet is to be, from how it is."""
        pods = self._inventory.parts(action.agent).pods
        ordinals = scaled(read_ordinals(there, pods) if there is not None else Ordinals(), action)
        kept = self._inventory.item(CONFIG_MAP, revision_name(action.agent, ordinals.rolled_out))
        if kept is None:
            raise EngineError(f"agents.{action.agent}: revision {ordinals.rolled_out} is not known; ensure it first")
        claims = there["spec"].get("volumeClaimTemplates") if there is not None else None
        return render_stateful(self._fleet, action.agent, read_template(kept), ordinals, claims)

    async def _autoscale(self, action: Autoscale) -> None:
        name = autoscaler_name(action.agent)
        there = self._inventory.item(AUTOSCALER, name)
        ours = there is not None and labels_of(there).get(names.FLEET) == self._fleet
        if action.revision is None:
            if ours:
                await self._kubernetes.delete(AUTOSCALER, name)
                self._inventory.drop(AUTOSCALER, name)
            return
        if there is not None and not ours:
            raise EngineError(
                f"agents.{action.agent}: the HorizontalPodAutoscaler {name} in {self._kubernetes.namespace} is not "
                "ours: remove it, or take `autoscaler: native` out of the file"
            )
        has_replicas = revision_name(action.agent, action.revision)
        stateful = self._inventory.item(CONFIG_MAP, has_replicas) is not None
        target = (STATEFUL_SET.name, action.agent) if stateful else (DEPLOYMENT.name, has_replicas)
        wanted = render_autoscaler(self._fleet, action.agent, action.revision, action.rules, target)
        if there is None or not is_as_applied(wanted, there) or drift_of(wanted, there):
            self._inventory.put(AUTOSCALER, await self._kubernetes.apply(AUTOSCALER, wanted, force=True))

    async def _run(self, action: RunJob) -> None:
        if self._inventory.item(JOB, object_name(action.run_id)) is not None:
            return
        kept = self._inventory.item(CONFIG_MAP, revision_name(action.agent, action.revision))
        if kept is None:
            raise EngineError(f"agents.{action.agent}: revision {action.revision} is not known; ensure it first")
        await self._make(render_run(self._fleet, read_template(kept), action, self._clock()))
        await self._forget_old_runs(action.agent)

    async def _forget_old_runs(self, agent: str) -> None:
        runs = read_agent(agent, self._inventory.parts(agent)).runs
        ended = [run for run in runs if run.phase in (Phase.SUCCEEDED, Phase.FAILED)]
        for run in ended[: max(0, len(ended) - RUNS_KEPT + 1)]:
            await self._kubernetes.delete(JOB, object_name(run.run_id))

    async def _remove(self, action: Remove) -> None:
        parts = self._inventory.parts(action.agent)
        if action.revision is not None:
            name = revision_name(action.agent, action.revision)
            for kind in (DEPLOYMENT, CONFIG_MAP):
                if self._inventory.item(kind, name) is not None:
                    await self._kubernetes.delete(kind, name)
                    self._inventory.drop(kind, name)
            await self._private.remove(action.agent, action.revision)
            return
        for kind, items in (
            (AUTOSCALER, [each for each in parts.autoscalers if labels_of(each).get(names.FLEET) == self._fleet]),
            (DEPLOYMENT, parts.deployments),
            (STATEFUL_SET, parts.stateful_sets),
            (JOB, parts.jobs),
            (CONFIG_MAP, parts.templates),
        ):
            for item in items:
                await self._kubernetes.delete(kind, item["metadata"]["name"])
                self._inventory.drop(kind, item["metadata"]["name"])
        await self._companions.remove(action.agent)
        await self._private.remove(action.agent, None)
