"""Volumes for claims of the default storage class: directories of the bed that every node has, like a network's disks.

A pod that comes back on another node finds its files there. They are `local` volumes, so that `fsGroup` holds: a pod
that is not root writes to its volume by that alone, as with a cloud's disks.

`python -m testbed.kubernetes.volumes` runs for ever, for the bed that the environment names.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from testbed.kubernetes.api import Api, Object, Refused
from testbed.kubernetes.bed import KubeBed
from testbed.kubernetes.environment import bed_from_environment
from testbed.kubernetes.mirror import act_on

PROVISIONER = "shoal-testbed/volumes"
_VOLUMES = "/api/v1/persistentvolumes"
_CLAIMS = "/api/v1/persistentvolumeclaims"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_WANTED_OF = "volume.kubernetes.io/storage-provisioner"
_ON_ANY_NODE = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}


def missing(claims: Iterable[Object], volumes: Iterable[Object], directory: Path) -> list[Object]:
    """The volumes that claims wait for."""
    there = {volume["metadata"]["name"] for volume in volumes}
    waiting = [claim for claim in claims if _waits(claim)]
    return [made for claim in waiting if (made := _volume_for(claim, directory))["metadata"]["name"] not in there]


def done_with(volumes: Iterable[Object]) -> list[str]:
    """The names of those whose claims are gone, and that go with them."""
    return [
        volume["metadata"]["name"]
        for volume in volumes
        if volume["metadata"].get("annotations", {}).get(_PROVISIONED_BY) == PROVISIONER
        and volume.get("status", {}).get("phase") == "Released"
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    ]


def _waits(claim: Object) -> bool:
    asked_of = claim["metadata"].get("annotations", {}).get(_WANTED_OF)
    files = claim["spec"].get("volumeMode", "Filesystem") == "Filesystem"
    return asked_of == PROVISIONER and files and not claim["spec"].get("volumeName")


def _volume_for(claim: Object, directory: Path) -> Object:
    about, asked = claim["metadata"], claim["spec"]
    name = f"pvc-{about['uid']}"
    holder = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": asked["resources"]["requests"]["storage"]},
            "accessModes": asked["accessModes"],
            "storageClassName": asked["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": str(directory / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [_ON_ANY_NODE]}},
            "claimRef": {**holder, **{key: about[key] for key in ("namespace", "name", "uid")}},
        },
    }


def _provide(api: Api, bed: KubeBed, claims: list[Object], volumes: list[Object]) -> None:
    for volume in missing(claims, volumes, bed.volumes):
        Path(volume["spec"]["local"]["path"]).mkdir(exist_ok=True)
        try:
            api.create(_VOLUMES, volume)
        except Refused as error:
            if error.code != 409:  # it is there, and only not seen yet
                raise
    for name in done_with(volumes):
        with contextlib.suppress(Refused):  # gone before
            api.delete(f"{_VOLUMES}/{name}")
        shutil.rmtree(bed.volumes / name, ignore_errors=True)


def main() -> NoReturn:
    bed = bed_from_environment()
    api = Api(bed)
    act_on(api, (_CLAIMS, _VOLUMES), lambda known: _provide(api, bed, *known))


if __name__ == "__main__":
    main()
