"""What secrets hold on Kubernetes: kept by HMAC in objects that never change, and gone only when nothing names them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest

from shoal.control.kubernetes_contents import KubernetesContents
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.names import secret_name
from shoal.errors import EngineUnavailable, StoreError
from tests.fake_kubernetes import FakeKubernetes


async def contents_of(kubernetes: FakeKubernetes, fleet: str = "f", *, make: bool = True) -> KubernetesContents:
    return await KubernetesContents.open(
        lambda: nullcontext(kubernetes), fleet, make=make, clock=lambda: kubernetes.now
    )


def names_in(kubernetes: FakeKubernetes) -> set[str]:
    return set(kubernetes.of(SECRET)) - {"shoal-key"}


async def test_a_content_is_a_secret_named_by_its_hmac() -> None:
    """Of the fleet's own key, which the first one makes and all others use."""
    kubernetes = FakeKubernetes()
    first = await contents_of(kubernetes)
    digest = await first.put("TOKEN", b"s3cret\0")
    second = await contents_of(kubernetes)
    assert second.digest(b"s3cret\0") == digest != second.digest(b"other")
    assert second.has("TOKEN", digest) and not second.has("OTHER", digest)
    made = kubernetes.of(SECRET)[secret_name("TOKEN", digest)]
    assert made["immutable"] and made["type"] == "Opaque"
    assert base64.b64decode(made["data"]["TOKEN"]) == b"s3cret\0"
    assert (await contents_of(FakeKubernetes())).digest(b"s3cret\0") != digest
    assert await second.put("TOKEN", b"s3cret\0") == digest and len(names_in(kubernetes)) == 1


@pytest.mark.parametrize("name", ["A" * 64, "_", "a.b-c_d", "9" * 64, "TOKEN_"])
async def test_whatever_a_secret_is_called(name: str) -> None:
    """It is a name in the file, not in the cluster: what that has no letters for is told in another place."""
    kubernetes = FakeKubernetes()
    digest = await (await contents_of(kubernetes)).put(name, b"s3cret")
    assert (await contents_of(kubernetes)).has(name, digest)


async def test_two_secrets_may_hold_the_same() -> None:
    """Though their names differ in letters alone that names of objects don't have."""
    kubernetes = FakeKubernetes()
    contents = await contents_of(kubernetes)
    for name in ("api_key", "API_KEY", "api-key"):
        digest = await contents.put(name, b"s3cret")
        assert kubernetes.of(SECRET)[secret_name(name, digest)]["data"].keys() == {name}


async def test_of_two_who_begin_one_makes_the_key() -> None:
    """And the other one uses it."""
    kubernetes = FakeKubernetes()
    beside: list[KubernetesContents] = []

    class Late(FakeKubernetes):
        async def create(self, kind: Kind, item: Mapping[str, Any]) -> dict[str, Any]:
            if not beside:
                beside.append(await contents_of(kubernetes))
            return await super().create(kind, item)

    late = Late()
    late.kept = kubernetes.kept
    assert (await contents_of(late)).digest(b"x") == beside[0].digest(b"x")


async def test_looking_makes_nothing() -> None:
    """A plan leaves no trace."""
    kubernetes = FakeKubernetes()
    contents = await contents_of(kubernetes, make=False)
    assert not contents.has("TOKEN", contents.digest(b"x"))
    assert not any(kubernetes.kept.values())


async def test_what_nothing_names_goes() -> None:
    """But for what is young enough to be named soon, and Shoal's own."""
    kubernetes = FakeKubernetes()
    labels = {"shoal.dev/fleet": "f", "shoal.dev/role": "secret", "shoal.dev/agent": "a"}
    about = {"name": "a-registry", "labels": labels}
    await kubernetes.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": {}})
    contents = await contents_of(kubernetes)
    kept, old = [await contents.put("TOKEN", value) for value in (b"kept", b"old")]
    kubernetes.now += 3600
    young = await contents.put("TOKEN", b"young")
    await contents.prune([kept], unnamed_s=1800)
    assert names_in(kubernetes) == {"a-registry", secret_name("TOKEN", kept), secret_name("TOKEN", young)}
    assert not contents.has("TOKEN", old) and contents.has("TOKEN", young)
    await contents.prune([kept])
    assert names_in(kubernetes) == {"a-registry", secret_name("TOKEN", kept)} and "shoal-key" in kubernetes.of(SECRET)


async def test_what_is_put_again_is_young_again() -> None:
    """Somebody is about to name it, however long it has been there; and what is released is old at once."""
    kubernetes = FakeKubernetes()
    contents = await contents_of(kubernetes)
    digest = await contents.put("TOKEN", b"s3cret")
    kubernetes.now += 7200
    await contents.put("TOKEN", b"s3cret")
    await contents.prune([], unnamed_s=3600)
    assert names_in(kubernetes) == {secret_name("TOKEN", digest)}
    await contents.release("TOKEN", digest)
    await contents.release("TOKEN", "never put")
    await contents.prune([digest], unnamed_s=3600)
    assert names_in(kubernetes) == {secret_name("TOKEN", digest)}  # pods may still be made from it
    await contents.prune([], unnamed_s=3600)
    assert not names_in(kubernetes)


async def test_what_goes_while_it_is_put_again_is_put_again() -> None:
    """Who found it there may find it gone when he says that he wants it."""
    kubernetes = FakeKubernetes()
    digest = await (await contents_of(kubernetes)).put("TOKEN", b"s3cret")
    gone: list[str] = []

    class Late(FakeKubernetes):
        async def patch(
            self, kind: Kind, name: str, change: Mapping[str, Any], sub: str | None = None
        ) -> dict[str, Any]:
            if not gone:
                gone.append(name)
                await self.delete(SECRET, name)
            return await super().patch(kind, name, change, sub)

    late = Late()
    late.kept = kubernetes.kept
    await (await contents_of(late)).put("TOKEN", b"s3cret")
    assert gone == [secret_name("TOKEN", digest)] and names_in(kubernetes) == set(gone)


async def test_what_was_put_here_is_masked() -> None:
    """Of what others put nothing is read."""
    kubernetes = FakeKubernetes()
    contents = await contents_of(kubernetes)
    assert contents.mask("it says s3cret-1") == "it says s3cret-1"
    await contents.put("TOKEN", b"s3cret-1")
    assert contents.mask("it says s3cret-1") == "it says ***"


async def test_another_fleets_namespace_is_refused() -> None:
    """Nothing is made in it."""
    kubernetes = FakeKubernetes()
    await contents_of(kubernetes, "g")
    with pytest.raises(StoreError, match=r"namespace f: found the key of fleet g, expected that of f: .* `namespace`"):
        await contents_of(kubernetes)
    assert not names_in(kubernetes)


async def test_a_cluster_that_is_away_is_told() -> None:
    """As what it is: nobody takes the contents for lost."""
    kubernetes = FakeKubernetes()
    await contents_of(kubernetes)
    kubernetes.away = EngineUnavailable("its etcd is away")
    with pytest.raises(EngineUnavailable):
        await contents_of(kubernetes)
