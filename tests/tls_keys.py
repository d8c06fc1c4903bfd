"""An engine's API on 127.0.0.1, with keys as people make them by hand."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_keys(directory: Path) -> Path:
    """`ca.pem`, `cert.pem` and `key.pem` as Docker's documentation makes them, for 127.0.0.1 and for clients."""
    directory.mkdir()
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        builder = x509.CertificateBuilder(issuer, name, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        builder = builder.add_extension(usage, critical=True) if ca else builder.add_extension(names, critical=False)
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    mine = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daemon and client")])
    (directory / "ca.pem").write_bytes(certificate(issuer, authority_key.public_key(), ca=True))
    (directory / "cert.pem").write_bytes(certificate(mine, key.public_key(), ca=False))
    no_password = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    (directory / "key.pem").write_bytes(pem)
    return directory


@asynccontextmanager
async def listening(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], keys: Path | None
) -> AsyncGenerator[int]:
    """The port of who answers so; with `keys` it has TLS, and lets nobody in without a certificate."""
    context = None
    if keys is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=keys / "ca.pem")
        context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
