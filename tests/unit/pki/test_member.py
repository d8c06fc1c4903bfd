"""Staying in a fleet, on virtual time: certificates are renewed in time, and whatever goes wrong is survived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shoal.errors import ControllerUnavailable, IdentityError
from shoal.pki import Authority, Credentials, Identity, JoinToken, Role
from shoal.pki import member as member_module
from shoal.pki.member import IDENTITY_FILE, Invitation, Member, keep_issued
from tests.simulation.virtual_time import run_virtually

START = 1_750_000_000.0
LIFE_S = 86400.0
HOUR_S = 3600.0
AUTHORITY = Authority.create("lake", START)
TOKEN = JoinToken.create(AUTHORITY.certificate_pem)


class World:
    """A controller that signs, and a member's clock beside it; `asked` is what it was asked, and at what time."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.token_file = directory / "token"
        self.token_file.write_text(str(TOKEN))
        self.away = False
        self.refuses_renewal = False
        self.controller_ahead_s = 0.0
        self.set_by_s = 0.0  # how far the member's clock was set
        self.asked: list[tuple[str, float]] = []
        monkeypatch.setattr(member_module, "join_fleet", self.join)
        monkeypatch.setattr(member_module, "renew", self.renew)

    def clock(self) -> float:
        return START + asyncio.get_running_loop().time() + self.set_by_s

    def member(self) -> Member:
        invitation = Invitation("https://c:7444", "gateway", "one", self.token_file)
        return Member(self.directory / "state", invitation, self.clock)

    async def join(self, _url: str, token: JoinToken, *, role: Role, name: str) -> Identity:
        self._ask("join")
        TOKEN.check(token)
        return self._issue(role, name)

    async def renew(self, _url: str, credentials: Credentials) -> Identity:
        self._ask("renew")
        now = self.clock() - self.set_by_s + self.controller_ahead_s
        if self.refuses_renewal or now >= credentials.identity.peer.expires_at:
            raise ControllerUnavailable("hung up")
        return self._issue(credentials.identity.peer.role, credentials.identity.peer.name)

    def _ask(self, what: str) -> None:
        self.asked.append((what, asyncio.get_running_loop().time()))
        if self.away:
            raise ControllerUnavailable("nobody there")

    def _issue(self, role: Role, name: str) -> Identity:
        now = self.clock() - self.set_by_s + self.controller_ahead_s
        return AUTHORITY.issue(role, name, now=now, ttl_s=LIFE_S)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def live(world: World, script: Callable[[Member], Awaitable[None]]) -> None:
    """A member's life while the script runs."""

    async def run() -> None:
        member = world.member()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(member.run())
            await script(member)
            running.cancel()

    run_virtually(run())


def test_each_certificate_is_renewed_once_at_two_thirds_of_its_life(world: World) -> None:
    async def script(member: Member) -> None:
        credentials = await member.ready()
        await asyncio.sleep(10 * LIFE_S)
        assert await member.ready() is credentials

    live(world, script)
    (first, *rest) = world.asked
    assert first[0] == "join"
    assert {what for what, _ in rest} == {"renew"}
    assert [round(at / (LIFE_S * 2 / 3)) for _, at in rest] == list(range(1, 15))


@pytest.mark.parametrize("ahead_s", [-240.0, 240.0])
def test_clocks_that_differ_by_minutes_change_nothing(world: World, ahead_s: float) -> None:
    async def script(member: Member) -> None:
        world.controller_ahead_s = ahead_s
        await member.ready()
        await asyncio.sleep(5 * LIFE_S)

    live(world, script)
    assert [what for what, _ in world.asked] == ["join", *["renew"] * 7]


def test_a_clock_that_is_set_delays_no_renewal(world: World) -> None:
    """Set back by a week it would else be renewed a week too late; set on by one it is renewed at once."""

    async def script(member: Member) -> None:
        await member.ready()
        world.set_by_s = -7 * 86400.0
        await asyncio.sleep(LIFE_S * 0.7)
        assert [what for what, _ in world.asked] == ["join", "renew"]
        world.set_by_s = 7 * 86400.0
        await asyncio.sleep(120)
        assert len(world.asked) > 2

    live(world, script)


