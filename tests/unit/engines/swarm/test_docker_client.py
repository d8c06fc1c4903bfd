"""The client against a daemon that answers as told."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fake_docker import FakeDocker

from shoal.engines.swarm.docker import Docker, DockerError, DockerUnavailable, Endpoint
from shoal.errors import Conflict, EngineError, EngineUnavailable

OUT_OF_SEQUENCE = (500, {"message": "rpc error: code = Unknown desc = update out of sequence"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


@pytest.mark.parametrize(("theirs", "spoken"), [("1.41", "1.41"), ("1.44", "1.44"), ("1.47", "1.47"), ("1.60", "1.47")])
async def test_the_newest_version_that_both_know_is_spoken(path: Path, theirs: str, spoken: str):
    daemon = FakeDocker({"GET /nodes": (200, [])}, api_version=theirs)
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        assert await docker.nodes() == []
        assert await docker.nodes() == []
        assert await docker.api_version() == spoken
    assert [asked[1] for asked in daemon.asked] == ["/_ping", f"/v{spoken}/nodes", f"/v{spoken}/nodes"]


async def test_a_daemon_that_is_too_old_is_refused_by_name(path: Path):
    async with FakeDocker(api_version="1.40").listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(
            EngineError, match=r"too old: it speaks the Engine API 1\.40.*needs 1\.41 \(Docker 20\.10\).*upgrade"
        ):
            await docker.info()


async def test_what_is_no_docker_is_told(path: Path):
    async with FakeDocker(api_version=None).listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(EngineError, match=r"is no Docker.*named by a test"):
            await docker.info()


async def test_no_daemon_says_how_to_get_to_one(path: Path):
    async with Docker(Endpoint(f"unix://{path}")) as docker:
        with pytest.raises(EngineUnavailable, match=r"does not exist; start Docker.*DOCKER_HOST"):
            await docker.info()


async def test_a_daemon_that_comes_later_is_found(path: Path):
    """Who was entered while the daemon was away does not have to be made anew."""
    async with Docker(Endpoint(f"unix://{path}")) as docker:
        with pytest.raises(EngineUnavailable):
            await docker.nodes()
        async with FakeDocker({"GET /nodes": (200, [])}).listen(path):
            assert await docker.nodes() == []


async def test_a_socket_that_nobody_serves(path: Path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    async with Docker(Endpoint(f"unix://{path}")) as docker:
        with pytest.raises(EngineUnavailable, match="nothing listens there; start Docker"):
            await docker.info()


async def test_a_socket_of_others_names_the_group(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Root may use every socket, so that the kernel's answer is given by hand."""

    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refuse)
    async with Docker(Endpoint(f"unix://{path}")) as docker:
        with pytest.raises(EngineUnavailable, match=r"you may not use .*docker\.sock; `sudo usermod -aG docker"):
            await docker.info()


async def test_a_daemon_that_ends_in_between_is_unavailable(path: Path):
    async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(end, path), Docker(Endpoint(f"unix://{path}")) as docker:
        with pytest.raises(EngineUnavailable, match="it ended the connection"):
            await docker.info()


async def test_a_filter_is_json(path: Path):
    daemon = FakeDocker({"GET /tasks": (200, [])})
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        await docker.tasks({"shoal.fleet": "f", "a": ""}, service=["x", "y"], desired_state="running")
    filters = json.loads(daemon.asked[-1][2]["filters"])
    assert filters == {"label": ["shoal.fleet=f", "a="], "service": ["x", "y"], "desired-state": ["running"]}


class Service:
    """A service whose version changes under the feet of who writes: so often somebody else is first."""

    def __init__(self, beaten: int) -> None:
        self.beaten = beaten
        self.spec: dict[str, Any] = {"Name": "f_web", "Mode": {"Replicated": {"Replicas": 1}}}
        self.index = 7
        self.written: list[dict[str, Any]] = []

    def daemon(self) -> FakeDocker:
        return FakeDocker({"GET /services/f_web": self._read, "POST /services/id1/update": self._write})

    def _read(self, _: web.Request, __: object) -> tuple[int, Any]:
        return 200, {"ID": "id1", "Version": {"Index": self.index}, "Spec": self.spec}

    def _write(self, request: web.Request, body: dict[str, Any]) -> tuple[int, Any]:
        if self.beaten:
            self.beaten -= 1
            self.index += 1
            self.spec = {**self.spec, "Labels": {"by": str(self.index)}}
            return OUT_OF_SEQUENCE
        assert int(request.query["version"]) == self.index
        self.written.append(body)
        return 200, {"Warnings": None}


def scale(spec: dict[str, Any]) -> dict[str, Any]:
    spec["Mode"]["Replicated"]["Replicas"] = 3
    return spec


async def test_a_change_beaten_by_others_is_made_on_what_they_wrote(path: Path):
    """Swarm says so with status 500, and nothing of theirs is lost."""
    service = Service(beaten=3)
    async with service.daemon().listen(path) as endpoint, Docker(endpoint) as docker:
        assert await docker.update_service("f_web", scale)
    assert service.written == [{"Name": "f_web", "Mode": {"Replicated": {"Replicas": 3}}, "Labels": {"by": "10"}}]


async def test_a_change_that_is_none_writes_nothing(path: Path):
    service = Service(beaten=0)
    async with service.daemon().listen(path) as endpoint, Docker(endpoint) as docker:
        assert not await docker.update_service("f_web", lambda spec: None)
        assert not await docker.update_service("f_web", lambda spec: spec)
    assert service.written == []


async def test_who_is_always_beaten_gives_up_with_a_conflict(path: Path):
    service = Service(beaten=99)
    async with service.daemon().listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(Conflict, match="changed by somebody else"):
            await docker.update_service("f_web", scale, tries=3)
    assert service.beaten == 96


