"""The access log is opened anew once it was put aside, though Envoy does not listen at that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shoal.errors import GatewayError
from shoal.proxy.access_log import AccessLog
from shoal.proxy.admin import Admin
from tests.simulation.virtual_time import run_virtually


class Busy(Admin):
    """An Envoy that does not answer the first questions."""

    def __init__(self, silent: int) -> None:
        super().__init__(Path("/nowhere"))
        self.silent = silent
        self.told: list[str] = []

    async def get(self, target: str, *, method: str = "GET", timeout_s: float = 5.0) -> bytes:
        if self.silent:
            self.silent -= 1
            raise GatewayError("no answer")
        self.told.append(f"{method} {target}")
        return b""


def test_envoy_is_told_until_it_hears(tmp_path: Path) -> None:
    """Else it would write on into the older file, which nobody keeps small; told once, it is left in peace."""
    log, busy = tmp_path / "access.log", Busy(silent=2)
    log.write_bytes(b"x" * 10)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            rotating = tasks.create_task(AccessLog(log, busy, most_bytes=10).run())
            await asyncio.sleep(60)
            rotating.cancel()

    run_virtually(run())
    assert busy.told == ["POST /reopen_logs"]
    assert [path.name for path in tmp_path.iterdir()] == ["access.log.1"]
