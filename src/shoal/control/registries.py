"""Who pulls images, as the stored fleet says it: not part of any revision, as another password is no other program."""

from __future__ import annotations

from collections.abc import Callable

from shoal.control.store import StoredFleet
from shoal.core.template import SecretUse
from shoal.errors import EngineError


class Registries:
    """`read_secret` gives what one holds."""

    def __init__(self, read_secret: Callable[[SecretUse], bytes]) -> None:
        self._read_secret = read_secret
        self._stored: StoredFleet | None = None

    def take(self, stored: StoredFleet) -> None:
        """From now on it is this fleet's."""
        self._stored = stored

    def credentials(self, registry: str) -> tuple[str, str] | None:
        """User and password; `None` where the fleet names none. Raises EngineError where the secret has none, NotFound
        where it is not there."""
        fleet = self._stored.fleet if self._stored is not None else None
        if self._stored is None or fleet is None or registry not in fleet.registries:
            return None
        name = fleet.registries[registry].secret
        record = self._stored.secrets.get(name)
        content = self._read_secret(SecretUse(name, False, record.digest if record is not None else ""))
        return user_and_password(registry, name, content)


def user_and_password(registry: str, secret: str, content: bytes) -> tuple[str, str]:
    """Raises EngineError."""
    user, colon, password = content.decode(errors="replace").strip().partition(":")
    if not colon:
        raise EngineError(
            f"registries.{registry}.secret: {secret} does not hold user:password; give it by `shoal secret set "
            f"{secret}`, or from its source by `shoal up`"
        )
    return user, password
