"""The engine's steps where the API server or a kubelet is not what it should be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from shoal.core.action import EnsureRevision, Remove, RunJob, Scale
from shoal.core.revision import template_of
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.client import MANAGER
from shoal.engines.kubernetes.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    POD,
    POD_METRICS,
    SECRET,
)
from shoal.engines.kubernetes.engine import KubernetesEngine
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.errors import EngineUnavailable, NotFound
from shoal.spec.model import Fleet
from tests.fake_kubernetes import FakeKubernetes

Object = dict[str, Any]
COST = "controller.kubernetes.io/pod-deletion-cost"


class Cluster(FakeKubernetes):
    """One that an engine has listed; its kubelets never answer. `applied` has the names of what was applied."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[str] = []

    async def patch(self, kind: Kind, name: str, change: Mapping[str, Any], sub: str | None = None) -> Object:
        if kind != DEPLOYMENT:
            return await super().patch(kind, name, change, sub)
        found = self.of(DEPLOYMENT)[name]
        return self._write(DEPLOYMENT, {**found, "spec": {**found["spec"], **change["spec"]}})

    async def apply(
        self, kind: Kind, item: Mapping[str, Any], *, force: bool = False, manager: str = "", dry_run: bool = False
    ) -> Object:
        name = item["metadata"]["name"]
        self.before_write()
        self._refuse_outdated(kind, item)
        self.applied.append(name)
        there = self.of(kind).pop(name, {"metadata": {}})
        made: Object = {**there, **item, "metadata": {**there["metadata"], **item["metadata"]}}
        if "spec" in item:
            made["spec"] = {**there.get("spec", {}), **item["spec"]}
        if "managedFields" in made["metadata"]:
            made["metadata"]["managedFields"] = [{"manager": manager or MANAGER, "fieldsV1": fields_of(item)}]
        return await self.create(kind, made)

    async def watch(
        self, kind: Kind, labels: Mapping[str, str], version: str, *, fields: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]:
        await asyncio.Event().wait()
        yield "", {}

    async def logs(self, pod: str, *, params: Mapping[str, str], follow: bool = False) -> AsyncGenerator[str, None]:
        await asyncio.Event().wait()
        yield ""

    async def add(self, kind: Kind, name: str, role: Role, **more: Any) -> None:
        labels = fleet_labels("shop", role, agent="web", revision="r1")
        annotations = more.pop("annotations", {})
        about = {"name": name, "uid": name, "labels": labels, "annotations": annotations}
        item: Object = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": about, "data": {}, **more}
        await self.create(kind, item)

    async def add_pod(self, name: str, **more: Any) -> None:
        state = {"terminated": {"exitCode": 3}}
        status = {"containerStatuses": [{"name": "agent", "state": state, "restartCount": 0}]}
        await self.add(POD, name, Role.REVISION, spec={"containers": [{"name": "agent"}]}, status=status, **more)

    def touch(self, item: Object) -> None:
        """It is of another version."""
        item["metadata"]["resourceVersion"] = str(next(self._versions))

    def cost_of(self, pod: str) -> str | None:
        return self.of(POD)[pod]["metadata"]["annotations"].get(COST)


def fields_of(item: Mapping[str, Any]) -> Object:
    """What the API server notes of who applied it: of each field of its `spec`, as a whole."""
    return {"f:spec": {f"f:{key}": {} for key in item.get("spec", {})}}


async def on(cluster: Cluster, act: Any, **more: Any) -> None:
    """Lets an engine act that has listed all of it."""
    engine = KubernetesEngine(cluster, "shop", **more)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(engine.run())
        await engine._inventory.ready()  # pyright: ignore[reportPrivateUsage]
        try:
            await act(engine)
        finally:
            watching.cancel()


async def test_what_is_used_is_asked_now_and_then() -> None:
    """However often control wants to know: the cluster measures every fifteen seconds."""
    now, asked = 100.0, list[float]()

    class Measured(Cluster):
        async def list(self, kind: Kind, *more: Any, **options: Any) -> tuple[list[Object], str]:
            if kind == POD_METRICS:
                asked.append(now)
                return [measured("a", agent=("250m", "1Mi"))], ""
            return await super().list(kind, *more, **options)

    cluster = Measured()
    await cluster.add_pod("a")
    engine = KubernetesEngine(cluster, "shop", clock=lambda: now)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(engine.run())
        await engine._inventory.ready()  # pyright: ignore[reportPrivateUsage]
        for _ in range(10):
            assert (await engine.usage())["a"].cpu_cores == 0.25
            now += 1.0
        watching.cancel()
    assert asked == [100.0, 103.0, 106.0, 109.0]


async def test_what_is_beside_an_agent_in_its_pod_does_not_count() -> None:
    """Such as the proxy of a mesh; of a pod whose agent was not measured yet nothing is known."""
    cluster = Cluster()
    for name in ("a", "b"):
        await cluster.add_pod(name)
    cluster.of(POD_METRICS)["a"] = measured("a", **{"istio-proxy": ("2", "1Gi"), "agent": ("250m", "1Mi")})
    cluster.of(POD_METRICS)["b"] = measured("b", **{"istio-proxy": ("2", "1Gi")})

    async def act(engine: KubernetesEngine) -> None:
        found = await engine.usage()
        assert {name: (each.cpu_cores, each.memory_bytes) for name, each in found.items()} == {"a": (0.25, 2**20)}

    await on(cluster, act)


