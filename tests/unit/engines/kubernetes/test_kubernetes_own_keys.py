"""The Secrets by which a fleet's parts and people are known: they belong together, whoever makes them, and when."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import POD, SECRET
from shoal.engines.kubernetes.api.refusals import KubernetesError, refusal
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.own_keys import Keys, ensure_keys, has_keys, read_admin_token
from shoal.errors import EngineError
from shoal.pki import Authority, JoinToken
from tests.fake_kubernetes import FakeKubernetes

OURS, THEIRS = Authority.create("shop", 0.0), Authority.create("shop", 0.0)


def keys_of(authority: Authority) -> Keys:
    return Keys(authority.certificate_pem.encode(), authority.key_pem.encode())


def held(cluster: FakeKubernetes, name: str, key: str = "token") -> str:
    return base64.b64decode(cluster.of(SECRET)[name]["data"][key]).decode()


def belongs_together(cluster: FakeKubernetes) -> bool:
    """Whether gateways find the authority that their token pins, and people a token of theirs."""
    JoinToken.parse(held(cluster, "shoal-join")).check_authority(held(cluster, "shoal-keys", "ca.pem"))
    return len(held(cluster, "shoal-admin")) >= 32


async def run(cluster: FakeKubernetes, role: Role, name: str, phase: str = "Running") -> None:
    about = {"name": name, "labels": fleet_labels("shop", role)}
    await cluster.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": about, "status": {"phase": phase}})


class Interrupted(FakeKubernetes):
    """One that refuses the second Secret, and every later one."""

    async def create(self, kind: Kind, item: Any) -> dict[str, Any]:
        if kind == SECRET and self.of(SECRET):
            raise refusal("fake://", "create", 403, {"reason": "Forbidden", "message": "exceeded quota: secrets"})
        return await super().create(kind, item)


async def test_a_start_that_was_interrupted_goes_on() -> None:
    """With the authority that is there already, though who goes on has made another one."""
    cluster = Interrupted()
    with pytest.raises(KubernetesError, match="exceeded quota"):
        await ensure_keys(cluster, "shop", keys_of(OURS))
    whole = FakeKubernetes()
    whole.kept = cluster.kept
    await ensure_keys(whole, "shop", keys_of(THEIRS) if not await has_keys(whole) else None)
    assert belongs_together(whole) and held(whole, "shoal-keys", "ca.pem") == OURS.certificate_pem


class Slow(FakeKubernetes):
    """One whose every call lets others come between."""

    async def get(self, kind: Kind, name: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return await super().get(kind, name)

    async def create(self, kind: Kind, item: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return await super().create(kind, item)


async def test_of_several_who_start_a_fleet_at_once_one_makes_it() -> None:
    """Each with an authority of his own; whoever comes second starts nobody anew."""
    cluster = Slow()
    async with asyncio.TaskGroup() as tasks:
        for authority in (OURS, THEIRS):
            tasks.create_task(ensure_keys(cluster, "shop", keys_of(authority)))
    assert belongs_together(cluster)
    await run(cluster, Role.CONTROLLER, "acts")
    await ensure_keys(cluster, "shop", keys_of(THEIRS))
    assert list(cluster.of(POD)) == ["acts"] and not cluster.writes


@pytest.mark.parametrize("name", ["shoal-join", "shoal-admin"])
async def test_a_token_that_was_removed_is_put_back_as_it_was(name: str) -> None:
    """And the controller reads it; gateways that run go on."""
    cluster = FakeKubernetes()
    await ensure_keys(cluster, "shop", keys_of(OURS))
    before = held(cluster, name)
    await run(cluster, Role.CONTROLLER, "acts")
    await run(cluster, Role.GATEWAY, "serves")
    await run(cluster, Role.GATEWAY, "waits", "Pending")
    await cluster.delete(SECRET, name)
    await ensure_keys(cluster, "shop", None)
    assert held(cluster, name) == before and belongs_together(cluster)
    assert list(cluster.of(POD)) == ["serves"]


async def test_a_join_token_for_another_authority_is_replaced() -> None:
    """As one is left where the authority was removed, or by a start that was interrupted; one that fits is not, even
    if somebody else made it."""
    cluster = FakeKubernetes()
    await ensure_keys(cluster, "shop", keys_of(THEIRS))
    admin = held(cluster, "shoal-admin")
    await cluster.delete(SECRET, "shoal-keys")
    await run(cluster, Role.CONTROLLER, "acts")
    await ensure_keys(cluster, "shop", keys_of(OURS))
    assert belongs_together(cluster) and held(cluster, "shoal-keys", "ca.pem") == OURS.certificate_pem
    assert held(cluster, "shoal-admin") == admin and not cluster.of(POD)
    given = str(JoinToken.create(OURS.certificate_pem))
    cluster.of(SECRET)["shoal-join"]["data"]["token"] = base64.b64encode(given.encode()).decode()
    await ensure_keys(cluster, "shop", None)
    assert held(cluster, "shoal-join") == given
    cluster.of(SECRET)["shoal-join"]["data"] = {}
    await ensure_keys(cluster, "shop", None)
    assert belongs_together(cluster)


async def test_a_secret_of_somebody_else_is_not_taken() -> None:
    """Nor an authority of which a part is missing."""
    cluster = FakeKubernetes()
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shoal-join"}, "data": {}}
    await cluster.create(SECRET, item)
    with pytest.raises(EngineError, match="the Secret shoal-join in f is not ours"):
        await ensure_keys(cluster, "shop", keys_of(OURS))
    del cluster.of(SECRET)["shoal-keys"]["data"]["ca-key.pem"]
    with pytest.raises(EngineError, match=r"the Secret shoal-keys has no ca-key\.pem"):
        await ensure_keys(cluster, "shop", None)


async def test_what_people_show() -> None:
    """Nothing before there is a fleet; and it is no other one's, nor the gateways'."""
    cluster = FakeKubernetes()
    assert await read_admin_token(cluster) is None
    await ensure_keys(cluster, "shop", keys_of(OURS))
    token = await read_admin_token(cluster)
    assert token is not None and token not in held(cluster, "shoal-join")
    other = FakeKubernetes()
    await ensure_keys(other, "shop", keys_of(THEIRS))
    assert token != await read_admin_token(other)
