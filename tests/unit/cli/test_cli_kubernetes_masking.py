"""What agents wrote, while no controller answers: without what secrets hold, as far as whoever looks may know that."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shoal.cli.kubernetes.place import KubernetesPlace
from shoal.control.document_store import DocumentStore
from shoal.control.kubernetes_keeper import KubernetesKeeper
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import POD, SECRET
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.spec.model import Fleet
from tests.fake_kubernetes import NO_LABELS, SERVER, FakeKubernetes

WEB = Fleet.model_validate({"fleet": "shop", "engine": "kubernetes", "agents": {"web": {"image": "acme/web:1"}}})


class Cluster(FakeKubernetes):
    """With a pod that wrote a secret, and `may` whoever looks list Secrets."""

    def __init__(self, *, may: bool) -> None:
        super().__init__()
        self._may = may

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        if kind == SECRET and not self._may:
            raise refusal(SERVER, "list secrets", 403, {"reason": "Forbidden", "message": "secrets is forbidden"})
        return await super().list(kind, labels, fields=fields)

    async def logs(self, pod: str, *, params: Mapping[str, str], follow: bool = False) -> AsyncGenerator[str, None]:
        yield "2026-01-01T00:00:01Z with hunter22"

    async def fill(self) -> None:
        state = {"terminated": {"exitCode": 3, "message": "with hunter22"}}
        labels = fleet_labels("shop", Role.REVISION, agent="web", revision="r1")
        await self.create(
            POD,
            {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "a", "labels": labels},
                "spec": {"containers": [{"name": "agent"}]},
                "status": {"containerStatuses": [{"name": "agent", "state": state, "restartCount": 0}]},
            },
        )  # fmt: skip
        about = {"name": "db", "labels": fleet_labels("shop", Role.SECRET)}
        data = {"DB": base64.b64encode(b"hunter22").decode()}
        await self.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": data})
        store = DocumentStore(KubernetesKeeper(self, "shop"))
        await store.write_fleet(WEB, directory="/", by="me", at=1.0, expected_generation=0)


@pytest.mark.parametrize("may", [True, False])
async def test_secrets_are_masked_with_the_rights_of_whoever_looks(
    may: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who may not list them reads what the pods' logs hold, and that nothing is masked there."""
    cluster = Cluster(may=may)
    await cluster.fill()

    @asynccontextmanager
    async def connect(self: KubernetesPlace) -> AsyncGenerator[FakeKubernetes]:
        yield cluster

    monkeypatch.setattr(KubernetesPlace, "kubernetes", connect)
    place = KubernetesPlace("shop", None, None, {})
    seen = await place.look()
    assert seen is not None
    logs = place.logs([], None, None)
    assert logs is not None
    words = "with ***" if may else "with hunter22"
    assert [line.text async for line in logs] == [words]
    assert seen.agents[0].replicas[0].last_log == (words,)
    said = capsys.readouterr().err
    assert said.count("you may not list Secrets in shop") == (0 if may else 2)
