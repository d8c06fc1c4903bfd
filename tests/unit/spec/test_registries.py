"""Registries in the file: by their hosts, with a secret, and told where nothing comes from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shoal.spec.registries import registry_of

Refused = Callable[..., list[str]]
FILE = """\
fleet: f
agents:
  a: {{command: x, port: 80, image: "{image}"}}
registries:
  {registry}
"""


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("ghcr.io/acme/web:1", "ghcr.io"),
        ("registry.lab:5000/web", "registry.lab:5000"),
        ("localhost/web", "localhost"),
        ("registry:5000/web@sha256:ab", "registry:5000"),
        ("acme/web:1", "docker.io"),
        ("web", "docker.io"),
        ("sha256:abc", "docker.io"),
    ],
)
def test_from_which_registry_an_image_comes(image: str, registry: str) -> None:
    """As Docker reads a name."""
    assert registry_of(image) == registry


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ("'https://ghcr.io': {secret: S}", "'https://ghcr.io' is no host of a registry (write it as images do"),
        ("ghcr.io/acme: {secret: S}", "'ghcr.io/acme' is no host of a registry"),
        ("ghcr.io: {secret: a b}", "registries.\"ghcr.io\".secret: 'a b' can't be the name of a secret"),
        ("ghcr.io: {}", "the key `secret` is missing"),
        ("ghcr.io: {secret: S, password: p}", "there is no such key (expected one of secret)"),
    ],
)
def test_what_can_be_no_registry_is_refused(refuse: Refused, registry: str, said: str) -> None:
    """Each by its own words."""
    (problem,) = refuse(FILE.format(image="ghcr.io/a:1", registry=registry))
    assert said in problem


def test_one_that_nothing_comes_from_is_told(read: Any) -> None:
    """With the one that is near; Shoal's own image counts too, and so does the secret as used."""
    loaded = read(FILE.format(image="ghcr.io/a:1", registry="ghrc.io: {secret: S}") + "secrets: {S: {file: s}}\n")
    assert [str(warning) for warning in loaded.warnings] == [
        'shoal.yaml:5:3: registries."ghrc.io": no image comes from ghrc.io (did you mean ghcr.io?)'
    ]
    own = FILE.format(image="a:1", registry="r.lab:5000: {secret: S}") + "swarm: {image: r.lab:5000/shoal:1}\n"
    assert not read(own).warnings
