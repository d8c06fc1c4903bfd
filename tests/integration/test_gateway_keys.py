"""A real gateway with a real Envoy whose certificates live for seconds: they change under load, and nobody notices."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, web
from gateway_rig import DEADLINE_S, Rig, agent, free_port, until
from test_gateway_kills import load

from shoal.api.certificates import Remote
from shoal.api.server import errors_as_json
from shoal.pki import Authority, Credentials, Identity, JoinToken
from shoal.pki.member import IDENTITY_FILE
from shoal.proxy.line_keys import LineGuard
from shoal.proxy.link import GatewayLink, serve_gateways

LIFE_S = 6.0
ROTATIONS = 3


class Controller:
    """What the gateways of a fleet see of its controller; it can be killed, and another one started."""

    def __init__(self, life_s: float) -> None:
        self.authority = Authority.create("lake", time.time())
        self.token = JoinToken.create(self.authority.certificate_pem)
        self.line = f"127.0.0.1:{free_port()}"
        self.join_port = free_port()
        self.life_s = life_s
        self._running = AsyncExitStack()

    async def start(self) -> GatewayLink:
        now = time.time()
        credentials = Credentials(self.authority.issue("controller", "one", now=now, ttl_s=3600))
        remote = Remote("127.0.0.1", self.join_port, credentials, self.authority, self.token, self.life_s)
        application = web.Application(middlewares=[errors_as_json, remote.guard()])
        application.add_routes(remote.routes(lambda _: None))
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._running.push_async_callback(runner.cleanup)
        await remote.listen(runner)
        return await self._running.enter_async_context(serve_gateways(self.line, LineGuard(credentials)))

    async def end(self) -> None:
        await self._running.aclose()


@asynccontextmanager
async def guarded_rig(directory: Path, life_s: float, token: str = "") -> AsyncGenerator[tuple[Rig, Controller]]:
    """A gateway that was told where to join, and by which token."""
    controller = Controller(life_s)
    token_file = directory / "join-token"
    token_file.write_text(token or str(controller.token))
    arguments = ("--join", f"https://127.0.0.1:{controller.join_port}", "--join-token", str(token_file))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(controller.end)
        link = await controller.start()
        http = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=DEADLINE_S)))
        gateway = Rig(directory, link, http, ("--concurrency", "1", "--drain", "0", *arguments), controller.line)
        stack.push_async_callback(gateway.end)
        await gateway.start()
        yield gateway, controller


def stored(directory: Path) -> Identity:
    return Identity.parse((directory / "gateway" / IDENTITY_FILE).read_text())


async def test_certificates_of_seconds_change_under_load(tmp_path: Path) -> None:
    """No request fails over several rotations and a controller that is killed; gateway process and Envoy stay."""
    async with guarded_rig(tmp_path, LIFE_S) as (gateway, controller):
        await until(lambda: gateway.link.live)
        snapshot = gateway.snapshot(agent("a", await gateway.replica("r"), await gateway.replica("s")))
        await gateway.push(snapshot)
        (envoy,) = gateway.envoys()
        async with load(gateway) as counted:
            await _rotate(gateway, tmp_path)
            await controller.end()
            held = stored(tmp_path).peer.expires_at
            await until(lambda: time.time() > held + 0.5, "the certificate expires while the controller is away")
            gateway.link = await controller.start()
            await until(lambda: gateway.link.live, "the gateway comes back")
            await gateway.push(snapshot)
            await _rotate(gateway, tmp_path)
            await gateway.push(snapshot)
        assert gateway.process is not None and gateway.process.returncode is None
        assert [process.pid for process in gateway.envoys()] == [envoy.pid]
    assert counted.results["sent"] == counted.results["distinct"] > 100
    assert counted.results["failed"] == []


async def _rotate(gateway: Rig, directory: Path) -> None:
    for _ in range(ROTATIONS):
        before = stored(directory)
        await until(lambda before=before: stored(directory) != before, "the certificate is renewed")
    await until(lambda: gateway.link.live, "the gateway is connected")


async def test_a_gateway_that_was_let_in_needs_no_token_again(tmp_path: Path) -> None:
    """Its key and certificate outlive the process, for its owner alone; the token may be gone or changed by then."""
    async with guarded_rig(tmp_path, 3600) as (gateway, controller):
        await until(lambda: gateway.link.live)
        assert (tmp_path / "gateway" / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
        first = stored(tmp_path)
        for token in (None, str(JoinToken.create(controller.authority.certificate_pem))):
            (tmp_path / "join-token").unlink(missing_ok=True)
            if token is not None:
                (tmp_path / "join-token").write_text(token)
            assert gateway.process is not None
            gateway.process.kill()
            await gateway.process.wait()
            await until(lambda: not gateway.link.live)
            await gateway.start()
            await until(lambda: gateway.link.live)
        assert stored(tmp_path) == first


async def test_an_uninvited_gateway_is_not_let_in(tmp_path: Path) -> None:
    """By another fleet's token it does not even tell it; by a wrong secret it is told why."""
    authority = Authority.create("lake", time.time())
    async with guarded_rig(tmp_path, 3600, str(JoinToken.create(authority.certificate_pem))) as (gateway, controller):
        await until(lambda: "it is another fleet's token" in gateway.log())
        wrong = JoinToken.create(controller.authority.certificate_pem)
        (tmp_path / "join-token").write_text(str(wrong))
        await until(lambda: "the join token is not valid" in gateway.log())
        assert gateway.link.live == ()
        assert wrong.secret not in gateway.log()
        (tmp_path / "join-token").write_text(str(controller.token))
        await until(lambda: gateway.link.live)


async def test_what_another_fleet_left_in_the_directory_is_not_used(tmp_path: Path) -> None:
    """A volume outlives a fleet; the token says whose gateway this is now."""
    left = Authority.create("lake", time.time()).issue("gateway", "one", now=time.time(), ttl_s=3600)
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / IDENTITY_FILE).write_text(left.pem)
    async with guarded_rig(tmp_path, 3600) as (gateway, _):
        await until(lambda: gateway.link.live)
        assert "joins anew" in gateway.log()
