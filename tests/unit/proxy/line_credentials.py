"""Keys of a fleet for tests of the line: a controller that lets in, and gateways with whatever they were given."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence

import grpc

from shoal.pki import Authority, Credentials, Identity, server_name
from shoal.proxy.line_keys import LineGuard

FLEET = Authority.create("lake", time.time())


def line_guard(authority: Authority = FLEET) -> LineGuard:
    """The guard of a controller of this fleet."""
    return LineGuard(Credentials(authority.issue("controller", "one", now=time.time(), ttl_s=3600)))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class GivenKeys:
    """What a gateway shows, given by the test; `give` replaces it."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._shown = identity
        self._given = asyncio.Event()

    def give(self, identity: Identity) -> None:
        self._identity = identity
        self._given.set()

    async def run(self) -> None:
        return

    async def credentials(self) -> grpc.ChannelCredentials:
        self._shown = shown = self._identity
        return grpc.ssl_channel_credentials(
            shown.authority_pem.encode(), shown.key_pem.encode(), shown.certificate_pem.encode()
        )

    def options(self) -> Sequence[tuple[str, str | int]]:
        return (("grpc.ssl_target_name_override", server_name("controller")), ("grpc.use_local_subchannel_pool", 1))

    async def renewed(self) -> None:
        while self._identity is self._shown:
            self._given.clear()
            await self._given.wait()
