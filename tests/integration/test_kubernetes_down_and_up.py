"""What is known of a fleet in a real cluster over `down` and the `up` after it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_namespace import a_namespace
from kubernetes_rig import SERVICE
from kubernetes_shoal import Shoal

from tests.kubernetes_cluster import Cluster, ClusterImages


@pytest.fixture
async def shoal(tmp_path: Path, kubernetes: Cluster, kubernetes_images: ClusterImages) -> AsyncIterator[Shoal]:
    async with a_namespace() as api:
        yield Shoal(tmp_path, kubernetes, api, kubernetes_images.shoal)


async def test_what_is_known_over_down_and_up(shoal: Shoal, kubernetes_images: ClusterImages) -> None:
    """The count that a person set, and which versions served."""
    web = {"image": kubernetes_images.agents, **SERVICE}
    spec = {"agents": {"web": web, "other": web}}
    await shoal.up(spec)
    changed = {"agents": {**spec["agents"], "web": {**web, "environment": {"VERSION": "2"}}}}
    await shoal.up(changed)
    assert (await shoal.run("scale", "other", "0", spec=changed))[0] == 0
    assert (await shoal.run("down", spec=changed))[0] == 0
    await shoal.up(changed)
    _, said = await shoal.run("status", "-o", "json", spec=changed)
    assert {each["name"]: (each["desired"], each["pin"]) for each in json.loads(said)["agents"]} == {
        "web": (1, None),
        "other": (0, 0),
    }
    _, said = await shoal.run("rollout", "history", "web", "-o", "json", spec=changed)
    assert [each["served"] for each in json.loads(said)] == [True, True]
    assert (await shoal.run("rollout", "undo", "web", "-y", spec=changed))[0] == 0
