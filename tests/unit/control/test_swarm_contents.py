"""What secrets hold on Docker Swarm: kept by HMAC, and never read back."""

from __future__ import annotations

from contextlib import nullcontext

from shoal.control.swarm_contents import SwarmContents
from tests.fake_docker import FakeDocker


async def contents_of(docker: FakeDocker, *, make: bool = True) -> SwarmContents:
    return await SwarmContents.open(lambda: nullcontext(docker), "f", make=make)


async def test_a_content_is_a_secret_named_by_its_hmac() -> None:
    """Of the fleet's own key, which the first one makes and all others use."""
    docker = FakeDocker()
    first = await contents_of(docker)
    digest = await first.put("TOKEN", b"s3cret")
    second = await contents_of(docker)
    assert second.digest(b"s3cret") == digest != second.digest(b"other")
    assert second.has("TOKEN", digest) and not second.has("OTHER", digest)
    (name,) = docker.kept["secrets"]
    assert name == f"f_TOKEN_{digest[:12]}"
    assert (await contents_of(FakeDocker())).digest(b"s3cret") != digest
    assert await second.put("TOKEN", b"s3cret") == digest and len(docker.kept["secrets"]) == 1


async def test_looking_makes_nothing() -> None:
    """A plan leaves no trace."""
    docker = FakeDocker()
    contents = await contents_of(docker, make=False)
    assert not contents.has("TOKEN", contents.digest(b"x"))
    assert not any(docker.kept.values())


async def test_what_nothing_names_goes() -> None:
    """But for what a container may still be given, what is young enough to be named soon, and Shoal's own."""
    docker = FakeDocker()
    await docker.create_secret("f_shoal-ca-key", b"key", {"shoal.fleet": "f", "shoal.role": "secret"})
    contents = await contents_of(docker)
    kept, used, old = [await contents.put("TOKEN", value) for value in (b"kept", b"used", b"old")]
    docker.in_use.add(f"f_TOKEN_{used[:12]}")
    await contents.prune([kept], unnamed_s=1e9)
    assert len(docker.kept["secrets"]) == 4
    await contents.prune([kept])
    assert set(docker.kept["secrets"]) == {"f_shoal-ca-key", f"f_TOKEN_{kept[:12]}", f"f_TOKEN_{used[:12]}"}
    assert not contents.has("TOKEN", old) and contents.has("TOKEN", used)
    await contents.release("TOKEN", kept)
    assert f"f_TOKEN_{kept[:12]}" not in docker.kept["secrets"]
