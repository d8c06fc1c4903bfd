"""A fleet's certificate authority: one key on EC P-256, which signs short-lived certificates and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.errors import IdentityError
from shoal.pki.identity import Identity, create_key, create_request, load_key
from shoal.pki.peer import SKEW_S, Role, identity_uri, server_name, uri_of

_LIFE_S = 10 * 365 * 86400.0
_SERVERS: tuple[Role, ...] = ("controller", "node")  # who others call; nobody else's certificate is good for a server
_CALLS, _ANSWERS = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


class Authority:
    """Signs for one fleet. `certificate_pem` is public, `key_pem` is the fleet's best kept secret."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, key_pem: str) -> None:
        self._certificate = certificate
        self._key = key
        self.key_pem = key_pem
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.fleet = urlsplit(uri_of(certificate)).netloc

    @classmethod
    def create(cls, fleet: str, now: float) -> Authority:
        """A new one. It holds for ten years."""
        key_pem = create_key()
        key = load_key(key_pem)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Shoal fleet {fleet}"[:64])])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{fleet}")])
        builder = (
            _builder(key.public_key(), now, _LIFE_S)
            .subject_name(name)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(names, critical=False)
        )
        return cls(builder.sign(key, hashes.SHA256()), key, key_pem)

    @classmethod
    def load(cls, certificate_pem: str, key_pem: str) -> Authority:
        """Raises IdentityError if they don't belong together."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        except ValueError as error:
            raise IdentityError(f"the authority's certificate can't be read: {error}") from error
        key = load_key(key_pem)
        if key.public_key() != certificate.public_key():
            raise IdentityError("the authority's certificate is for another key")
        return cls(certificate, key, key_pem)

    def sign(self, request_pem: str, *, role: Role, name: str, now: float, ttl_s: float) -> str:
        """The certificate (PEM) for a request's key; what else the request says is not looked at.

        Raises IdentityError if the request is not one, or the role or name can't be.
        """
        uri = identity_uri(self.fleet, role, name)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(server_name(role))])
        uses = [_CALLS, _ANSWERS] if role in _SERVERS else [_CALLS]
        builder = (
            _builder(_requested_key(request_pem), now, ttl_s)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{role} {name}"[:64])]))
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(names, critical=False)
            .add_extension(issuer, critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, role: Role, name: str, *, now: float, ttl_s: float) -> Identity:
        """An identity whose key is made here: for oneself, and for the person who made the fleet."""
        key_pem = create_key()
        certificate_pem = self.sign(create_request(key_pem), role=role, name=name, now=now, ttl_s=ttl_s)
        return Identity.of(key_pem, certificate_pem, self.certificate_pem)


def _builder(key: ec.EllipticCurvePublicKey, now: float, ttl_s: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - SKEW_S, UTC))
        .not_valid_after(datetime.fromtimestamp(now + ttl_s, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(request_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
    except ValueError as error:
        raise IdentityError(f"the certificate request can't be read: {error}") from error
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the certificate request is for another kind of key, expected EC P-256")
    if not request.is_signature_valid:
        raise IdentityError("the certificate request is not signed by the key that it is for")
    return key