async def test_one_try_is_one_try(path: Path):
    service = Service(beaten=1)
    async with service.daemon().listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(Conflict):
            await docker.write_service("id1", 7, {})
    assert service.beaten == 0


async def test_registry_credentials_are_a_header(path: Path):
    seen: list[str | None] = []

    def create(request: web.Request, _: object) -> tuple[int, Any]:
        seen.append(request.headers.get("X-Registry-Auth"))
        return 201, {"ID": "id1"}

    async with FakeDocker({"POST /services/create": create}).listen(path) as endpoint, Docker(endpoint) as docker:
        assert await docker.create_service({"Name": "a"}, auth="e30=") == "id1"
        await docker.create_service({"Name": "b"})
    assert seen == ["e30=", None]


async def test_other_credentials_alone_are_written_too(path: Path):
    """Which is no change, for those who start something anew after one."""
    service = Service(beaten=0)
    async with service.daemon().listen(path) as endpoint, Docker(endpoint) as docker:
        assert not await docker.update_service("f_web", lambda spec: spec)
        assert service.written == []
        assert not await docker.update_service("f_web", lambda spec: spec, auth="e30=")
        assert len(service.written) == 1


async def test_what_is_gone_already_is_removed(path: Path):
    gone = (404, {"message": "no such service"})
    daemon = FakeDocker({"DELETE /services/a": gone, "DELETE /configs/b": (204, None)})
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        await docker.remove_service("a")
        await docker.remove_config("b")
        with pytest.raises(DockerError) as caught:
            await docker.service("a")
    assert caught.value.status == 404


async def test_a_document_that_is_there_is_found_by_its_name(path: Path):
    answers = {
        "POST /configs/create": (409, {"message": "rpc error: code = AlreadyExists desc = config x already exists"}),
        "GET /configs/f_x": (200, {"ID": "id9", "Spec": {"Name": "f_x"}}),
        "POST /secrets/create": (201, {"ID": "id3"}),
    }
    daemon = FakeDocker(dict(answers))
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        assert await docker.create_config("f_x", b"\0data", {"shoal.fleet": "f"}) == "id9"
        assert await docker.create_secret("f_y", b"s") == "id3"
    assert daemon.asked[1][3] == {
        "Name": "f_x",
        "Labels": {"shoal.fleet": "f"},
        "Data": base64.b64encode(b"\0data").decode(),
    }


async def test_a_container_that_does_not_run_is_killed_already(path: Path):
    daemon = FakeDocker({"POST /containers/c/kill": (409, {"message": "container c is not running"})})
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        await docker.kill("c", "SIGTERM")
        await docker.kill("gone")
    assert daemon.asked[1][2] == {"signal": "SIGTERM"}


async def test_a_worker_is_no_manager(path: Path):
    told = (
        503,
        {"message": "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."},
    )
    async with FakeDocker({"GET /nodes": told}).listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(DockerUnavailable, match="name one of the Swarm's managers"):
            await docker.nodes()


async def test_events_end_with_the_connection(path: Path):
    lines = b'{"Type": "service", "Action": "create"}\n{"Type": "node", "Action": "update"}\n'
    daemon = FakeDocker({"GET /events": (200, lines)})
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        events = [event async for event in docker.events(since=12.5, type=["service", "node"])]
    assert [event["Action"] for event in events] == ["create", "update"]
    assert daemon.asked[-1][2] == {"filters": '{"type": ["service", "node"]}', "since": "12.5"}


async def test_an_exec_that_is_refused_says_why(path: Path):
    answers = {
        "POST /containers/c/exec": (201, {"Id": "e1"}),
        "POST /exec/e1/start": (409, {"message": "container c is paused"}),
    }
    async with FakeDocker(dict(answers)).listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(DockerError, match="container c is paused"):
            async with docker.exec("c", ["true"]):
                pass


async def test_a_path_of_many_parts_stays_one_name(path: Path):
    daemon = FakeDocker()
    async with daemon.listen(path) as endpoint, Docker(endpoint) as docker:
        with pytest.raises(DockerError):
            await docker.image("acme/web:1")
    assert daemon.asked[-1][1] == "/v1.47/images/acme/web:1/json"


SSH = """#!{python}
import os, socket, sys, threading
if "denied" in sys.argv:
    sys.exit("me@denied: Permission denied (publickey).")
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(os.environ["FAKE_DAEMON"])
def pump(read, write):
    while piece := read():
        write(piece)
thread = threading.Thread(target=pump, args=(lambda: daemon.recv(65536), lambda piece: os.write(1, piece)))
thread.start()
pump(lambda: os.read(0, 65536), daemon.sendall)
daemon.shutdown(socket.SHUT_WR)
thread.join()
"""


@pytest.fixture
def ssh(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `ssh` that leads to the daemon at `path`, as `docker system dial-stdio` would."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ssh"
    command.write_text(SSH.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DAEMON", str(path))


@pytest.mark.usefixtures("ssh")
async def test_ssh_leads_to_a_daemon(path: Path):
    async with FakeDocker({"GET /nodes": (200, [])}).listen(path), Docker(Endpoint("ssh://me@edge")) as docker:
        assert await docker.nodes() == []
        assert await asyncio.gather(docker.nodes(), docker.nodes()) == [[], []]


@pytest.mark.usefixtures("ssh")
async def test_what_ssh_says_is_told():
    async with Docker(Endpoint("ssh://me@denied", said_by="DOCKER_HOST")) as docker:
        with pytest.raises(
            EngineUnavailable, match=r"ssh://me@denied can't be reached: denied: .*Permission denied \(publickey\)"
        ):
            await docker.nodes()