def measured(pod: str, **containers: tuple[str, str]) -> Object:
    """A pod's use, by container CPU and memory."""
    used = [{"name": name, "usage": {"cpu": cpu, "memory": memory}} for name, (cpu, memory) in containers.items()]
    about = {"name": pod, "labels": {names.FLEET: "shop"}}
    return {"metadata": about, "timestamp": "2026-01-01T00:00:00Z", "containers": used}


async def test_who_goes_is_marked_and_who_was_spared_is_not_any_more() -> None:
    """A victim that is gone by itself is no failure."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 3})
    for name in ("a", "b"):
        await cluster.add_pod(name)
    await cluster.add_pod("spared", annotations={COST: "-2147483648"})

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([Scale("web", "r1", 1, ("a", "gone"))]) == ()

    await on(cluster, act)
    assert (cluster.cost_of("a"), cluster.cost_of("b"), cluster.cost_of("spared")) == ("-2147483648", None, None)
    assert cluster.of(DEPLOYMENT)["web-r1"]["spec"]["replicas"] == 1


async def test_a_revision_is_made_with_the_count_that_it_gets() -> None:
    """One call where two would do the same; the next count is a call of its own."""
    cluster = Cluster()
    document = {"fleet": "shop", "engine": "kubernetes", "agents": {"web": {"image": "acme/web:1", "port": 80}}}
    template = template_of(Fleet.model_validate(document), "web", {})
    web = EnsureRevision("web", "r1", template, {})
    made: list[int] = []

    async def act(engine: KubernetesEngine) -> None:
        for count in (3, 4):
            assert await engine.act([web, Scale("web", "r1", count)]) == ()
            made.append(int(cluster.of(DEPLOYMENT)["web-r1"]["metadata"]["resourceVersion"]))
            assert cluster.of(DEPLOYMENT)["web-r1"]["spec"]["replicas"] == count

    await on(cluster, act)
    assert made[1] == made[0] + 2, "and the budget of more than one in between"


async def test_a_server_that_goes_away_while_victims_are_marked() -> None:
    """Is told as one, and nobody is scaled without them."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 3})
    await cluster.add_pod("a")

    async def act(engine: KubernetesEngine) -> None:
        cluster.away = EngineUnavailable("no route")
        with pytest.raises(EngineUnavailable, match="no route"):
            await engine.act([Scale("web", "r1", 2, ("a",))])

    await on(cluster, act)
    assert cluster.of(DEPLOYMENT)["web-r1"]["spec"]["replicas"] == 3


async def test_old_runs_are_forgotten_without_losing_news() -> None:
    """What changed is still to be looked at: who failed meanwhile."""
    cluster = Cluster()
    await cluster.add(CONFIG_MAP, "web-r1", Role.TEMPLATE, data={"template.json": TEMPLATE})
    await cluster.add_pod("a")

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([RunJob("web", "r1", "web-1")]) == ()
        (replica,) = (await engine.observe()).agents["web"].replicas
        assert replica.reason == "exit code 3"

    await on(cluster, act)


def worker(password: str, name: str = "web") -> EnsureRevision:
    """The action for an agent that is told a password."""
    agent = {"image": "acme/web", "command": "work", "queue": "tasks"}
    fleet = Fleet.model_validate({"fleet": "shop", "queues": {"tasks": {}}, "agents": {name: agent}})
    url = {"SHOAL_QUEUE_TASKS_URL": f"nats://{name}:{password}@broker:4222"}
    return EnsureRevision(name, "r1", template_of(fleet, name, {}), url)


async def test_private_variables_that_somebody_else_made_are_brought_to_what_they_have_to_be() -> None:
    """He made them since they were listed."""
    cluster = Cluster()

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([worker("one", "other")]) == ()  # now they are listed
        await cluster.add(SECRET, "web-wiring-r1", Role.SECRET)
        assert await engine.act([worker("one")]) == ()

    await on(cluster, act)
    assert cluster.applied == ["web-wiring-r1"]
    assert "SHOAL_QUEUE_TASKS_URL" in cluster.of(SECRET)["web-wiring-r1"]["data"]


