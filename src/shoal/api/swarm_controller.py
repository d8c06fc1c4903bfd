"""The controller of a fleet on Docker Swarm put together: one task of a service on a manager.

What it needs of keys it finds as Swarm's secrets; what it has to remember is Swarm's state. So whichever manager it is
started on next, it goes on; and it acts only while it holds the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path

from shoal.api.certificates import Remote
from shoal.api.controller import open_queues
from shoal.api.queue_admins import QueueAdmins
from shoal.api.server import serve_api
from shoal.control.controller import Controller
from shoal.control.document_store import DocumentStore
from shoal.control.lease import Lease
from shoal.control.parts import Parts
from shoal.control.registries import Registries
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.control.swarm_lease import SwarmLease
from shoal.core.masking import Mask
from shoal.core.template import SecretUse
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError, find_endpoint
from shoal.engines.swarm.engine import SwarmEngine
from shoal.engines.swarm.images import Images
from shoal.engines.swarm.install import find_own
from shoal.engines.swarm.names import Role, secret_name
from shoal.engines.swarm.nodes import NodeAgents
from shoal.engines.swarm.platform import SwarmPlatform
from shoal.engines.swarm.render_own import (
    API_PORT,
    CA_CERTIFICATE_FILE,
    CA_KEY_FILE,
    CONTENTS_DIRECTORY,
    LINK_PORT,
    NODE_PORT,
    SEED_FILE,
    TOKEN_FILE,
)
from shoal.errors import EngineError, NotFound
from shoal.pki.authority import Authority
from shoal.pki.credentials import Credentials
from shoal.pki.member import keep_issued
from shoal.pki.token import JoinToken
from shoal.proxy.line_keys import LineGuard
from shoal.proxy.link import serve_gateways
from shoal.sources.rabbitmq import RabbitMqQueues

_ENDED = ("complete", "failed", "rejected", "shutdown", "orphaned", "remove")
_NODES_S = 1.0


async def run_swarm_controller(fleet: str, *, certificate_s: float) -> None:
    """Runs the fleet until it is taken down; cancelled, it leaves the fleet running. Raises Conflict when another
    controller takes its place."""
    authority = Authority.load(Path(CA_CERTIFICATE_FILE).read_text(), Path(CA_KEY_FILE).read_text())
    holder = os.environ.get("SHOAL_TASK") or socket.gethostname()
    identity = authority.issue("controller", holder, now=time.time(), ttl_s=certificate_s)
    credentials = Credentials(identity)
    async with Docker(find_endpoint(None, {})) as docker, asyncio.TaskGroup() as tasks:
        lease = Lease(SwarmLease(docker, fleet), holder, gone=lambda task: _has_ended(docker, task))
        await lease.acquire()
        beside = [tasks.create_task(lease.keep()), tasks.create_task(keep_issued(credentials, authority))]
        remote = Remote(
            "0.0.0.0", API_PORT, credentials, authority, JoinToken.parse(Path(TOKEN_FILE).read_text()), certificate_s
        )
        try:
            await _control(docker, fleet, lease, credentials, remote, tasks)
        finally:
            for task in beside:
                task.cancel()
            with contextlib.suppress(EngineError):
                await lease.release()


async def _control(
    docker: Docker, fleet: str, lease: Lease, credentials: Credentials, remote: Remote, tasks: asyncio.TaskGroup
) -> None:
    own = await find_own(docker, fleet)
    news = asyncio.Event()
    nodes = NodeAgents(news.set, credentials.client_context())
    found = Found(docker, fleet, own.network, nodes)
    mask = _mask()
    registries = Registries(lambda use: _read_secret(fleet, use))
    images = Images(docker, registries.credentials)
    engine = SwarmEngine(
        docker, fleet, images=images, probes=nodes.probes, usage=nodes.usage, mask=mask.apply, news=news,
        heard=nodes.heard, all_heard=found.all_heard,
        run=lambda node, container, argv, tty: nodes.exec(node, container, argv, tty=tty),
    )  # fmt: skip
    async with serve_gateways(f"0.0.0.0:{LINK_PORT}", LineGuard(credentials)) as gateways:
        controller = Controller(
            Parts(
                engine=engine,
                inspector=engine,
                platform=SwarmPlatform(docker, own, Path(SEED_FILE).read_bytes(), images),
                gateways=gateways,
                store=DocumentStore(SwarmKeeper(docker, fleet)),
                open_queues=open_queues,
                open_outside=RabbitMqQueues,
                read_secret=lambda use: _read_secret(fleet, use),
                take_fleet=registries.take,
                clock=time.time,
                fleet=fleet,
                require_right=lease.require,
            )
        )
        api_socket = Path("/tmp/api.sock")
        async with (
            contextlib.aclosing(QueueAdmins(controller, fleet, mask.apply)) as queues,
            serve_api(controller, api_socket, queues, remote),
        ):
            beside = [tasks.create_task(nodes.run()), tasks.create_task(found.run())]
            try:
                await controller.run()
            finally:
                for task in beside:
                    task.cancel()


def _read_secret(fleet: str, use: SecretUse) -> bytes:
    """A user and a password that Shoal itself needs."""
    try:
        return Path(CONTENTS_DIRECTORY, secret_name(fleet, use.name, use.digest)).read_bytes()
    except OSError:
        raise NotFound(
            f"the controller was not given the secret {use.name}, which it needs itself; `shoal up` does that"
        ) from None


def _mask() -> Mask:
    """Of all that the secrets held which this controller was given: with others it is started anew."""
    directory = Path(CONTENTS_DIRECTORY)
    return Mask([path.read_bytes() for path in directory.iterdir()] if directory.is_dir() else [])


class Found:
    """Where the nodes' agents are: their addresses in the fleet's network."""

    def __init__(self, docker: Docker, fleet: str, network: str, nodes: NodeAgents) -> None:
        self._docker, self._network, self._nodes = docker, network, nodes
        self._wanted = {names.FLEET: fleet, names.ROLE: Role.NODE.value}
        self._addresses: dict[str, str] | None = None

    def all_heard(self) -> bool:
        """Whether each has told what it sees, or is known to be silent: before that a controller that has just started
        would take replicas for unready of which it knows nothing yet."""
        known = self._nodes.heard() | self._nodes.silent()
        return self._addresses is not None and self._addresses.keys() <= known

    async def run(self) -> None:
        """Looks for them until cancelled."""
        while True:
            with contextlib.suppress(EngineError):
                found: dict[str, str] = {}
                for task in await self._docker.tasks(self._wanted, desired_state="running"):
                    for attachment in task.get("NetworksAttachments") or ():
                        if attachment["Network"]["ID"] == self._network and attachment.get("Addresses"):
                            found[task["NodeID"]] = f"{attachment['Addresses'][0].partition('/')[0]}:{NODE_PORT}"
                self._addresses = found
                self._nodes.reach(found)
            await asyncio.sleep(_NODES_S)


async def _has_ended(docker: Docker, task: str) -> bool:
    """Whether Swarm knows of a task that it has ended: on a node that does not answer it may run on."""
    try:
        found = await docker.request("GET", f"/tasks/{task}")
    except DockerError as error:
        return error.status == 404
    return found["Status"]["State"] in _ENDED
