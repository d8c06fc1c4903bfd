"""With whose password images are pulled: one Secret for all registries of a fleet, which every pod names."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.render_pod import Object
from shoal.spec.model import Fleet

PULL = "shoal-pull"
_DOCKERS_OWN = "https://index.docker.io/v1/"  # what kubelets look for where an image names no registry


def pulls_of(fleet: Fleet) -> tuple[str, ...]:
    """The Secrets with which its images are pulled."""
    return (PULL,) if fleet.registries else ()


def render_pull(fleet: str, credentials: Mapping[str, tuple[str, str]]) -> Object:
    """`credentials` are user and password by registry."""
    auths = {
        _DOCKERS_OWN if registry == "docker.io" else registry: {
            "username": user,
            "password": password,
            "auth": base64.b64encode(f"{user}:{password}".encode()).decode(),
        }
        for registry, (user, password) in credentials.items()
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": PULL, "labels": fleet_labels(fleet, Role.CONTROLLER)},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()},
    }
