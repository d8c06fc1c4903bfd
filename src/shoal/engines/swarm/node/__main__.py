"""`python -m shoal.engines.swarm.node`: the node agent, as the fleet's global service starts it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from pathlib import Path

from aiohttp import web

from shoal.engines.swarm.docker import Docker, find_endpoint
from shoal.engines.swarm.node.agent import NodeAgent
from shoal.engines.swarm.node.server import NodeServer
from shoal.errors import IdentityError, ShoalError
from shoal.pki.credentials import Credentials
from shoal.pki.member import Invitation, Member


def main() -> int:
    parser = argparse.ArgumentParser(prog="shoal.engines.swarm.node", description="Sees to a fleet's containers here.")
    parser.add_argument("--fleet", required=True, help="the fleet's name, which its network has too")
    parser.add_argument("--state-dir", type=Path, required=True, help="where its key and certificate lie")
    parser.add_argument("--port", type=int, required=True, help="where the controller asks it")
    parser.add_argument("--join", required=True, metavar="URL", help="https://HOST:PORT of the controller")
    parser.add_argument("--join-token", required=True, metavar="FILE", type=Path, help="the fleet's join token")
    parser.add_argument("--name", default=socket.gethostname(), help="the node's (default: this host's)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    arguments.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = 0
    try:
        asyncio.run(_run(arguments))
    except* ShoalError as errors:
        print(*errors.exceptions, sep="\n", file=sys.stderr)
        status = 1
    return status


async def _run(arguments: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    invitation = Invitation(arguments.join, "node", arguments.name, arguments.join_token)
    member = Member(arguments.state_dir, invitation)
    with contextlib.suppress(asyncio.CancelledError):
        async with Docker(find_endpoint(None, {})) as docker, asyncio.TaskGroup() as tasks:
            agent = NodeAgent(docker, arguments.fleet)
            tasks.create_task(member.run())
            tasks.create_task(agent.run())
            await _serve(agent, await member.ready(), arguments.port)


async def _serve(agent: NodeAgent, credentials: Credentials, port: int) -> None:
    """Until cancelled. Nobody but the controller is answered."""

    def admit(request: web.Request) -> None:
        connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        try:
            credentials.verify(certificate, roles={"controller"}, now=time.time())
        except IdentityError as error:
            raise web.HTTPForbidden(text=str(error)) from error

    application = web.Application()
    NodeServer(agent, admit).add_routes(application)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, ssl_context=credentials.server_context()).start()
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
