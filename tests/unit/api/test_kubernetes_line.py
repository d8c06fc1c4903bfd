"""The way to a controller behind an API server: through a proxy where the kubeconfig names one, and as whom it says."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from shoal.api.client import Client
from shoal.api.kubernetes_line import KubernetesLine
from shoal.engines.kubernetes.api import Access
from shoal.engines.kubernetes.api.credentials import StaticToken
from shoal.errors import EngineUnavailable, ShoalError
from tests.tls_keys import listening, make_keys

SECRET = "/api/v1/namespaces/f/secrets/shoal-admin"
PROXIED = "/api/v1/namespaces/f/services/https:shoal-controller:api/proxy"
JANE = (("Impersonate-User", "jane"), ("Impersonate-Group", "ops"), ("Impersonate-Group", "dev"))


class ApiServer:
    """With a controller behind it; `asked` is what came, by path."""

    def __init__(self) -> None:
        self.asked: dict[str, web.Request] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] = request
        if request.path == SECRET:
            return web.json_response({"data": {"token": base64.b64encode(b"t" * 32).decode()}})
        if request.path == f"{PROXIED}/v1/apply":
            return web.json_response({"generation": 3})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive_json()
        await socket.close()
        return socket


class Proxy:
    """Lets `most` through whom `wanted` says, to where the API server is; `asked` is what came."""

    def __init__(self, wanted: str = "", most: int = 100) -> None:
        self._wanted, self._most = wanted, most
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split("\r\n")[0])
        if self._wanted not in head or len(self.asked) > self._most:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        port = int(self.asked[-1].split()[1].rpartition(":")[2])
        behind = await asyncio.open_connection("127.0.0.1", port)  # whatever name was asked for
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pass_on(reader, behind[1]))
            tasks.create_task(_pass_on(behind[0], writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(proxy: Proxy, keys: Path | None = None) -> AsyncGenerator[str]:
    """Where it listens; with `keys` by TLS."""
    tls = None
    if keys is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def reached(server: ApiServer, keys: Path, proxy: str | None, host: str = "127.0.0.1") -> AsyncGenerator[Client]:
    """The controller's client; the API server wants a certificate, and is called by a name that only a proxy knows."""
    tls = ssl.create_default_context(cafile=keys / "ca.pem")
    tls.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    async with listening(server.answer, keys) as port:
        access = Access(
            f"https://{host}:{port}", tls, StaticToken("Bearer b"), server_name="127.0.0.1", proxy=proxy,
            impersonation=JANE,
        )  # fmt: skip
        yield Client(KubernetesLine(access, "f", "shop"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return make_keys(tmp_path / "keys")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_through_a_proxy(keys: Path, scheme: str) -> None:
    """What the API is asked, what the controller is, and a command in a replica."""
    server, proxy = ApiServer(), Proxy(f"Proxy-Authorization: Basic {base64.b64encode(b'me:p w').decode()}")
    async with (
        proxied(proxy, keys if scheme == "https" else None) as at,
        reached(server, keys, f"{scheme}://me:p%20w@{at}", "api.behind.example") as client,
    ):
        assert await client.apply() == 3
        async with client.exec("web-1", ["true"], tty=False):
            pass
    assert server.asked.keys() == {SECRET, f"{PROXIED}/v1/apply", f"{PROXIED}/v1/exec/web-1"}
    assert len(proxy.asked) == 3 and {each.split(":")[0] for each in proxy.asked} == {"CONNECT api.behind.example"}


async def test_a_proxy_that_refuses(keys: Path) -> None:
    """It is named, without the password that is shown to it, and so is where it was asked to lead."""
    server, proxy = ApiServer(), Proxy("nobody has this")
    async with proxied(proxy) as at, reached(server, keys, f"http://me:secret@{at}") as client:
        with pytest.raises(EngineUnavailable, match=r"its proxy answers 407 Proxy Auth.*proxy-url") as caught:
            await client.apply()
        assert "secret" not in str(caught.value)
        line = client._line  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(EngineUnavailable) as caught:
            await line.open()
    said = str(caught.value)
    assert said.startswith(f"the proxy at http://{at} answers status 407 to CONNECT 127.0.0.1:")
    assert "proxy-url in the kubeconfig" in said and "secret" not in said and not server.asked


async def test_a_proxy_that_refuses_a_command(keys: Path) -> None:
    """Though it let through what was asked before; its password is not shown then either."""
    server, proxy = ApiServer(), Proxy(most=1)
    async with proxied(proxy) as at, reached(server, keys, f"http://me:secret@{at}") as client:
        with pytest.raises(ShoalError, match=r"was cut: the proxy answers 407 Proxy Auth") as caught:
            async with client.exec("web-1", ["true"], tty=False):
                pass
    assert server.asked.keys() == {SECRET} and "secret" not in str(caught.value)


async def test_who_acts_as_somebody_else(keys: Path) -> None:
    """Says so with each request, on the way to the controller too; with all groups."""
    server = ApiServer()
    async with reached(server, keys, None) as client:
        await client.apply()
        async with client.exec("web-1", ["true"], tty=False):
            pass
    assert len(server.asked) == 3
    for path, request in server.asked.items():
        sent = [(name, value) for name, value in request.headers.items() if name.startswith("Impersonate")]
        assert sent == list(JANE) and request.headers["Authorization"] == "Bearer b", path
        assert len(request.headers.getall("Host")) == 1
