"""What a fleet's secrets hold, on Kubernetes.

Shoal needs some of it itself, and takes all of it out of what replicas wrote.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any

from shoal.control.problems import Problems
from shoal.core.masking import Mask
from shoal.core.template import SecretUse
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.names import Role, secret_name
from shoal.errors import NotFound

_PAUSE_S = 1.0  # not oftener


class KnownSecrets:
    """As they were when they were last read. Nothing that replicas wrote may be shown before that."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes
        self._contents: dict[tuple[str, str], bytes] = {}
        self._made: dict[tuple[str, str], bytes] = {}  # what no look has found yet
        self._mask: Mask | None = None  # made when it is asked for
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """There may be others now."""
        self._wanted.set()

    def mask(self, text: str) -> str:
        if self._mask is None:
            self._mask = Mask(self._contents.values())
        return self._mask.apply(text)

    def take(self, secret: Mapping[str, Any]) -> None:
        """One that is about to be made is masked from now on."""
        held = _held(secret)
        self._made |= held
        self._contents |= held
        self._mask = None

    def content(self, use: SecretUse) -> bytes:
        """Raises NotFound."""
        try:
            return self._contents[secret_name(use.name, use.digest), use.name]
        except KeyError:
            self.want()
            raise NotFound(
                f"the content of the secret {use.name} is not in the cluster; give it by `shoal secret set {use.name}`,"
                " or from its source by `shoal up`"
            ) from None

    async def read(self) -> bool:
        """Reads them now, and says whether they are others than before. Raises EngineError."""
        found = await read_contents(self._kubernetes)
        self._made = {key: content for key, content in self._made.items() if key not in found}
        found |= self._made  # the list may be older than they are
        if found == self._contents:
            return False
        self._contents, self._mask = found, None
        return True

    async def run(self, problems: Problems, changed: Callable[[], None]) -> None:
        """Reads them whenever there may be others, until cancelled; `changed` is called when there are."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                if await self.read():
                    changed()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                self.want()
                problems.failed("secrets", error)
            else:
                problems.say("secrets", None)
            await asyncio.sleep(_PAUSE_S)


async def read_contents(kubernetes: Kubernetes) -> dict[tuple[str, str], bytes]:
    """By the names of the Secrets and their keys. Raises EngineError."""
    items, _ = await kubernetes.list(SECRET, {names.ROLE: Role.SECRET.value})
    return {key: content for item in items for key, content in _held(item).items()}


def _held(secret: Mapping[str, Any]) -> dict[tuple[str, str], bytes]:
    held: Mapping[str, str] = secret.get("data") or {}
    return {(secret["metadata"]["name"], key): base64.b64decode(content) for key, content in held.items()}
