"""The API over the network: who may ask what by which certificate, and where certificates come from.

Over the Unix socket none of this is asked: there the kernel says who it is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from shoal.api.peer import CALLER, caller_of
from shoal.api.rate_limit import RateLimit
from shoal.api.request_values import read_body, text_of
from shoal.control.agent_state import Event
from shoal.errors import IdentityError, ShoalError
from shoal.pki.authority import Authority
from shoal.pki.credentials import Credentials
from shoal.pki.joining import CERTIFICATES_PATH, JOIN_PATH, RENEW_PATH
from shoal.pki.peer import ROLES, Peer, Role
from shoal.pki.token import JoinToken

log = logging.getLogger(__name__)

LONGEST_LIFE_S = 366 * 86400.0
TOKEN_HEADER, USER_HEADER = "Shoal-Token", "Shoal-User"
_LONGEST_NAME = 100
_SHORTEST_LIFE_S = 60.0
_OF_PEOPLE: tuple[Role, ...] = ("client",)
_JOIN_ROLES: tuple[Role, ...] = ("gateway", "node")  # a stolen token must not make anybody a person or a controller
_LARGEST_REQUEST = 8192  # characters; one for EC P-256 has about 350
_PEER = web.RequestKey("peer", Peer)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the API is served over the network, and by whose keys. `ttl_s` is the life of what gateways and node agents
    get. Who shows the `admin_token` in the header TOKEN_HEADER needs no certificate: he could read it, which the
    cluster's own rules guard, and no certificate comes through its API server."""

    host: str
    port: int
    credentials: Credentials
    authority: Authority
    token: JoinToken
    ttl_s: float
    clock: Callable[[], float] = time.time
    admin_token: str | None = None

    def routes(self, note: Callable[[Event], None]) -> list[web.RouteDef]:
        """Those by which certificates are given; `note` tells the fleet's events of the ones for people."""
        return _Certificates(self, note).table()

    def guard(self) -> Middleware:
        """Lets through who shows a certificate that may ask this. At each request, since a connection may outlive it;
        what is read for ever ends with it."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            transport = request.transport
            if transport is None:
                raise IdentityError("the connection has ended")
            connection = transport.get_extra_info("ssl_object")
            if connection is None or request.path == JOIN_PATH:  # a Unix socket; who has no certificate yet
                return await handler(request)
            if self.admin_token is not None and TOKEN_HEADER in request.headers:
                if not secrets.compare_digest(request.headers[TOKEN_HEADER].encode(), self.admin_token.encode()):
                    raise IdentityError("this is not the token of the fleet's Secret: it was made anew")
                request[CALLER] = request.headers.get(USER_HEADER, "somebody")[:_LONGEST_NAME]
                return await handler(request)
            roles = ROLES if request.path == RENEW_PATH else _OF_PEOPLE
            certificate = connection.getpeercert(binary_form=True)
            now = self.clock()
            request[_PEER] = peer = self.credentials.verify(certificate, roles=roles, now=now)
            request[CALLER] = peer.name
            if request.method != "GET":  # a change is finished
                return await handler(request)
            end = asyncio.get_running_loop().call_later(peer.expires_at - now, transport.abort)
            try:
                return await handler(request)
            finally:
                end.cancel()

        return check

    async def listen(self, runner: web.AppRunner) -> None:
        """Serves what the runner runs. Raises ShoalError where the port can't be listened at."""
        try:
            await web.TCPSite(runner, self.host, self.port, ssl_context=self.credentials.server_context()).start()
        except OSError as error:
            where = f"{self.host}:{self.port}"
            raise ShoalError(f"can't listen for people and gateways at {where}: {error.strerror or error}") from error


class _Certificates:
    def __init__(self, remote: Remote, note: Callable[[Event], None]) -> None:
        self._remote = remote
        self._note = note
        self._tries = RateLimit(most=20, per_s=1.0)

    def table(self) -> list[web.RouteDef]:
        return [
            web.get(JOIN_PATH, self.authority),
            web.post(JOIN_PATH, self.join),
            web.post(RENEW_PATH, self.renew),
            web.post(CERTIFICATES_PATH, self.issue),
        ]

    async def authority(self, _: web.Request) -> web.StreamResponse:
        """Public: who has a token checks it by its hash."""
        return web.json_response({"authority": self._remote.authority.certificate_pem})

    async def join(self, request: web.Request) -> web.StreamResponse:
        if not self._tries.allows(request.remote or "", self._remote.clock()):
            raise web.HTTPTooManyRequests(
                text='{"error": "IdentityError", "message": "too many tries to join, wait a second"}',
                content_type="application/json",
                headers={"Retry-After": "1"},
            )
        body = await read_body(request)
        try:
            self._remote.token.check(JoinToken.parse(text_of(body, "token")))
            wanted, name = text_of(body, "role"), text_of(body, "name")
            role: Role | None = next((each for each in _JOIN_ROLES if each == wanted), None)
            if role is None:
                raise IdentityError(f"by a join token one becomes {' or '.join(_JOIN_ROLES)}, not {wanted!r}")
        except IdentityError as error:
            log.warning("refused to let somebody at %s join: %s", request.remote, error)
            raise
        log.info("%s %s joins from %s", role, name, request.remote)
        return self._sign(body, role, name, self._remote.ttl_s)

    async def renew(self, request: web.Request) -> web.StreamResponse:
        if _PEER not in request:
            raise IdentityError("a Unix socket shows no certificate that could be renewed")
        peer = request[_PEER]
        life_s = peer.expires_at - peer.issued_at if peer.role == "client" else self._remote.ttl_s
        return self._sign(await read_body(request), peer.role, peer.name, life_s)

    async def issue(self, request: web.Request) -> web.StreamResponse:
        """For a teammate: whoever is let in may let others in."""
        body = await read_body(request)
        name, life_s = text_of(body, "name"), body.get("life_s")
        if not isinstance(life_s, (int, float)) or not _SHORTEST_LIFE_S <= life_s <= LONGEST_LIFE_S:
            raise ShoalError(
                f"life_s: found {life_s!r}, expected seconds from {_SHORTEST_LIFE_S:g} to {LONGEST_LIFE_S:g}"
            )
        answer = self._sign(body, "client", name, life_s)
        by = caller_of(request)
        days = life_s / 86400
        self._note(
            Event(self._remote.clock(), None, "certificate", f"{name} may use this fleet for {days:.3g} days, by {by}")
        )
        return answer

    def _sign(self, body: dict[str, object], role: Role, name: str, ttl_s: float) -> web.Response:
        request_pem = text_of(body, "request")
        if len(request_pem) > _LARGEST_REQUEST:
            raise IdentityError(
                f"the certificate request has {len(request_pem)} characters, at most {_LARGEST_REQUEST}"
            )
        remote = self._remote
        certificate = remote.authority.sign(request_pem, role=role, name=name, now=remote.clock(), ttl_s=ttl_s)
        return web.json_response({"certificate": certificate})
