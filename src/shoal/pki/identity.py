"""A private key and the certificate that says whose it is. The key is made where it is used, and stays there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shoal.errors import IdentityError
from shoal.pki.peer import Peer, read_peer, verify_peer

_RENEWED_AFTER = 2 / 3  # of its life
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", re.DOTALL)


def create_key() -> str:
    """A new private key (EC P-256) as PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def create_request(key_pem: str) -> str:
    """The certificate request for a key, as PEM. Who it will name is for the authority to say."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return _pem(builder.sign(load_key(key_pem), hashes.SHA256()))


def load_key(key_pem: str) -> ec.EllipticCurvePrivateKey:
    """Raises IdentityError if it is no private key on an elliptic curve."""
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"the private key can't be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"found a private key of the kind {type(key).__name__}, expected one of EC P-256")
    return key


@dataclass(frozen=True, slots=True)
class Identity:
    """Key, certificate and the authority that signed it; `peer` is who it says."""

    key_pem: str = field(repr=False)
    certificate_pem: str = field(repr=False)
    authority_pem: str = field(repr=False)
    peer: Peer

    @classmethod
    def of(cls, key_pem: str, certificate_pem: str, authority_pem: str) -> Identity:
        """Puts them together; that it holds now is not asked. Raises IdentityError if they don't belong together."""
        certificate, authority = _load(certificate_pem), _load(authority_pem)
        issued_at, role = read_peer(certificate).issued_at, read_peer(certificate).role
        peer = verify_peer(certificate, authority, now=issued_at, roles={role})
        if load_key(key_pem).public_key() != certificate.public_key():
            raise IdentityError(f"the certificate of {peer} is for another key")
        return cls(key_pem, certificate_pem, authority_pem, peer)

    @classmethod
    def parse(cls, pem: str) -> Identity:
        """The other way round than `pem`. Raises IdentityError."""
        blocks = [(found[1], found[0]) for found in _BLOCK.finditer(pem)]
        if [kind for kind, _ in blocks] != ["PRIVATE KEY", "CERTIFICATE", "CERTIFICATE"]:
            kinds = ", ".join(kind.lower() for kind, _ in blocks) or "nothing"
            raise IdentityError(f"an identity is a private key and two certificates (PEM), found {kinds}")
        return cls.of(*(text for _, text in blocks))

    @property
    def pem(self) -> str:
        """All of it in one text: private key, certificate, the authority's certificate."""
        return "".join(f"{text.strip()}\n" for text in (self.key_pem, self.certificate_pem, self.authority_pem))

    @property
    def life_s(self) -> float:
        """From when it was issued."""
        return self.peer.expires_at - self.peer.issued_at

    @property
    def renew_at(self) -> float:
        """When it is time to get the next one, in epoch seconds of whoever issued it."""
        return self.peer.issued_at + self.life_s * _RENEWED_AFTER


def _load(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise IdentityError(f"the certificate can't be read: {error}") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()
