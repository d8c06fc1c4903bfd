"""A daemon on TCP with TLS: it is checked by its authority, and shown our certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_docker import FakeDocker

from shoal.engines.swarm.docker import Docker, DockerError, find_endpoint
from shoal.errors import EngineUnavailable
from tests.tls_keys import listening, make_keys


@asynccontextmanager
async def listen(daemon: FakeDocker, keys: Path | None) -> AsyncIterator[str]:
    """DOCKER_HOST of a daemon, which with `keys` lets nobody in without a certificate."""
    async with listening(daemon.answer, keys) as port:
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return make_keys(tmp_path / "keys")


async def test_both_sides_show_certificates(keys: Path):
    daemon = FakeDocker(
        {
            "GET /nodes": (200, []),
            "POST /containers/c/exec": (201, {"Id": "e"}),
            "POST /exec/e/start": (409, {"message": "container c is paused"}),
        }
    )
    async with listen(daemon, keys) as host:
        environ = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(keys)}
        async with Docker(find_endpoint(None, environ)) as docker:
            assert await docker.nodes() == []
            with pytest.raises(DockerError, match="container c is paused"):
                async with docker.exec("c", ["true"]):
                    pass


async def test_a_daemon_of_another_authority_is_not_trusted(keys: Path, tmp_path: Path):
    other = make_keys(tmp_path / "other")
    async with listen(FakeDocker(), keys) as host:
        environ = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(other)}
        async with Docker(find_endpoint(None, environ)) as docker:
            with pytest.raises(EngineUnavailable, match=r"certificate is not trusted .*DOCKER_CERT_PATH"):
                await docker.nodes()


async def test_a_daemon_that_wants_a_certificate_and_gets_none(keys: Path):
    (keys / "alone").mkdir()
    (keys / "alone" / "ca.pem").write_bytes((keys / "ca.pem").read_bytes())
    async with listen(FakeDocker(), keys) as host:
        environ = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(keys / "alone")}
        async with Docker(find_endpoint(None, environ)) as docker:
            with pytest.raises(EngineUnavailable, match=r"can't be reached: .*(TLS failed|it ended the connection)"):
                await docker.nodes()


async def test_a_daemon_without_tls_where_it_is_expected(keys: Path):
    async with listen(FakeDocker(), None) as host:
        environ = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(keys)}
        async with Docker(find_endpoint(None, environ)) as docker:
            with pytest.raises(EngineUnavailable, match=r"TLS failed .*DOCKER_TLS_VERIFY unset"):
                await docker.nodes()


async def test_a_daemon_on_tcp_without_tls():
    daemon = FakeDocker({"GET /nodes": (200, [])})
    async with listen(daemon, None) as host, Docker(find_endpoint(None, {"DOCKER_HOST": host})) as docker:
        assert await docker.nodes() == []
