"""The node agent as it runs: a task with the node's Docker, asked over mutual TLS, beside containers that go wrong."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from swarm_things import PATIENCE_S, Things, eventually

from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.nodes import NodeAgents
from shoal.errors import EngineError
from shoal.pki import Authority, Credentials
from shoal.pki.member import IDENTITY_FILE
from tests.swarm_bed import Swarm

PORT = random.randint(17000, 17999)  # others may test on the same nodes
STATE_DIRECTORY = "/var/lib/shoal/node"
CHECK = {"port": 8000, "protocol": "http", "path": "/", "interval_s": 0.3, "timeout_s": 2.0, "retries": 2}
# Answers until there is a file /tmp/ill; told to end, it stops answering at once and takes three seconds for it.
SERVER = """
import http.server, os, pathlib, signal, threading, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if pathlib.Path("/tmp/ill").exists() else 200)
        self.end_headers()
    def log_message(self, *_): pass
def end(*_):
    pathlib.Path("/tmp/ill").touch()
    threading.Timer(3.0, lambda: os._exit(0)).start()
signal.signal(signal.SIGTERM, end)
http.server.ThreadingHTTPServer(("", 8000), Answer).serve_forever()
"""


@dataclass(frozen=True)
class Fleet:
    """A fleet with its network and a node agent on one node, followed as the controller does."""

    things: Things
    agents: NodeAgents
    node: str
    address: str
    authority: Authority
    told: asyncio.Event

    @property
    def docker(self) -> Docker:
        return self.things.docker

    async def serve(self, what: str) -> str:
        """A service that answers, on the node of the agent; its id."""
        spec = self.things.spec(what, program=SERVER)
        container = spec["TaskTemplate"]["ContainerSpec"]
        container["Labels"] |= labels(self.things) | {"shoal.agent": "web", "shoal.health": json.dumps(CHECK)}
        container["StopGracePeriod"] = 10_000_000_000
        spec["TaskTemplate"]["Networks"] = [{"Target": self.things.name("f")}]
        spec["TaskTemplate"]["Placement"] = {"Constraints": [f"node.id=={self.node}"]}
        return await self.docker.create_service(spec)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.told.clear()
                await self.told.wait()

    async def ready_task(self, service: str) -> dict[str, Any]:
        """The service's running task, once the agent says that it is ready."""
        (task,) = await self.things.running(service)
        await self.until(lambda: task["ID"] in self.agents.probes() and self.agents.probes()[task["ID"]].ready)
        return task

    async def run(self, task: dict[str, Any], argv: Sequence[str]) -> tuple[bytes, int | None]:
        """Output and exit code of a command in the task's container."""
        written = b""
        async with self.agents.exec(self.node, container_of(task), argv, tty=False) as command:
            async with aclosing(command.output()) as output:
                async for stream, piece in output:
                    written += piece if stream == "stdout" else b""
            return written, await command.exit_code()

    async def task(self, task_id: str) -> dict[str, Any]:
        return await self.docker.request("GET", f"/tasks/{task_id}")


def container_of(task: dict[str, Any]) -> str:
    return task["Status"]["ContainerStatus"]["ContainerID"]


def labels(things: Things) -> dict[str, str]:
    return {"shoal.fleet": things.name("f")}


async def start_agent(things: Things, image: str, authority: Authority) -> str:
    """The node that it runs on. It finds an identity where it would have kept its own, so that it need not join."""
    identity = authority.issue("node", "tested", now=time.time(), ttl_s=3600.0)
    name = things.name("identity")
    secret = await things.docker.create_secret(name, identity.pem.encode(), things.labels)
    file = {"Name": f"{STATE_DIRECTORY}/{IDENTITY_FILE}", "UID": "0", "GID": "0", "Mode": 0o400}
    socket = {"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/var/run/docker.sock"}
    spec = things.spec("node", image=image)
    spec["TaskTemplate"]["ContainerSpec"] |= {
        "Command": [
            "python3", "-m", "shoal.engines.swarm.node", "--fleet", things.name("f"), "--port", str(PORT),
            "--state-dir", STATE_DIRECTORY, "--join", "https://nobody:1", "--join-token", "/nothing",
        ],
        "Hostname": "tested",
        "User": "0:0",
        "Mounts": [socket],
        "Secrets": [{"SecretID": secret, "SecretName": name, "File": file}],
    }  # fmt: skip
    spec["TaskTemplate"]["Networks"] = [{"Target": things.name("f")}]
    spec["EndpointSpec"]["Ports"] = [
        {"Protocol": "tcp", "TargetPort": PORT, "PublishedPort": PORT, "PublishMode": "host"}
    ]
    (task,) = await things.running(await things.docker.create_service(spec))
    return task["NodeID"]