async def test_private_variables_are_there_whoever_made_the_deployment() -> None:
    """Made once, of whatever is not ours nothing; another password is applied, also by who comes next; without its
    revision it is gone."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 1})
    await cluster.add(SECRET, "web-wiring-r0", Role.SECRET)

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([worker("one"), worker("one")]) == ()

    async def act_later(engine: KubernetesEngine) -> None:
        assert await engine.act([worker("one"), worker("two"), Remove("web", "r1")]) == ()
        assert list(cluster.of(SECRET)) == ["web-wiring-r0"]
        assert await engine.act([Remove("web")]) == ()

    await on(cluster, act)
    assert cluster.applied == []
    held = cluster.of(SECRET)["web-wiring-r1"]["data"]["SHOAL_QUEUE_TASKS_URL"]
    assert base64.b64decode(held) == b"nats://web:one@broker:4222"
    await on(cluster, act_later)
    assert cluster.applied == ["web-wiring-r1"] and not cluster.of(SECRET)


async def test_private_variables_that_somebody_removed_are_made_again() -> None:
    """Once a replica waits for them, which Kubernetes tells; they are told before they are there, so that nothing that
    they hold is shown."""
    cluster, told = Cluster(), list[bool]()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 1})
    about = {"reason": "CreateContainerConfigError", "message": 'secret "web-wiring-r1" not found'}

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([worker("one")]) == ()
        await cluster.delete(SECRET, "web-wiring-r1")
        assert await engine.act([worker("one")]) == () and not cluster.of(SECRET)
        assert not (await engine.observe()).agents["web"].lacking
        status = {"containerStatuses": [{"name": "agent", "state": {"waiting": about}, "restartCount": 0}]}
        await cluster.add(POD, "web-r1-a", Role.REVISION, spec={"containers": [{"name": "agent"}]}, status=status)
        engine._inventory.put(POD, cluster.of(POD)["web-r1-a"])  # pyright: ignore[reportPrivateUsage]
        found = (await engine.observe()).agents["web"]
        assert found.lacking and "`shoal up` puts it back" in found.replicas[0].reason
        assert await engine.act([worker("one")]) == () and list(cluster.of(SECRET)) == ["web-wiring-r1"]

    await on(cluster, act, told_secret=lambda item: told.append(item["metadata"]["name"] in cluster.of(SECRET)))
    assert told == [False, False]


async def test_more_than_one_replica_has_a_budget() -> None:
    """Made once; it goes with the agent."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 0})

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([Scale("web", "r1", 1)]) == ()
        assert not cluster.of(DISRUPTION_BUDGET)
        assert await engine.act([Scale("web", "r1", 2), Scale("web", "r1", 3)]) == ()
        assert list(cluster.of(DISRUPTION_BUDGET)) == ["web"]
        assert await engine.act([Remove("web")]) == ()
        assert not cluster.of(DISRUPTION_BUDGET)

    await on(cluster, act)


TEMPLATE = '{"role": "run", "claims": [], "pod": {"metadata": {"labels": {}}, "spec": {}}}'


async def test_last_words_are_masked_anew_when_other_secrets_are_known() -> None:
    """Though nothing of the pod changed since."""
    cluster, hidden = Cluster(), ""
    state = {"terminated": {"exitCode": 3, "message": "with hunter22"}}
    status = {"containerStatuses": [{"name": "agent", "state": state, "restartCount": 0}]}
    await cluster.add(POD, "a", Role.REVISION, spec={"containers": [{"name": "agent"}]}, status=status)
    engine = KubernetesEngine(cluster, "shop", mask=lambda text: text.replace(hidden, "***") if hidden else text)

    async def last_log() -> tuple[str, ...]:
        return (await engine.observe()).agents["web"].replicas[0].last_log

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(engine.run())
        assert await last_log() == ("with hunter22",)
        hidden = "hunter22"
        engine.mask_changed()
        assert await last_log() == ("with ***",)
        assert (await engine.observe()).agents["web"] is (await engine.observe()).agents["web"]
        watching.cancel()


async def test_who_looks_into_pods_takes_no_connection_of_the_controllers() -> None:
    """Nor is the API server asked for the pods that its watch tells: for each who follows they were listed each
    second."""

    class Asked(Cluster):
        """One that notes what is asked of it."""

        def __init__(self) -> None:
            super().__init__()
            self.asked: list[str] = []

        async def list(self, kind: Kind, *more: Any, **options: Any) -> tuple[list[Object], str]:
            self.asked.append(f"list {kind.plural}")
            return await super().list(kind, *more, **options)

        async def logs(self, pod: str, *, params: Mapping[str, str], follow: bool = False) -> AsyncGenerator[str, None]:
            self.asked.append(f"logs of {pod}")
            yield "2026-01-01T00:00:01Z hello"

        @contextlib.asynccontextmanager
        async def websocket(self, path: str, params: Any, protocol: str) -> AsyncGenerator[Any]:
            self.asked.append(path.rpartition("/")[2])
            yield SimpleNamespace(protocol=protocol)

    cluster, streams = Asked(), Asked()
    state = {"running": {}}
    status = {"phase": "Running", "containerStatuses": [{"name": "agent", "state": state, "restartCount": 0}]}
    await cluster.add(POD, "a", Role.REVISION, spec={"containers": [{"name": "agent"}]}, status=status)
    engine = KubernetesEngine(cluster, "shop", streams=streams)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(engine.run())
        await engine.observe()
        cluster.asked.clear()
        assert [line.text async for line in engine.logs("web")] == ["hello"]
        async with engine.exec("a", ["true"], tty=False):
            pass
        with pytest.raises(NotFound, match="other"):
            async with engine.exec("other", ["true"], tty=False):
                pass
        watching.cancel()
    assert (cluster.asked, streams.asked) == ([], ["logs of a", "exec"])
