"""What secrets hold, on Docker Swarm: each content is a Swarm secret, named by the secret and the HMAC of the content.

Swarm gives a content to containers alone, and nobody can read it back: what is kept here is which contents there are.
The key of the HMACs is a config, made with the first secret. Who may read configs may read everything else that a
manager is asked for, but with the key he can only try out what might be behind an HMAC that he sees.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import DockerError
from shoal.engines.swarm.names import DIGEST, Role, fleet_labels, own_name, secret_name

if TYPE_CHECKING:
    from shoal.engines.swarm.docker import Docker

KEY = "hmac-key"
_NAME = "shoal.secret"
_KEY_BYTES = 32

Connect = Callable[[], "AbstractAsyncContextManager[Docker]"]


class SwarmContents:
    """The contents of one fleet's secrets, as they were when it was opened. Methods may raise EngineError."""

    def __init__(self, connect: Connect, fleet: str, key: bytes, known: Collection[tuple[str, str]]) -> None:
        self._connect = connect
        self._fleet = fleet
        self._key = key
        self._known = set(known)  # names with their digests

    @classmethod
    async def open(cls, connect: Connect, fleet: str, *, make: bool = False) -> SwarmContents:
        """Without `make` nothing is made: where there is no key yet, there is no content, and no HMAC is any that is
        known."""
        name = own_name(fleet, KEY)
        async with connect() as docker:
            if make:
                # Of several at once one wins, and all of them use its key.
                await docker.create_config(name, secrets.token_bytes(_KEY_BYTES), fleet_labels(fleet, Role.CONFIG))
            try:
                key = base64.b64decode((await docker.config(name))["Spec"]["Data"])
            except DockerError as error:
                if error.status != 404:
                    raise
                key = secrets.token_bytes(_KEY_BYTES)
            known = [_named(each) for each in await _contents(docker, fleet)]
        return cls(connect, fleet, key, known)

    def digest(self, content: bytes) -> str:
        """The HMAC that the content has in this fleet."""
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()

    def has(self, name: str, digest: str) -> bool:
        """Whether there is this content of the secret."""
        return (name, digest) in self._known

    def mask(self, text: str) -> str:
        """The text as it is: what is stored can't be read, so nobody here knows what to look for."""
        return text

    async def put(self, name: str, content: bytes) -> str:
        """Keeps the content, and gives its HMAC."""
        digest = self.digest(content)
        labels = fleet_labels(self._fleet, Role.SECRET) | {_NAME: name, DIGEST: digest}
        async with self._connect() as docker:
            await docker.create_secret(secret_name(self._fleet, name, digest), content, labels)
        self._known.add((name, digest))
        return digest

    async def prune(self, kept: Collection[str], unnamed_s: float = 0.0) -> None:
        """Removes contents that none of these HMACs names, those aside that are younger than `unnamed_s`, and those
        that a container may still be given: Swarm does not let these go."""
        async with self._connect() as docker:
            for secret in await _contents(docker, self._fleet):
                labels, at = secret["Spec"]["Labels"], datetime.fromisoformat(secret["CreatedAt"]).timestamp()
                if labels[DIGEST] not in kept and at <= time.time() - unnamed_s:
                    await self._remove(docker, secret)

    async def release(self, name: str, digest: str) -> None:
        """Removes it now, unless a container may still be given it: then the controller's `prune` does."""
        async with self._connect() as docker:
            for secret in await _contents(docker, self._fleet):
                if _named(secret) == (name, digest):
                    await self._remove(docker, secret)

    async def _remove(self, docker: Docker, secret: dict[str, Any]) -> None:
        with suppress(DockerError):  # in use
            await docker.remove_secret(secret["ID"])
            self._known.discard(_named(secret))


async def _contents(docker: Docker, fleet: str) -> list[dict[str, Any]]:
    """The Swarm secrets that hold one; Shoal's own have no digest."""
    found = await docker.secrets({names.FLEET: fleet, names.ROLE: Role.SECRET.value})
    return [each for each in found if DIGEST in each["Spec"]["Labels"]]


def _named(secret: dict[str, Any]) -> tuple[str, str]:
    labels = secret["Spec"]["Labels"]
    return labels.get(_NAME, ""), labels[DIGEST]
