"""The Secrets by which a fleet's parts and people are known: its authority, the gateways' token, and the people's.

Both tokens are made from the authority's key. So of several who start a fleet at once all make the same, and what an
interrupted start left out, or somebody removed, is made again as it was.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import POD, SECRET
from shoal.engines.kubernetes.applying import find_ours
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.render_own import ADMIN, CA_CERTIFICATE, CA_KEY, JOIN, KEYS, SEED, TOKEN
from shoal.engines.kubernetes.render_pod import Object
from shoal.errors import EngineError, IdentityError
from shoal.pki.token import JoinToken, fingerprint


@dataclass(frozen=True, slots=True)
class Keys:
    """A fleet's authority (PEM), as it is made by whoever starts the fleet first."""

    certificate: bytes
    key: bytes


async def has_keys(kubernetes: Kubernetes) -> bool:
    return await kubernetes.find(SECRET, KEYS) is not None


async def ensure_keys(kubernetes: Kubernetes, fleet: str, keys: Keys | None) -> None:
    """Makes what is missing of the three, or does not fit; `keys` are taken where the fleet has none. Who has read
    others, or waits for some, is started anew. Raises EngineError."""
    made = keys is not None and await kubernetes.make(SECRET, _render(fleet, KEYS, _authority(keys))) is not None
    authority = await _read(kubernetes, KEYS)  # of several who made one, the first one's
    if not authority:
        return
    pinned = fingerprint(_part(authority, CA_CERTIFICATE).decode(errors="replace"))
    key = _part(authority, CA_KEY)
    join, admin = str(JoinToken(pinned, _derive(key, "join"))), _derive(key, "admin")
    made |= await _ensure_token(kubernetes, fleet, JOIN, join, lambda found: _pins(found, pinned))
    made |= await _ensure_token(kubernetes, fleet, ADMIN, admin, bool)
    if made:
        await _start_anew(kubernetes, fleet)


async def read_admin_token(kubernetes: Kubernetes) -> str | None:
    """What is shown to the controller; `None` where the fleet has none."""
    return await _read_token(kubernetes, ADMIN) or None


def _authority(keys: Keys) -> Mapping[str, bytes]:
    return {CA_CERTIFICATE: keys.certificate, CA_KEY: keys.key, SEED: secrets.token_bytes(32)}


def _part(authority: Mapping[str, bytes], name: str) -> bytes:
    found = authority.get(name)
    if not found:
        raise EngineError(
            f"the Secret {KEYS} has no {name}, expected what Shoal made: put it back from a copy; or remove the whole "
            "Secret and run `shoal up`, which makes another authority"
        )
    return found


def _derive(key: bytes, purpose: str) -> str:
    return hmac.new(key, f"shoal {purpose}".encode(), hashlib.sha256).hexdigest()


def _pins(token: str, pinned: str) -> bool:
    """Whether it is a join token for this authority."""
    try:
        return JoinToken.parse(token).authority == pinned
    except IdentityError:
        return False


async def _read(kubernetes: Kubernetes, name: str) -> Mapping[str, bytes]:
    """What a Secret holds; nothing where it is not there."""
    secret = await kubernetes.find(SECRET, name)
    data: Mapping[str, str] = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value) for key, value in data.items()}


async def _read_token(kubernetes: Kubernetes, name: str) -> str:
    """Empty where there is none."""
    return (await _read(kubernetes, name)).get(TOKEN, b"").decode(errors="replace")


def _render(fleet: str, name: str, content: Mapping[str, bytes]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": fleet_labels(fleet, Role.CONTROLLER)},
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


async def _ensure_token(kubernetes: Kubernetes, fleet: str, name: str, token: str, fits: Callable[[str], bool]) -> bool:
    """Whether it was made, or put in place of one that does not fit."""
    item = _render(fleet, name, {TOKEN: token.encode()})
    if fits(await _read_token(kubernetes, name)):
        return False
    if await kubernetes.make(SECRET, item) is not None:
        return True
    if fits(await _read_token(kubernetes, name)):  # somebody else was first
        return False
    await find_ours(kubernetes, fleet, item)
    await kubernetes.apply(SECRET, item, force=True)
    return True


async def _start_anew(kubernetes: Kubernetes, fleet: str) -> None:
    """Controllers, which read keys and tokens as they start; and gateways that wait for theirs: a kubelet looks for
    them every two minutes at last. Gateways that run read theirs again by themselves."""
    for role in (Role.CONTROLLER, Role.GATEWAY):
        for pod in (await kubernetes.list(POD, {names.FLEET: fleet, names.ROLE: role.value}))[0]:
            if role is Role.CONTROLLER or pod["status"].get("phase") == "Pending":
                with contextlib.suppress(KubernetesError):  # then it comes later
                    await kubernetes.delete(POD, pod["metadata"]["name"])
