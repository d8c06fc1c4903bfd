"""The API over the network: what each certificate may ask, how one gets one, and what is said to who may not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from shoal.api import remote_line
from shoal.api.certificates import Remote
from shoal.api.client import Client
from shoal.api.queue_admins import QueueAdmins
from shoal.api.rate_limit import RateLimit
from shoal.api.remote_line import RemoteLine
from shoal.api.server import serve_api
from shoal.errors import ControllerUnavailable, IdentityError, ShoalError
from shoal.pki import Authority, Credentials, Identity, JoinToken, Role, create_key, create_request
from shoal.pki.credentials import authority_context
from shoal.pki.joining import join_fleet, renew
from tests.unit.control.drive import Drive, driving

FLEET = Authority.create("lake", time.time())
OTHER = Authority.create("lake", time.time())
TOKEN = JoinToken.create(FLEET.certificate_pem)
HOUR_S = 3600.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A controller's API at a port of this machine. `ahead_s` sets its clock ahead."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        self.port = free_port()
        self.ahead_s = 0.0
        own = Credentials(FLEET.issue("controller", "one", now=time.time(), ttl_s=HOUR_S))
        self.remote = Remote("127.0.0.1", self.port, own, FLEET, TOKEN, HOUR_S, lambda: time.time() + self.ahead_s)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def client(self, identity: Identity, *addresses: str, kept: list[Identity] | None = None) -> Client:
        keep = kept.append if kept is not None else lambda _: None
        return Client(RemoteLine(addresses or (self.address,), Credentials(identity), keep))


@asynccontextmanager
async def served(directory: Path) -> AsyncGenerator[Served]:
    async with driving() as drive:
        made = Served(drive)
        async with serve_api(
            drive.controller, directory / "s" / "c.sock", QueueAdmins(drive.controller, "f", str), made.remote
        ):
            yield made


def issue(role: Role = "client", name: str = "ann", *, age_s: float = 0.0, authority: Authority = FLEET) -> Identity:
    return authority.issue(role, name, now=time.time() - age_s, ttl_s=HOUR_S)


async def test_a_person_with_a_certificate_asks_as_on_the_socket(tmp_path: Path) -> None:
    """Over whichever address answers; changes and errors as they are there."""
    async with served(tmp_path) as api:
        client = api.client(issue(), f"127.0.0.1:{free_port()}", api.address)
        by_socket = Client(tmp_path / "s" / "c.sock")
        assert (await client.status()).agents == (await by_socket.status()).agents
        assert [event async for event in client.events()] == [event async for event in by_socket.events()]
        with pytest.raises(ShoalError, match="nobody") as caught:
            await client.explain("nobody")
        assert type(caught.value).__name__ == "NotFound"


async def test_an_address_that_refuses_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is tried at once; after one that is silent, a moment later."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes the connection, and never says a word
    with silent:
        async with served(tmp_path) as api:
            refusing, deaf = f"127.0.0.1:{free_port()}", f"127.0.0.1:{silent.getsockname()[1]}"
            assert (await api.client(issue(), deaf, api.address).status()).engine
            monkeypatch.setattr(remote_line, "_NEXT_S", 3600.0)
            assert (await api.client(issue(), refusing, f"127.0.0.1:{free_port()}", api.address).status()).engine


@pytest.mark.parametrize("role", ["controller", "gateway", "node"])
async def test_other_roles_may_only_renew(tmp_path: Path, role: Role) -> None:
    """What a gateway's or a node's thief has is not the fleet."""
    async with served(tmp_path) as api:
        identity = issue(role, "m1")
        for ask in (api.client(identity).status, api.client(identity).down):
            with pytest.raises(IdentityError, match="it takes the role client"):
                await ask()
        renewed = await renew(api.url, Credentials(identity))
        assert (renewed.peer.role, renewed.peer.name) == (role, "m1")


async def test_without_a_certificate_only_joining_answers(tmp_path: Path) -> None:
    """Every other route, known or not, says what it takes."""
    async with served(tmp_path) as api, _raw(api) as session:
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/down"), ("GET", "/metrics"), ("POST", "/v1/renew"),
                             ("POST", "/v1/certificates"), ("GET", "/nonsense"), ("PUT", "/v1/status")):  # fmt: skip
            async with session.request(method, api.url + path, json={}) as answer:
                assert answer.status == 403, path
                assert "none was shown" in (await answer.json())["message"]
        async with session.get(f"{api.url}/v1/join") as answer:
            assert (await answer.json()) == {"authority": FLEET.certificate_pem}
        async with session.post(f"{api.url}/v1/join", data=b"\xff{") as answer:
            assert answer.status == 400


def _raw(api: Served, identity: Identity | None = None) -> aiohttp.ClientSession:
    """HTTPS without a certificate, or with one, and without this project's client."""
    context = (
        Credentials(identity).client_context() if identity is not None else authority_context(FLEET.certificate_pem)
    )
    context.check_hostname = False
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def test_a_connection_does_not_outlive_its_certificate(tmp_path: Path) -> None:
    """It is looked at with each request, not only when the connection is made."""
    async with served(tmp_path) as api, _raw(api, issue()) as session:
        async with session.get(f"{api.url}/v1/status") as answer:
            assert answer.status == 200
        api.ahead_s = HOUR_S
        async with session.get(f"{api.url}/v1/status") as answer:
            assert answer.status == 403
            assert "expired" in (await answer.json())["message"]


