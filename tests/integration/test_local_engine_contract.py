"""The contract of engines, on the two that run here."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from engine_contract import CRASHES, EngineContract
from local_fleet import SLEEPER, local_engine, nothing_left_running

from shoal.core.action import Action, ActionFailure, EnsureRevision
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.platform import LocalPlatform
from shoal.engines.memory import Behaviour, MemoryEngine, MemoryPlatform
from shoal.engines.protocol import Engine, Inspector, Platform


class TestLocalEngine(EngineContract):
    """With real processes."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[LocalEngine]:
        with nothing_left_running(tmp_path):
            async with local_engine(tmp_path / "state") as engine:
                yield engine


class CommandsAsBehaviour(MemoryEngine):
    """A memory engine whose replicas behave as the contract's commands would."""

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        for action in actions:
            if isinstance(action, EnsureRevision):
                command = action.template.command
                crash_after_s = 0.01 if command == CRASHES else None
                job_s, job_exit_code = (600.0, 0) if command == SLEEPER else (0.01, 3 if command == CRASHES else 0)
                behaviour = Behaviour(
                    crash_after_s=crash_after_s, exit_code=3, job_s=job_s, job_exit_code=job_exit_code
                )
                self.behave(action.agent, behaviour)
        return await super().act(actions)


class TestMemoryEngine(EngineContract):
    """With values, on the real clock."""

    @pytest.fixture
    def engine(self) -> MemoryEngine:
        return CommandsAsBehaviour(time.time)


def conform(
    local: LocalEngine, memory: MemoryEngine, platforms: tuple[LocalPlatform, MemoryPlatform]
) -> tuple[Engine, Inspector, Engine, Inspector, Platform, Platform]:
    """For the type checker: these are the ports."""
    return local, local, memory, memory, *platforms