def test_a_controller_that_is_away_for_longer_than_a_life_is_joined_again(world: World) -> None:
    """Within seconds of its return, and nothing is shown meanwhile that does not hold."""

    async def script(member: Member) -> None:
        await member.ready()
        world.away = True
        await asyncio.sleep(LIFE_S + 60)
        before = len(world.asked)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await member.ready()
        assert 25 < len(world.asked) - before < 70
        world.away = False
        async with asyncio.timeout(3):
            await member.ready()
        assert world.asked[-1][0] == "join"

    live(world, script)


def test_who_is_let_in_needs_the_token_no_more(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Not for the next certificate, nor after a restart; only once that has expired, which is told once."""
    caplog.set_level(logging.INFO)

    async def renewed(member: Member) -> None:
        await member.ready()
        world.token_file.unlink(missing_ok=True)
        await asyncio.sleep(1.5 * LIFE_S)

    live(world, renewed)
    live(world, renewed)  # at the same time again, by now with the certificate of 32 hours later
    assert [what for what, _ in world.asked] == ["join", "renew", "renew"]

    async def expired(_: Member) -> None:
        world.away = True
        await asyncio.sleep(56 * HOUR_S + 60)

    live(world, expired)
    assert caplog.text.count("no new certificate yet") == 2  # nobody there; and no token either


def test_a_renewal_that_is_refused_is_followed_by_the_token(world: World) -> None:
    """By the controller's clock ours may have expired, and all it does is to hang up."""

    async def script(member: Member) -> None:
        await member.ready()
        world.refuses_renewal = True
        await asyncio.sleep(LIFE_S)

    live(world, script)
    assert [what for what, _ in world.asked] == ["join", "renew", "join"]


@pytest.mark.parametrize(
    "stored",
    [
        "nonsense",
        AUTHORITY.issue("gateway", "other", now=START, ttl_s=LIFE_S).pem,
        AUTHORITY.issue("node", "one", now=START, ttl_s=LIFE_S).pem,
        AUTHORITY.issue("gateway", "one", now=START - 2 * LIFE_S, ttl_s=LIFE_S).pem,
        Authority.create("lake", START).issue("gateway", "one", now=START, ttl_s=LIFE_S).pem,
    ],
    ids=["damaged", "another-name", "another-role", "expired", "another-fleet"],
)
def test_what_is_stored_and_of_no_use_is_replaced(world: World, stored: str) -> None:
    (world.directory / "state").mkdir()
    path = world.directory / "state" / IDENTITY_FILE
    path.write_text(stored)

    async def script(member: Member) -> None:
        await member.ready()

    live(world, script)
    assert [what for what, _ in world.asked] == ["join"]
    assert str(Identity.parse(path.read_text()).peer) == "gateway one of fleet lake"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_identity_that_can_not_be_stored_is_used_all_the_same(world: World) -> None:
    (world.directory / "state").write_text("a file")
    used: list[str] = []

    async def script(member: Member) -> None:
        used.append(str((await member.ready()).identity.peer))

    live(world, script)
    assert used == ["gateway one of fleet lake"] and (world.directory / "state").read_text() == "a file"


def test_who_has_the_authority_issues_its_own(world: World) -> None:
    """For the same holder and life, each time at two thirds."""

    async def run() -> None:
        credentials = Credentials(AUTHORITY.issue("controller", "one", now=world.clock(), ttl_s=LIFE_S))
        seen: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(keep_issued(credentials, AUTHORITY, world.clock))
            for _ in range(50):
                await asyncio.sleep(HOUR_S)
                identity = credentials.identity
                seen.add(identity.certificate_pem)
                assert identity.peer.expires_at > world.clock() + LIFE_S / 4
                assert (str(identity.peer), round(identity.life_s)) == ("controller one of fleet lake", LIFE_S)
            running.cancel()
        assert len(seen) == 4

    run_virtually(run())


def test_a_wrong_token_is_told_and_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The file may be put right meanwhile."""
    world.token_file.write_text(str(JoinToken.create(AUTHORITY.certificate_pem)))

    async def script(member: Member) -> None:
        await asyncio.sleep(10)
        assert "the join token is not valid" in caplog.text
        world.token_file.write_text(str(TOKEN))
        async with asyncio.timeout(3):
            await member.ready()

    live(world, script)
    with pytest.raises(IdentityError):
        TOKEN.check(JoinToken.create(AUTHORITY.certificate_pem))
