"""What Shoal itself runs on this machine beside the agents: one gateway and, where there are queues, one broker.

Both outlive the controller; whoever calls `ensure` next finds them again, or starts what has ended. Below the fleet's
state directory:

    platform/ports.json             ports that agents were told, kept as long as the data
    platform/gateway/               the gateway's state directory, its manifest and logs
    platform/broker/                nats.conf, passwords.json (0600), manifest and logs
    platform/broker/store/          the queues' messages
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shoal.core.broker import ADMIN_USER, broker_url, broker_users
from shoal.core.wiring import Wiring
from shoal.engines.local.addresses import Addresses
from shoal.engines.local.broker import LocalBroker
from shoal.engines.local.layout import Layout, make_private, remove_tree
from shoal.engines.local.render import HOST, render_base
from shoal.engines.local.service import Service
from shoal.spec.model import Fleet

_GATEWAY_STOP_S = 15.0  # it drains first


class LocalPlatform:
    """Implements `Platform`. `directory` is the fleet's state directory; `controller` is where the gateway finds the
    controller (`unix:<path>`); `gateway` replaces the gateway's command, `nats_server` the path of the broker's;
    `died` is told of each that ended by itself."""

    def __init__(
        self,
        directory: Path,
        *,
        controller: str,
        gateway: Sequence[str] | None = None,
        nats_server: str | None = None,
        environment: Mapping[str, str] | None = None,
        died: Callable[[str], None] = lambda why: None,
    ) -> None:
        layout = Layout(directory.absolute())
        self._directory, self._volumes = layout.platform, layout.volumes
        surrounding = os.environ if environment is None else environment
        self._environment = render_base(surrounding, None)
        if "PYTHONPATH" in surrounding:  # this is Shoal itself: it must find what this process found
            self._environment["PYTHONPATH"] = surrounding["PYTHONPATH"]
        home = self._directory / "gateway"
        self._gateway_argv = tuple(gateway or gateway_argv(home, controller))
        self._gateway = Service("gateway", home, keeps="envoy", died=self._note_death)
        self._broker = LocalBroker(self._directory / "broker", nats_server, died=self._note_death)
        self._addresses = Addresses(self._directory / "ports.json")
        self._died = died
        self._told: set[str] = set()  # deaths, until all runs again
        self._lock = asyncio.Lock()
        self._done: tuple[Fleet, Wiring] | None = None
        self._log_look: asyncio.Future[None] | None = None

    async def ensure(self, fleet: Fleet) -> Wiring:
        """Starts or adapts gateway and broker. With the same fleet object and both alive it costs microseconds.

        Raises EngineError: a port that somebody else has, a broker that does not start.
        """
        async with self._lock:
            users = broker_users(fleet)
            if self._done is not None and self._done[0] is fleet and self._alive(broker=bool(users)):
                self._keep_logs_small()
                return self._done[1]
            make_private(self._directory)
            callers = sorted(name for name, agent in fleet.agents.items() if agent.calls)
            self._addresses.choose(
                fleet.local.port,
                fleet.local.bind,
                callers,
                gateway_runs=self._gateway.anything_alive,
                broker_runs=await self._broker.runs_or_is_gone(),  # what just ends still has the port
            )
            if users:
                await self._broker.ensure(fleet, self._addresses.broker, self._addresses.monitor, self._environment)
            await self._ensure_gateway()
            wiring = self._wire(fleet, callers, users)
            self._done = (fleet, wiring)
            self._told.clear()
            return wiring

    async def remove(self, *, data: bool) -> None:
        """Stops the gateway, then the broker; with `data` volumes, queues, passwords and ports go too: by then nothing
        of an agent runs. Bounded in time."""
        async with self._lock:
            self._done = None
            if self._log_look is not None:
                await asyncio.wait((self._log_look,))
            await self._gateway.stop(_GATEWAY_STOP_S)
            await self._broker.stop()
            remove_tree(self._directory if data else self._directory / "gateway")
            if data:
                remove_tree(self._volumes)

    def _alive(self, *, broker: bool) -> bool:
        return self._gateway.alive and (not broker or self._broker.alive)

    async def _ensure_gateway(self) -> None:
        if self._gateway.is_running(self._gateway_argv):
            return
        if self._gateway.alive:  # another command: Envoy goes on, the new gateway adopts it
            await self._gateway.kill()
        self._gateway.start(self._gateway_argv, self._environment)

    def _note_death(self, why: str) -> None:
        if why not in self._told:
            self._told.add(why)
            self._died(f"{why}; it is started anew")

    def _wire(self, fleet: Fleet, callers: Sequence[str], users: Sequence[str]) -> Wiring:
        ports = self._addresses.callers
        passwords = self._broker.passwords(fleet) if users else {}
        port = self._addresses.broker
        return Wiring(
            bind=fleet.local.bind,
            public_port=self._addresses.public,
            caller_ports=ports,
            call_url={name: f"http://{HOST}:{ports[name]}" for name in callers},
            broker_url={name: broker_url(name, passwords[name], HOST, port) for name in users},
            broker_admin_url=broker_url(ADMIN_USER, passwords[""], HOST, port) if users else None,
        )

    def _keep_logs_small(self) -> None:
        """In a thread, for which nobody waits: a log that is rotated is copied, and the disk may be slow."""
        if self._log_look is None or self._log_look.done():
            self._log_look = asyncio.get_running_loop().run_in_executor(None, self._look_at_logs, time.time())

    def _look_at_logs(self, now: float) -> None:
        self._gateway.look_at_logs(now)
        self._broker.look_at_logs(now)


def gateway_argv(state_directory: Path, controller: str) -> tuple[str, ...]:
    """The gateway process as Shoal starts it."""
    return (
        sys.executable, "-m", "shoal.proxy", "--state-dir", str(state_directory), "--controller", controller,
        "--name", "local",
    )  # fmt: skip
