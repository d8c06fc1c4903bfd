"""What secrets hold, on a real Kubernetes."""

from __future__ import annotations

import base64
from contextlib import nullcontext

import pytest
from kubernetes_namespace import a_namespace

from shoal.control.kubernetes_contents import KubernetesContents
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.engines.kubernetes.names import secret_name

pytestmark = pytest.mark.kubernetes

CONTENT = b"\0s3cret" * 70_000  # nearly as large as Shoal takes


async def test_contents_are_kept_found_and_forgotten() -> None:
    """By whoever has the namespace; nobody changes one in place, and what nothing names goes."""
    async with a_namespace() as kubernetes:
        contents = await KubernetesContents.open(lambda: nullcontext(kubernetes), "f", make=True)
        digest = await contents.put("A" * 64, CONTENT)
        other = await contents.put("TOKEN", b"other")
        assert await contents.put("TOKEN", b"other") == other
        again = await KubernetesContents.open(lambda: nullcontext(kubernetes), "f")
        assert again.has("A" * 64, digest) and again.digest(CONTENT) == digest
        kept = await kubernetes.get(SECRET, secret_name("A" * 64, digest))
        assert base64.b64decode(kept["data"]["A" * 64]) == CONTENT
        with pytest.raises(KubernetesError, match="immutable"):
            await kubernetes.replace(SECRET, {**kept, "data": {}})
        await again.release("TOKEN", other)
        await again.prune([digest], unnamed_s=3600)
        found, _ = await kubernetes.list(SECRET, {"shoal.dev/role": "secret"})
        assert {each["metadata"]["name"] for each in found} == {"shoal-key", kept["metadata"]["name"]}
        assert all("data" not in each for each in await kubernetes.list_metadata(SECRET, {"shoal.dev/fleet": "f"}))
