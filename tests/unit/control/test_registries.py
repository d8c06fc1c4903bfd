"""Who pulls images, as the stored fleet says it."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import pytest

from shoal.control.registries import Registries
from shoal.control.store import SecretRecord, StoredFleet
from shoal.core.template import SecretUse
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.images import Images
from shoal.errors import EngineError
from shoal.spec.model import Fleet

CONTENTS = {"PULL": b"bot:pass:word\n", "BROKEN": b"password"}


def taken(**registries: Any) -> Registries:
    """Of a stored fleet with these."""
    document = {"fleet": "f", "agents": {"a": {"image": "i", "command": "x"}}, "registries": registries}
    records = {name: SecretRecord(f"digest of {name}", 0.0, "me") for name in CONTENTS}
    fleet = Fleet.model_validate(document)
    stored = StoredFleet(generation=1, fleet=fleet, directory="/", at=0.0, by="me", secrets=records)

    def read(use: SecretUse) -> bytes:
        assert use.digest == f"digest of {use.name}"
        return CONTENTS[use.name]

    made = Registries(read)
    assert made.credentials("ghcr.io") is None  # before there is a fleet
    made.take(stored)
    return made


def test_the_header_has_what_the_secret_holds() -> None:
    """The password may have colons; of another registry nothing is known, and Docker's own goes by its name."""
    registries = taken(**{"ghcr.io": {"secret": "PULL"}, "docker.io": {"secret": "PULL"}})
    images = Images(cast("Docker", None), registries.credentials)
    header = images.auth("ghcr.io/acme/web:1")
    assert header is not None
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "username": "bot", "password": "pass:word", "serveraddress": "ghcr.io",
    }  # fmt: skip
    assert images.auth("acme/web:1") is not None and images.auth("quay.io/acme/web:1") is None


def test_a_secret_without_a_user_is_told() -> None:
    """By its name, not by what it holds."""
    with pytest.raises(EngineError, match=r"registries.ghcr.io.secret: BROKEN does not hold user:password") as caught:
        taken(**{"ghcr.io": {"secret": "BROKEN"}}).credentials("ghcr.io")
    assert "password`" not in str(caught.value)
