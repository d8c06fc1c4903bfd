"""An identity that is replaced while it is used: connections made later use the new one, those made before go on.

Gives Python's SSL contexts, and checks who is at the other end. TLS has checked the authority and the dates by then,
but for the moment of the handshake alone: a connection may outlive its certificate, so each use is checked again.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Collection
from pathlib import Path

from cryptography import x509

from shoal.errors import IdentityError
from shoal.pki.identity import Identity
from shoal.pki.peer import Peer, Role, verify_peer


class Credentials:
    """Who this process is, now."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._authority = x509.load_pem_x509_certificate(identity.authority_pem.encode())
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None

    @property
    def identity(self) -> Identity:
        return self._identity

    def replace(self, identity: Identity) -> None:
        """From now on it is this one. Raises IdentityError if it is by another authority: that takes a new start."""
        if identity.authority_pem.strip() != self._identity.authority_pem.strip():
            raise IdentityError(f"the new certificate of {identity.peer} is by another authority than the one before")
        self._identity = identity
        for context in (self._server, self._client):
            if context is not None:
                _load_chain(context, identity)

    def server_context(self) -> ssl.SSLContext:
        """For a server: whoever shows a certificate is asked for a good one; that somebody shows none is for `verify`
        to refuse. The same object each time, and it follows `replace`."""
        if self._server is None:
            self._server = _context(ssl.PROTOCOL_TLS_SERVER, self._identity)
            self._server.verify_mode = ssl.CERT_OPTIONAL
            self._server.num_tickets = 0  # a resumed session would bring a certificate back that nobody looks at
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """For a client, which gives `server_hostname=server_name(role)` of whom it means to reach. It follows
        `replace`."""
        if self._client is None:
            self._client = _context(ssl.PROTOCOL_TLS_CLIENT, self._identity)
        return self._client

    def verify(self, certificate: bytes | None, *, roles: Collection[Role], now: float) -> Peer:
        """Who is at the other end, by its certificate (DER; `getpeercert(True)`). Raises IdentityError."""
        if certificate is None:
            raise IdentityError("this takes a client certificate of the fleet, and none was shown")
        try:
            loaded = x509.load_der_x509_certificate(certificate)
        except ValueError as error:
            raise IdentityError(f"the certificate shown can't be read: {error}") from error
        return verify_peer(loaded, self._authority, now=now, roles=roles)


def authority_context(authority_pem: str) -> ssl.SSLContext:
    """For a client without an identity: it trusts this authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority_pem)
    return context


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=identity.authority_pem)
    _load_chain(context, identity)
    return context


def _load_chain(context: ssl.SSLContext, identity: Identity) -> None:
    """Python takes keys from files alone: one in memory where there is such a thing, else one for us alone."""
    pem = f"{identity.key_pem.strip()}\n{identity.certificate_pem.strip()}\n".encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        path = Path(directory) / "identity.pem"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
