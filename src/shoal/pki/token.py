"""The join token: by it a gateway or node agent that has no certificate yet gets its first one.

It pins the fleet's authority by its hash, so that who joins tells the secret part to nobody but the fleet's controller.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from shoal.errors import IdentityError

_FORM = re.compile(r"shoal-join-1-([0-9a-f]{64})-([0-9a-f]{32,})")
_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`shoal-join-1-<SHA-256 of the authority's certificate>-<secret>`; `str` gives it in full."""

    authority: str
    secret: str = field(repr=False)

    @classmethod
    def create(cls, authority_pem: str) -> JoinToken:
        """A new one for the fleet of this authority."""
        return cls(fingerprint(authority_pem), secrets.token_hex(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises IdentityError, without what it found: it may be a token nearly right."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise IdentityError(
                f"a join token looks like shoal-join-1-HASH-SECRET; found {len(text.strip())} characters that don't: "
                "give the file that holds the fleet's token"
            )
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"shoal-join-1-{self.authority}-{self.secret}"

    def check_authority(self, authority_pem: str) -> None:
        """Raises IdentityError if this is not the authority that the token pins."""
        found = fingerprint(authority_pem)
        if found != self.authority:
            raise IdentityError(
                f"the join token is for the authority {self.authority[:12]}, and this controller's is {found[:12]}: "
                "it is another fleet's token, or somebody stands between"
            )

    def check(self, given: JoinToken) -> None:
        """Raises IdentityError if what somebody shows is not this token, in the same time however much of it is."""
        if given.authority != self.authority:
            raise IdentityError("the join token is that of another fleet")
        if not hmac.compare_digest(given.secret.encode(), self.secret.encode()):
            raise IdentityError("the join token is not valid (any more)")


def fingerprint(certificate_pem: str) -> str:
    """The certificate's SHA-256 in hexadecimal. Raises IdentityError if it is no certificate."""
    try:
        return x509.load_pem_x509_certificate(certificate_pem.encode()).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise IdentityError(f"expected a certificate (PEM): {error}") from error