async def test_a_stream_ends_with_its_certificate(tmp_path: Path) -> None:
    """Who follows events is not let in for ever by having asked in time."""
    async with served(tmp_path) as api:
        api.ahead_s = HOUR_S - 6
        with pytest.raises(ControllerUnavailable, match="hung up"):
            async with asyncio.timeout(20):
                async for _ in api.client(issue()).events(follow=True):
                    pass


async def test_joining_by_the_token(tmp_path: Path) -> None:
    """As a gateway or a node agent, by the right secret, and never as somebody who may do more."""
    async with served(tmp_path) as api:
        identity = await join_fleet(api.url, TOKEN, role="gateway", name="m1")
        assert str(identity.peer) == "gateway m1 of fleet lake"
        assert identity.life_s == pytest.approx(HOUR_S, abs=2)
        for role in ("client", "controller"):
            with pytest.raises(IdentityError, match="one becomes gateway or node"):
                await join_fleet(api.url, TOKEN, role=role, name="m1")
        with pytest.raises(IdentityError, match="not valid"):
            await join_fleet(api.url, JoinToken.create(FLEET.certificate_pem), role="node", name="m1")
        with pytest.raises(IdentityError, match="another fleet's token"):
            await join_fleet(api.url, JoinToken.create(OTHER.certificate_pem), role="node", name="m1")
        with pytest.raises(IdentityError, match="can't be the name"):
            await join_fleet(api.url, TOKEN, role="node", name="m/1")


async def test_joining_is_limited(tmp_path: Path) -> None:
    """Guessing is hopeless anyway; this keeps it from costing the controller anything."""
    async with served(tmp_path) as api, _raw(api) as session:
        statuses: list[int] = []
        for _ in range(30):
            async with session.post(f"{api.url}/v1/join", json={"token": "x"}) as answer:
                statuses.append(answer.status)
        assert set(statuses) == {403, 429}
        assert statuses[:20] == [403] * 20


def test_a_rate_is_each_addresss_own() -> None:
    """Three at once, then one a second; another address does not feel it, and a clock set back gives nothing."""
    limit = RateLimit(most=3, per_s=1.0)
    assert [limit.allows("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert limit.allows("b", 0.0)
    assert not limit.allows("a", 0.9)
    assert limit.allows("a", 1.1)
    assert not limit.allows("a", -100.0)
    assert [limit.allows("a", 1000.0) for _ in range(4)] == [True, True, True, False]


async def test_a_certificate_for_a_teammate(tmp_path: Path) -> None:
    """Whoever is let in lets others in, by their name and for a time; the fleet's events say so."""
    async with served(tmp_path) as api:
        key = create_key()
        made = await api.client(issue()).issue_certificate("bob", create_request(key), 86400.0)
        bob = Identity.of(key, made, FLEET.certificate_pem)
        assert (bob.peer.role, bob.peer.name, round(bob.life_s)) == ("client", "bob", 86400)
        events = [event async for event in api.client(bob).events()]
        assert [event.message for event in events if event.kind == "certificate"] == [
            "bob may use this fleet for 1 days, by ann"
        ]
        for life_s in (1.0, 1e9, float("nan")):
            with pytest.raises(ShoalError, match="life_s"):
                await api.client(issue()).issue_certificate("bob", create_request(key), life_s)


async def test_a_persons_certificate_is_renewed_silently(tmp_path: Path) -> None:
    """By whichever command comes once two thirds of its life are over; for as long a life as it had."""
    async with served(tmp_path) as api:
        kept: list[Identity] = []
        fresh, due = issue(), issue(age_s=HOUR_S * 0.7)
        await api.client(fresh, kept=kept).status()
        assert kept == []
        client = api.client(due, kept=kept)
        await client.status()
        await client.status()
        (identity,) = kept
        assert identity.peer.name == "ann"
        assert identity.life_s == pytest.approx(HOUR_S, abs=2)
        assert identity.peer.expires_at > due.peer.expires_at + 1000


async def test_what_is_said_to_who_is_not_let_in(tmp_path: Path) -> None:
    """Expired, of another fleet, nobody there: each says what to do."""
    async with served(tmp_path) as api:
        with pytest.raises(IdentityError, match=r"your certificate for lake expired at .*`shoal context export lake`"):
            await api.client(issue(age_s=HOUR_S + 1)).status()
        with pytest.raises(IdentityError, match="not the controller of this fleet"):
            await api.client(issue(authority=OTHER)).status()
        stranger = issue(authority=OTHER)
        forged = Identity(stranger.key_pem, stranger.certificate_pem, FLEET.certificate_pem, stranger.peer)
        with pytest.raises(ControllerUnavailable, match="does not accept your certificate"):
            await api.client(forged).status()
        api.ahead_s = 2 * HOUR_S
        with pytest.raises(IdentityError, match="expired at"):
            await api.client(issue()).status()
    with pytest.raises(ControllerUnavailable, match=r"no controller of lake answers at 127\.0\.0\.1"):
        await api.client(issue()).status()