@asynccontextmanager
async def followed(
    addresses: dict[str, str], credentials: Credentials
) -> AsyncIterator[tuple[NodeAgents, asyncio.Event]]:
    told = asyncio.Event()
    agents = NodeAgents(told.set, credentials.client_context())
    agents.reach(addresses)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agents.run())
        try:
            yield agents, told
        finally:
            running.cancel()


@pytest.fixture
async def fleet(swarm: Swarm) -> AsyncIterator[Fleet]:
    authority = Authority.create("f", now=time.time())
    credentials = Credentials(authority.issue("controller", "controller", now=time.time(), ttl_s=3600.0))
    async with Docker(swarm.endpoint) as docker:
        things = Things(docker, swarm.agents_image)
        try:
            await docker.create_network(things.name("f"), things.labels)
            node = await start_agent(things, swarm.shoal_image, authority)
            hosts = {one["ID"]: one["Description"]["Hostname"] for one in await docker.nodes()}
            address = f"{swarm.addresses[hosts[node]]}:{PORT}"
            async with followed({node: address}, credentials) as (agents, told):
                yield Fleet(things, agents, node, address, authority, told)
        finally:
            await things.remove()


async def test_a_container_is_followed_from_its_first_answer_to_its_end(fleet: Fleet):
    """Ready, measured, asked by a command, ill, ended, and another in its place."""
    service = await fleet.serve("web")
    task = await fleet.ready_task(service)

    async def used() -> bool:
        use = (await fleet.agents.usage()).get(task["ID"])
        return use is not None and use.memory_bytes > 1 << 20 and use.cpu_cores >= 0.0

    assert await eventually(used)
    output, end = await fleet.run(task, ["sh", "-c", "hostname; exit 3"])
    assert (output.decode().strip(), end) == (container_of(task)[:12], 3)
    await fleet.run(task, ["touch", "/tmp/ill"])
    await fleet.until(lambda: not fleet.agents.probes()[task["ID"]].ready)
    probe = fleet.agents.probes()[task["ID"]]
    assert (probe.ready_at is None) == probe.ended  # while it goes on it is known as one that was ready
    await fleet.until(lambda: fleet.agents.probes()[task["ID"]].ended)
    assert fleet.agents.probes()[task["ID"]].reason == "health check failed 10 times in a row: / answered 500"

    async def replaced() -> dict[str, Any] | None:
        (found,) = await fleet.things.running(service)
        return found if found["ID"] != task["ID"] else None

    assert (await eventually(replaced))["Slot"] == task["Slot"]
    await fleet.ready_task(service)


async def test_who_is_stopped_by_swarm_has_its_own_time_to_end(fleet: Fleet):
    """It answers no more within its grace, and is not ended for that."""
    service = await fleet.serve("slow")
    task = await fleet.ready_task(service)

    def newer(spec: dict[str, Any]) -> dict[str, Any]:
        spec["TaskTemplate"]["ForceUpdate"] = 1  # scaled to 0, its task would be forgotten as soon as it has ended
        return spec

    await fleet.docker.update_service(service, newer)

    async def ended() -> dict[str, Any] | None:
        found = await fleet.task(task["ID"])
        return found if found["Status"]["State"] not in ("running", "starting") else None

    assert (await eventually(ended))["Status"]["ContainerStatus"]["ExitCode"] == 0
    assert "health check failed" not in fleet.agents.probes()[task["ID"]].reason


async def test_nobody_but_the_controller_is_told_anything(fleet: Fleet):
    """Neither another fleet's controller, nor another member of this one."""
    task = await fleet.ready_task(await fleet.serve("web"))
    now = time.time()
    strangers = {
        "can't be reached": Authority.create("f", now=now).issue("controller", "controller", now=now, ttl_s=60.0),
        "refuses a command": fleet.authority.issue("gateway", "n1", now=now, ttl_s=60.0),
    }
    for refused, identity in strangers.items():
        async with followed({fleet.node: fleet.address}, Credentials(identity)) as (agents, _):
            assert await agents.usage() == {}
            with pytest.raises(EngineError, match=refused):
                async with agents.exec(fleet.node, container_of(task), ["true"], tty=False):
                    pass
            assert agents.heard() == frozenset()
