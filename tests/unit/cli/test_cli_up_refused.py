"""An `up` that is refused where it would put Shoal's own objects: what is stored then, and that it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.api.views import StatusView
from shoal.cli.kubernetes.place import KubernetesPlace
from shoal.cli.local.place import LocalPlace
from shoal.cli.stored_fleet import read_stored
from shoal.control.document_store import DocumentStore
from shoal.control.kubernetes_keeper import KubernetesKeeper
from shoal.control.store import StoredFleet
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, NETWORK_POLICY
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.errors import ControllerUnavailable
from shoal.spec.model import Fleet
from tests.fake_kubernetes import NO_LABELS, SERVER, FakeKubernetes
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import STATUS

TEXT = "fleet: f\nengine: kubernetes\nagents:\n  web: {image: acme/web:1, port: 80}\n"
BEFORE = Fleet.model_validate({"fleet": "f", "engine": "kubernetes", "agents": {"web": {"image": "acme/web:0"}}})


class Cluster(FakeKubernetes):
    """Some of what is done there is refused: of `list` the kinds in `unlisted`, the Deployments that are applied, in a
    trial too or not before it is meant, and single objects."""

    def __init__(self) -> None:
        super().__init__()
        self.unlisted: set[str] = set()
        self.full: bool | None = None
        self.refused: dict[tuple[str, str], tuple[int, str]] = {}  # by kind and name

    async def version(self) -> tuple[int, int]:
        return 1, 34

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        if kind.plural in self.unlisted:
            said = f'User "me" cannot list resource "{kind.plural}" in API group "{kind.group}"'
            raise refusal(SERVER, f"list {kind.plural}", 403, {"reason": "Forbidden", "message": said})
        return await super().list(kind, labels, fields=fields)

    async def apply(self, kind: Kind, item: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        if kind == DEPLOYMENT and self.full is not None and (self.full or not more.get("dry_run")):
            raise refusal(SERVER, "apply Deployment", 403, {"message": "exceeded quota: small"})
        if told := self.refused.get((kind.name, item["metadata"]["name"])):
            raise refusal(SERVER, f"apply {kind.name}", told[0], {"message": told[1]})
        return await super().apply(kind, item, **more)


class Controller:
    """One that tells of generation 1, and can be told nothing."""

    async def status(self) -> StatusView:
        return replace(STATUS, observed_generation=1)

    async def apply(self) -> None:
        raise AssertionError

    async def queues(self) -> list[object]:
        return []


@pytest.fixture
def cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """With generation 1 of the fleet, and its controller."""
    made = Cluster()

    @asynccontextmanager
    async def connect(_place: KubernetesPlace) -> AsyncGenerator[FakeKubernetes]:
        yield made

    monkeypatch.setattr(KubernetesPlace, "kubernetes", connect)
    monkeypatch.setattr(KubernetesPlace, "client", lambda _place: Controller())  # type: ignore[arg-type]
    (home / "shoal.yaml").write_text(TEXT)
    store = DocumentStore(KubernetesKeeper(made, "f"))
    asyncio.run(store.write_fleet(BEFORE, directory="/", by="a", at=0, expected_generation=0))
    return made


def stored(cluster: Cluster) -> StoredFleet:
    found = asyncio.run(DocumentStore(KubernetesKeeper(cluster, "f")).read_fleet())
    assert found is not None
    return found


def test_who_may_not_look_at_roles_stores_nothing(cluster: Cluster, run: Run) -> None:
    """As the built-in role `edit` has it."""
    cluster.unlisted = {"roles", "rolebindings"}
    done = run("up", "-d")
    assert done.code == 1 and "me lacks the right to list role" in done.err
    assert "No new generation is stored, and nothing that runs changes." in done.err
    assert (stored(cluster).generation, stored(cluster).fleet) == (1, BEFORE)


def test_what_is_refused_in_a_trial_is_not_begun(cluster: Cluster, run: Run) -> None:
    """Nothing of it is made."""
    cluster.full = True
    done = run("up", "-d")
    assert done.code == 1 and "exceeded quota: small" in done.err and "No new generation is stored" in done.err
    assert stored(cluster).generation == 1 and not cluster.of(NETWORK_POLICY)


@pytest.mark.parametrize("refused", [("Service", "shoal-gateway"), ("StatefulSet", "shoal-broker")])
def test_what_the_controller_makes_is_tried_too(cluster: Cluster, run: Run, refused: tuple[str, str]) -> None:
    """Gateways and broker: what is wrong with them would be refused to the controller for ever."""
    cluster.refused[refused] = 422, "nodePort: Invalid value: 30080: provided port is already allocated"
    done = run("up", "-d", "--set", "agents.web.queue=tasks", "--set", "agents.web.port=null")
    assert done.code == 1 and "already allocated" in done.err and "No new generation is stored" in done.err
    assert stored(cluster).generation == 1 and not cluster.of(NETWORK_POLICY)


def test_who_may_not_make_what_the_controller_makes(cluster: Cluster, run: Run) -> None:
    """Has it made by the controller, which may."""
    cluster.unlisted = {"statefulsets"}
    said = 'User "me" cannot patch resource "services" in API group ""'
    cluster.refused["Service", "shoal-gateway"] = 403, said
    done = run("up", "-d", "--set", "agents.web.queue=tasks", "--set", "agents.web.port=null")
    assert stored(cluster).generation == 2, done.err
    assert cluster.of(DEPLOYMENT) and "me lacks the right" not in done.err


def test_what_is_refused_only_in_earnest_is_told_with_what_is_stored(cluster: Cluster, run: Run) -> None:
    """And again as long as the controller was not told of it, though nothing differs any more."""
    cluster.full = False
    first, again = run("up", "-d"), run("up", "-d")
    assert "objects that Shoal itself needs were made or changed before" in first.err and "No changes" in again.err
    for done in (first, again):
        assert done.code == 1 and "exceeded quota: small" in done.err
        assert "Generation 2 is stored all the same, and a controller rolls it out as soon as it is told" in done.err
        assert "until then generation 1 runs" in done.err
    assert stored(cluster).generation == 2


def test_on_one_machine_too(directory: Path, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the controller does not start."""

    async def fail(*_: object) -> None:
        raise ControllerUnavailable("the controller could not start")

    (home / "shoal.yaml").write_text("fleet: warehouse\nagents: {web: {command: x, port: 1}}\n")
    monkeypatch.setattr(LocalPlace, "tell_or_start", fail)
    done = run("up", "-d")
    assert done.code == 1
    assert "could not start\n\nGeneration 1 is stored all the same, and a controller rolls it out as soon" in done.err
    found = asyncio.run(read_stored(LocalPlace(directory, "warehouse")))
    assert found is not None and found.generation == 1
