"""Which volumes the bed makes, and which it takes away: as values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.kubernetes.volumes import PROVISIONER, done_with, missing

DIRECTORY = Path("/bed/volumes")


def claim(uid: str, provisioner: str = PROVISIONER, **spec: Any) -> dict[str, Any]:
    asked = {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard"}
    return {
        "metadata": {
            "uid": uid,
            "namespace": "shop",
            "name": f"data-{uid}",
            "annotations": {"volume.kubernetes.io/storage-provisioner": provisioner},
        },
        "spec": {**asked, "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }


def test_a_claim_that_waits_has_a_volume_made() -> None:
    """On the bed's directory, for that claim alone, on any node, and deleted with it."""
    (made,) = missing([claim("u1")], [], DIRECTORY)
    spec = made["spec"]
    assert made["metadata"]["name"] == "pvc-u1" and spec["local"] == {"path": "/bed/volumes/pvc-u1"}
    named = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data-u1", "uid": "u1"}
    assert spec["claimRef"] == named
    assert (spec["capacity"], spec["accessModes"]) == ({"storage": "1Gi"}, ["ReadWriteOnce"])
    assert (spec["storageClassName"], spec["persistentVolumeReclaimPolicy"]) == ("standard", "Delete")
    assert missing([claim("u1")], [made], DIRECTORY) == []


def test_other_claims_are_left_alone() -> None:
    """Of another provisioner, of no class, bound already, and those for a device without files."""
    others = [claim("u1", "acme/disks"), claim("u2", volumeName="v"), claim("u3", volumeMode="Block")]
    others.append({"metadata": {"uid": "u4", "namespace": "shop", "name": "d"}, "spec": {}})
    assert missing(others, [], DIRECTORY) == []


def test_a_volume_goes_with_its_claim() -> None:
    (made,) = missing([claim("u1")], [], DIRECTORY)
    released = {**made, "status": {"phase": "Released"}}
    assert done_with([made, {**made, "status": {"phase": "Bound"}}]) == []
    assert done_with([released]) == ["pvc-u1"]
    assert done_with([{**released, "metadata": {"name": "theirs"}}]) == []
    assert done_with([{**released, "spec": {**made["spec"], "persistentVolumeReclaimPolicy": "Retain"}}]) == []
