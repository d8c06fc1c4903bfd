"""What an agent needs beside its replicas and was removed: its revision is ensured again, and nothing else happens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.core.action import EnsureRevision
from shoal.core.observed import Observed
from tests.unit.control.drive import driving


async def test_a_revision_that_lacks_something_is_ensured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it is seen to, and no more once it is there."""
    async with driving() as drive:
        await drive.up({"web": {"command": "serve", "port": 80}})
        await drive.go(5, until=lambda: drive.controller.settled)
        acted = len(drive.engine.acted)
        observe = drive.engine.observe
        lacking = replace((await observe()).agents["web"], lacking=True)

        async def without() -> Observed:
            found = await observe()
            return replace(found, agents={"web": lacking}) if len(drive.engine.acted) == acted else found

        monkeypatch.setattr(drive.engine, "observe", without)
        drive.controller.look()
        await drive.go(5)
        assert [type(each) for each in drive.engine.acted[acted:]] == [EnsureRevision] and drive.controller.settled
