"""A real gateway process with a real Envoy, told by a real link, in front of replicas that the test plays."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiohttp import ClientSession, ClientTimeout, web

from shoal.core.routing import AgentRoute, Endpoint, HealthCheck, Snapshot, Traffic
from shoal.proxy.admin import Admin
from shoal.proxy.health import healthy_target, parse_healthy
from shoal.proxy.link import GatewayLink, serve_gateways
from shoal.proxy.sockets import reachable_socket

DEADLINE_S = 20.0
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(condition: Callable[[], object], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition of this process."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.005)


@dataclass
class Got:
    status: int
    text: str
    headers: dict[str, str]


class Replica:
    """An HTTP server in this process; by default it says its name and what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.hits = 0
        self.active = 0
        self.checks = 0
        self.healthy = True
        self.answer: Answer = self.echo
        self._runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, "127.0.0.1", self.port)

    async def echo(self, request: web.Request) -> web.StreamResponse:
        seen = {key.lower(): value for key, value in request.headers.items()}
        return web.json_response({"replica": self.name, "path": request.path_qs, "headers": seen})

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, keepalive_timeout=5.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=tls).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/healthz":
            self.checks += 1
            return web.Response(status=200 if self.healthy else 503)
        self.hits += 1
        self.active += 1
        try:
            return await self.answer(request)
        finally:
            self.active -= 1


def agent(name: str, *replicas: Replica, health: str | None = "/healthz", **more: object) -> AgentRoute:
    return AgentRoute(
        agent=name,
        protocol=str(more.pop("protocol", "http")),
        health=HealthCheck(health, 0.5, 2.0, 2),
        endpoints=tuple(replica.endpoint for replica in replicas),
        public_path=more.pop("public_path", f"/{name}"),  # pyright: ignore[reportArgumentType]
        **more,  # pyright: ignore[reportArgumentType]
    )


class Rig:
    def __init__(
        self, directory: Path, link: GatewayLink, http: ClientSession, arguments: tuple[str, ...], address: str = ""
    ) -> None:
        self.directory = directory
        self.link = link
        self.http = http
        self.port = free_port()
        self.arguments = arguments
        self.address = address or f"unix:{directory}/controller.sock"
        self.process: asyncio.subprocess.Process | None = None
        self.controller = AsyncExitStack()  # closed: the controller is gone
        self._replicas = AsyncExitStack()

    def snapshot(self, *agents: AgentRoute, **more: object) -> Snapshot:
        return Snapshot(
            fleet="test",
            bind="127.0.0.1",
            public_port=self.port,
            agents={route.agent: route for route in agents},
            **more,  # pyright: ignore[reportArgumentType]
        )

    def traffic(self, name: str) -> Traffic:
        return self.link.traffic().get(name, Traffic())

    async def start(self) -> None:
        state = str(self.directory / "gateway")
        with (self.directory / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shoal.proxy", "--state-dir", state, "--controller", self.address,
                "--name", "one", *self.arguments, stderr=log,
            )  # fmt: skip

    def envoys(self) -> list[psutil.Process]:
        """The Envoys of this rig that run now."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(f"{self.directory}/gateway/envoy-" in part for part in process.cmdline()):
                    found.append(process)
        return found

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        for process in self.envoys():
            with suppress(psutil.Error):
                process.kill()
        await self._replicas.aclose()

    async def replica(self, name: str, tls: ssl.SSLContext | None = None) -> Replica:
        replica = Replica(name)
        await replica.start(tls)
        self._replicas.push_async_callback(replica.stop)
        return replica

    async def push(self, snapshot: Snapshot) -> None:
        """Pushes, and waits until Envoy uses it and takes every endpoint for healthy."""
        version = self.link.push(snapshot)
        assert await self.link.wait_acknowledged(version, DEADLINE_S) == (), self.log()
        wanted = {name: len(route.endpoints) for name, route in snapshot.agents.items()}
        end = time.monotonic() + DEADLINE_S
        while (found := await self.healthy(*wanted)) != wanted:
            assert time.monotonic() < end, f"expected healthy {wanted}, found {found}"

    async def healthy(self, *agents: str) -> dict[str, int]:
        """What Envoy itself says at this instant."""
        admin = Admin(reachable_socket(self.directory / "gateway" / "admin.sock"))
        try:
            found = parse_healthy(await admin.get(healthy_target(agents)))
        finally:
            admin.close()
        return {name: found.get(name, 0) for name in agents}

    def log(self) -> str:
        return (self.directory / "gateway.log").read_text()

    async def get(self, path: str, *, method: str = "GET", port: int | None = None, **more: object) -> Got:
        url = f"http://127.0.0.1:{port or self.port}{path}"
        async with self.http.request(method, url, **more) as response:  # pyright: ignore[reportArgumentType]
            text = await response.text()
            return Got(response.status, text, {key.lower(): value for key, value in response.headers.items()})


@asynccontextmanager
async def rig(directory: Path, *arguments: str) -> AsyncGenerator[Rig]:
    """A gateway that is connected and has been told nothing yet."""
    timeout = ClientTimeout(total=DEADLINE_S)
    async with AsyncExitStack() as stack, AsyncExitStack() as controller:
        link = await controller.enter_async_context(serve_gateways(f"unix:{directory}/controller.sock"))
        http = await stack.enter_async_context(ClientSession(timeout=timeout))
        made = Rig(directory, link, http, ("--concurrency", "1", "--drain", "0", *arguments))
        made.controller = controller
        stack.push_async_callback(made.end)
        await made.start()
        await until(lambda: link.live, "the gateway connects")
        yield made
