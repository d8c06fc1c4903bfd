"""Registries: from which one an image comes, and what may be said of one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from shoal.spec.agent_checks import SECRET, SECRET_RULE
from shoal.spec.model import Registry
from shoal.spec.suggestions import did_you_mean
from shoal.spec.validation import Finding
from shoal.spec.values import shown

_DOCKERS_OWN = "docker.io"
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")


def registry_of(image: str) -> str:
    """`ghcr.io` of `ghcr.io/acme/web:1`; Docker's own where none is named."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else _DOCKERS_OWN


def check_registry(name: str, registry: Registry) -> Iterator[Finding]:
    """What is wrong with one."""
    if not _HOST.fullmatch(name):
        remedy = "write it as images do, without a scheme and a path: ghcr.io, registry.lab:5000, docker.io"
        yield Finding(("registries", name), f"{shown(name)} is no host of a registry", remedy, key=True)
    if not SECRET.fullmatch(registry.secret):
        at = ("registries", name, "secret")
        yield Finding(at, f"{shown(registry.secret)} can't be the name of a secret", SECRET_RULE)


def warn_of_registries(registries: Mapping[str, Registry], images: Collection[str]) -> Iterator[Finding]:
    """Those from which nothing comes."""
    used = {registry_of(image) for image in images}
    for name in registries:
        if name not in used:
            remedy = did_you_mean(name, used) or "leave it out, or name images by it: image: HOST/NAME:TAG"
            yield Finding(("registries", name), f"no image comes from {name}", remedy, key=True)
