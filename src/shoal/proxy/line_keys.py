"""Mutual TLS on the line between controller and gateways. On one machine the socket's mode does this, and no key.

Both ends rotate without ending: the controller gives gRPC its newest certificate at each handshake, a gateway connects
anew with its newest before it lets go of the line it has.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grpc

from shoal.errors import IdentityError
from shoal.pki.credentials import Credentials
from shoal.pki.identity import Identity
from shoal.pki.member import Invitation, Member
from shoal.pki.peer import server_name


class LineGuard:
    """The controller's end: lets in gateways of the fleet, each by its own name."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float] = time.time) -> None:
        self._credentials = credentials
        self._clock = clock
        self._told: Identity | None = None

    def credentials(self) -> grpc.ServerCredentials:
        first = self._configuration(self._credentials.identity)
        newest = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._newest)  # the stubs know no None
        return grpc.dynamic_ssl_server_credentials(first, newest, require_client_authentication=True)

    def admit(self, auth_context: Mapping[str, Any], name: str) -> float:
        """gRPC has checked authority and dates at the handshake: who this is, and whether he may, is checked here."""
        shown = next(iter(auth_context.get("x509_pem_cert", ())), None)
        certificate = ssl.PEM_cert_to_DER_cert(bytes(shown).decode()) if shown is not None else None
        peer = self._credentials.verify(certificate, roles={"gateway"}, now=self._clock())
        if peer.name != name:
            raise IdentityError(f"the certificate is that of {peer}, and the gateway says that it is {name}")
        return peer.expires_at

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, from a thread of its own, before each handshake; `None` where nothing is new."""
        identity = self._credentials.identity
        if identity is self._told:
            return None
        return self._configuration(identity)

    def _configuration(self, identity: Identity) -> grpc.ServerCertificateConfiguration:
        self._told = identity
        pair = (identity.key_pem.encode(), identity.certificate_pem.encode())
        return grpc.ssl_server_certificate_configuration([pair], identity.authority_pem.encode())


class MemberKeys:
    """A gateway's end: joins the fleet at `url`, and shows what it got by that."""

    def __init__(self, directory: Path, *, url: str, name: str, token_file: Path) -> None:
        self._member = Member(directory, Invitation(url, "gateway", name, token_file))
        self._shown: Identity | None = None

    async def run(self) -> None:
        await self._member.run()

    async def credentials(self) -> grpc.ChannelCredentials:
        self._shown = identity = (await self._member.ready()).identity
        return grpc.ssl_channel_credentials(
            identity.authority_pem.encode(), identity.key_pem.encode(), identity.certificate_pem.encode()
        )

    def options(self) -> Sequence[tuple[str, str | int]]:
        # A pool of its own: connections are never shared between an old certificate and the next one.
        return (("grpc.ssl_target_name_override", server_name("controller")), ("grpc.use_local_subchannel_pool", 1))

    async def renewed(self) -> None:
        if self._shown is not None:
            await self._member.renewed(self._shown)
