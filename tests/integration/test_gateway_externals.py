"""Services outside of the fleet: found by name, verified, capped, and asked by their own name."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from gateway_rig import free_port, rig, until

from shoal.core.routing import Caller, ExternalRoute


def certificate(directory: Path, name: str) -> ssl.SSLContext:
    """A server's context; `NAME.pem` is its own authority."""
    key, pem = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(pem)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    return context


async def test_externals(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    good, wrong = certificate(tmp_path, "localhost"), certificate(tmp_path, "elsewhere.test")
    authorities = tmp_path / "authorities.pem"
    authorities.write_text("".join((tmp_path / f"{name}.pem").read_text() for name in ("localhost", "elsewhere.test")))
    async with rig(tmp_path, "--ca-file", str(authorities)) as gateway:
        plain, secure, impostor = (
            await gateway.replica("plain"),
            await gateway.replica("secure", good),
            await gateway.replica("impostor", wrong),
        )
        externals = {
            "plain": ExternalRoute("plain", "localhost", plain.port, tls=False, base_path="/v1", max_requests=1),
            "secure": ExternalRoute("secure", "localhost", secure.port, tls=True),
            "impostor": ExternalRoute("impostor", "localhost", impostor.port, tls=True),
        }
        port = free_port()
        callers = {"a": Caller("a", tuple(externals), listener_port=port)}
        await gateway.push(gateway.snapshot(callers=callers, externals=externals))

        for name, path in (("plain", "/v1/chat?q=1"), ("secure", "/chat?q=1")):
            got = await gateway.get(f"/{name}/chat?q=1", port=port)
            seen = json.loads(got.text)
            assert (seen["replica"], seen["path"]) == (name, path)
            assert seen["headers"]["host"] == f"localhost:{externals[name].port}"
        assert (await gateway.get("/impostor/", port=port)).status == 503
        assert impostor.hits == 0

        release = asyncio.Event()

        async def wait(_: web.Request) -> web.StreamResponse:
            await release.wait()
            return web.Response()

        plain.answer = wait
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(gateway.get("/plain/", port=port))
            await until(lambda: plain.active == 1)
            over = await gateway.get("/plain/", port=port)
            release.set()
        assert (first.result().status, over.status) == (200, 503)
        assert "x-envoy-overloaded" in over.headers
