"""What secrets hold, on Kubernetes: each content is a Secret that never changes, named by the secret and the HMAC of
the content.

Kubernetes gives them back to whoever may read Secrets, and lets them go while pods are made from them: only what the
store names no more may go. The key of the HMACs is a Secret too, made with the first one: without it nobody can try out
what might be behind an HMAC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from shoal.core.masking import Mask
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.engines.kubernetes.names import (
    DIGEST,
    FLEET,
    KEY,
    ROLE,
    SECRET_NAME,
    WANTED,
    Role,
    fleet_labels,
    labels_of,
    secret_name,
)
from shoal.errors import StoreError

_KEY_BYTES = 32
_DATA = "key"

Connect = Callable[[], AbstractAsyncContextManager[Kubernetes]]


class KubernetesContents:
    """The contents of one fleet's secrets, as they were when it was opened. Methods may raise EngineError."""

    def __init__(
        self, connect: Connect, fleet: str, key: bytes, known: Collection[tuple[str, str]], clock: Callable[[], float]
    ) -> None:
        self._connect = connect
        self._fleet = fleet
        self._key = key
        self._known = set(known)  # names with their digests
        self._clock = clock
        self._put: list[bytes] = []

    @classmethod
    async def open(
        cls, connect: Connect, fleet: str, *, make: bool = False, clock: Callable[[], float] = time.time
    ) -> KubernetesContents:
        """Without `make` nothing is made: where there is no key yet, there is no content, and no HMAC is any that is
        known. Raises StoreError where the namespace is another fleet's."""
        async with connect() as kubernetes:
            found = await kubernetes.find(SECRET, KEY)
            if found is None and make:
                # Of several at once one wins, and all of them use its key.
                await _create(kubernetes, fleet, KEY, {_DATA: secrets.token_bytes(_KEY_BYTES)}, {})
                found = await kubernetes.get(SECRET, KEY)
            if found is None:
                key = secrets.token_bytes(_KEY_BYTES)
            else:
                _refuse_others(kubernetes, found, fleet)
                key = base64.b64decode(found["data"][_DATA])
            known = [_named(each) for each in await _contents(kubernetes, fleet)]
        return cls(connect, fleet, key, known, clock)

    def digest(self, content: bytes) -> str:
        """The HMAC that the content has in this fleet."""
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()

    def has(self, name: str, digest: str) -> bool:
        """Whether there is this content of the secret."""
        return (name, digest) in self._known

    def mask(self, text: str) -> str:
        """The text without the contents that were put here: others would have to be read for that."""
        return Mask(self._put).apply(text)

    async def put(self, name: str, content: bytes) -> str:
        """Keeps the content, and gives its HMAC."""
        digest = self.digest(content)
        called, about = secret_name(name, digest), {SECRET_NAME: name, DIGEST: digest}
        async with self._connect() as kubernetes:
            while not await _create(kubernetes, self._fleet, called, {name: content}, about):
                if await _note_wanted(kubernetes, called, self._clock()):
                    break
        self._known.add((name, digest))
        self._put.append(content)
        return digest

    async def prune(self, kept: Collection[str], unnamed_s: float = 0.0, used: Collection[str] = ()) -> None:
        """Removes contents that none of these HMACs names, those aside that were put less than `unnamed_s` ago. `used`
        are the names of those that a pod may still be made from: Kubernetes would let them go."""
        async with self._connect() as kubernetes:
            for secret in await _contents(kubernetes, self._fleet):
                named = _named(secret)
                name = secret["metadata"]["name"]
                if named[1] not in kept and name not in used and _wanted_at(secret) <= self._clock() - unnamed_s:
                    await kubernetes.delete(SECRET, name)
                    self._known.discard(named)

    async def release(self, name: str, digest: str) -> None:
        """The next `prune` may remove this one, however short a time ago it was put."""
        if self.has(name, digest):
            async with self._connect() as kubernetes:
                await _note_wanted(kubernetes, secret_name(name, digest), 0.0)


async def _create(
    kubernetes: Kubernetes, fleet: str, called: str, data: Mapping[str, bytes], annotations: Mapping[str, str]
) -> bool:
    """False where there is one."""
    secret = {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.name,
        "metadata": {"name": called, "labels": fleet_labels(fleet, Role.SECRET), "annotations": dict(annotations)},
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(content).decode() for key, content in data.items()},
    }
    return await kubernetes.make(SECRET, secret) is not None


async def _note_wanted(kubernetes: Kubernetes, called: str, at: float) -> bool:
    """False where it is gone."""
    try:
        await kubernetes.patch(SECRET, called, {"metadata": {"annotations": {WANTED: f"{at:.3f}"}}})
    except KubernetesError as error:
        if error.status != 404:
            raise
        return False
    return True


def _refuse_others(kubernetes: Kubernetes, key: Mapping[str, Any], fleet: str) -> None:
    owner = labels_of(key).get(FLEET)
    if owner != fleet:
        whose = f"the key of fleet {owner}" if owner else "one that no fleet made"
        raise StoreError(
            f"Secret {KEY} in namespace {kubernetes.namespace}: found {whose}, expected that of {fleet}: a namespace "
            "is of one fleet; name another one by `namespace` in the file"
        )


async def _contents(kubernetes: Kubernetes, fleet: str) -> list[dict[str, Any]]:
    """Of the Secrets that hold one their metadata; Shoal's own have no digest."""
    found = await kubernetes.list_metadata(SECRET, {FLEET: fleet, ROLE: Role.SECRET.value})
    return [each for each in found if DIGEST in _annotations(each)]


def _named(secret: Mapping[str, Any]) -> tuple[str, str]:
    told = _annotations(secret)
    return told[SECRET_NAME], told[DIGEST]


def _wanted_at(secret: Mapping[str, Any]) -> float:
    noted = _annotations(secret).get(WANTED)
    if noted is not None:
        return float(noted)
    return datetime.fromisoformat(secret["metadata"]["creationTimestamp"]).timestamp()


def _annotations(secret: Mapping[str, Any]) -> Mapping[str, str]:
    return secret["metadata"].get("annotations") or {}
