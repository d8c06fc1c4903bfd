"""Who a certificate says its holder is, and whether that is to be believed.

The identity is the certificate's only URI, in SPIFFE's form: `spiffe://FLEET/ROLE/NAME`. Beside it stands a DNS name
that depends on the role alone (`shoal-controller`), by which a client checks that a server is what it wants, whatever
address it was reached at.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from shoal.errors import IdentityError

Role = Literal["controller", "gateway", "node", "client"]
ROLES: tuple[Role, ...] = get_args(Role)
SKEW_S = 300.0  # a certificate holds from so long before it was issued, for those whose clock is behind
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who somebody is by a certificate. `issued_at` and `expires_at` are epoch seconds."""

    fleet: str
    role: Role
    name: str
    issued_at: float
    expires_at: float

    def __str__(self) -> str:
        return f"{self.role} {self.name} of fleet {self.fleet}"


def server_name(role: Role) -> str:
    """The DNS name in each certificate of a role."""
    return f"shoal-{role}"


def identity_uri(fleet: str, role: str, name: str) -> str:
    """Raises IdentityError for a role or name that can't stand in a certificate."""
    if role not in ROLES:
        raise IdentityError(f"found the role {role!r}, expected one of {', '.join(ROLES)}")
    if not _NAME.fullmatch(name):
        raise IdentityError(f"{name!r} can't be the name of a {role}: expected at most 128 letters, digits and . - _")
    return f"spiffe://{fleet}/{role}/{name}"


def uri_of(certificate: x509.Certificate) -> str:
    """The certificate's only URI, or "" where there is none, or more than one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ""
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    return found[0] if len(found) == 1 else ""


def read_peer(certificate: x509.Certificate) -> Peer:
    """What the certificate says, whoever signed it. Raises IdentityError if it is no certificate of Shoal's."""
    uri = uri_of(certificate)
    parts = urlsplit(uri)
    path = parts.path.split("/")
    if parts.scheme != "spiffe" or len(path) != 3 or uri != identity_uri(parts.netloc, path[1], path[2]):
        found = uri or "nothing"
        raise IdentityError(f"a certificate that says {found!r} of its holder, expected spiffe://FLEET/ROLE/NAME")
    return Peer(
        fleet=parts.netloc,
        role=cast("Role", path[1]),
        name=path[2],
        issued_at=certificate.not_valid_before_utc.timestamp() + SKEW_S,
        expires_at=certificate.not_valid_after_utc.timestamp(),
    )


def verify_peer(
    certificate: x509.Certificate, authority: x509.Certificate, *, now: float, roles: Collection[Role]
) -> Peer:
    """Who the holder is, if this authority signed it, it holds now, and the role is among those that may.

    Raises IdentityError, saying which of these is not so.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError("the certificate is not by this fleet's authority: it belongs to another fleet") from None
    peer = read_peer(certificate)
    fleet = urlsplit(uri_of(authority)).netloc
    if peer.fleet != fleet:
        raise IdentityError(f"the certificate is that of {peer}, expected fleet {fleet}")
    if now >= peer.expires_at:
        raise IdentityError(f"the certificate of {peer} expired at {_utc(peer.expires_at)}, and it is {_utc(now)}")
    if now < peer.issued_at - SKEW_S:
        begins = _utc(peer.issued_at - SKEW_S)
        raise IdentityError(f"the certificate of {peer} holds from {begins}, and it is {_utc(now)}: set the clock")
    if peer.role not in roles:
        raise IdentityError(f"{peer} may not do this: it takes the role {' or '.join(sorted(roles))}")
    return peer


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
