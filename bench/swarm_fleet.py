"""A fleet on the test bed's Swarm, started as people do, and beside it what Docker itself would run.

Both have the same program in the same image; what they say goes to a listener on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from bench.live_fleet import HERE, LiveFleet, temporary_directory
from shoal.api.client import Client
from shoal.cli.contexts import load_context, remote_client
from shoal.engines.swarm.docker import Docker, Endpoint
from testbed.images import build_images
from testbed.swarm import loading
from testbed.swarm.bed import Bed
from testbed.swarm.environment import bed_from_environment

PUBLIC_PORT, ADMIN_PORT = 18090, 17454
AGENT = ["python3", "-c", (HERE / "cluster_agent.py").read_text()]
CLIENT = ["python3", "-c", (HERE / "swarm_client.py").read_text()]
_UP_S, _DOWN_S = 180.0, 120.0

T = TypeVar("T")


class Sink:
    """Takes what programs say: `said` has each line, and when it came by this machine's monotonic clock."""

    def __init__(self, host: str) -> None:
        self.said: list[tuple[float, str, str]] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.monotonic()
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                sink.said.append((at, self.path.strip("/"), text))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, name: str, since: float = 0.0) -> list[tuple[float, str]]:
        """What was said under that name from a moment on."""
        return [(at, text) for at, whose, text in list(self.said) if whose == name and at >= since]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class SwarmFleet(LiveFleet):
    """See `LiveFleet`; `image` is what agents run in, `sink` where they say that they serve."""

    bed: Bed
    image: str
    sink: Sink

    @property
    def url(self) -> str:
        return f"http://{self.bed.node(1).address}:{self.port}"

    @property
    def endpoint(self) -> Endpoint:
        """Docker's, of a manager."""
        return Endpoint(f"unix://{self.bed.node(1).socket}", said_by="the bed")

    @property
    def environment(self) -> dict[str, str]:
        return {**LiveFleet.environment.__get__(self), "DOCKER_HOST": self.endpoint.host}

    def ask(self, question: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        context = load_context(self.environment, self.name)
        if context is None:
            raise RuntimeError(f"no context for {self.name}")
        return asyncio.run(question(remote_client(self.environment, context)))

    def docker(self, work: Callable[[Docker], Awaitable[T]]) -> T:
        """Something of Docker itself."""

        async def within() -> T:
            async with Docker(self.endpoint) as docker:
                return await work(docker)

        return asyncio.run(within())

    def agent_spec(self, **more: Any) -> dict[str, Any]:
        """The program as an agent of the fleet."""
        environment = {"SINK": f"{self.sink.url}/ours", **more.pop("environment", {})}
        public = {"public": "/web", "health": "/healthz", "port": 8000}
        return {"image": self.image, "command": AGENT, **public, "environment": environment, **more}

    def write(self, agent: Mapping[str, Any]) -> None:
        """The fleet's file, with this agent as `web`."""
        own = {"port": PUBLIC_PORT, "admin_port": ADMIN_PORT, "image": self.shoal_image}
        spec = {"fleet": self.name, "engine": "swarm", "swarm": own, "agents": {"web": agent}}
        (self.directory / "shoal.yaml").write_text(json.dumps(spec))  # JSON is YAML

    @property
    def shoal_image(self) -> str:
        return build_images(self.bed.cache).shoal.image_id


@contextlib.contextmanager
def on_swarm(name: str) -> Generator[SwarmFleet]:
    """A fleet's directory and the bed with the images; what is started of it is gone afterwards."""
    bed = bed_from_environment()
    if not bed.nodes():
        raise RuntimeError("no Swarm: `make swarm-up` makes one")
    images = build_images(bed.cache)
    loading.load_images(bed.nodes(), images.all())
    sink = Sink(bed.host_address)
    with temporary_directory() as directory, contextlib.closing(sink):
        fleet = SwarmFleet(name, directory, PUBLIC_PORT, bed, images.agents.image_id, sink)
        try:
            yield fleet
        except BaseException:
            with contextlib.suppress(subprocess.SubprocessError):  # what went wrong first is what counts
                fleet.shoal("down", "--volumes", "-y", timeout_s=_DOWN_S)
            raise
        fleet.shoal("down", "--volumes", "-y", timeout_s=_DOWN_S)
