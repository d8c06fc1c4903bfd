"""The port that control knows of an engine. Small, so that the fourth engine is as easy as the second.

Three ports: `Engine` runs the fleet, `Platform` runs what Shoal itself needs beside it (gateways, the embedded
broker), `Inspector` lets people look into it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from shoal.core.action import Action, ActionFailure
from shoal.core.observed import Observed
from shoal.core.signals import Usage
from shoal.core.wiring import Wiring
from shoal.errors import EngineError, NotFound
from shoal.spec.model import Fleet


class Support(StrEnum):
    """Who does it: the engine itself, Shoal in its stead, Shoal without enforcing it, or nobody."""

    NATIVE = "native"
    BY_SHOAL = "by Shoal"
    ADVISORY = "advisory"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Ability:
    """How an engine supports one feature, and what people should know of it."""

    support: Support
    note: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do. `chooses_victims`: a scale-down takes the replicas that it is told to take.

    `table` is by feature, a dotted key of the spec (`agents.gpu`, `agents.calls`); `plan` and the documentation are
    made from it.
    """

    engine: str
    chooses_victims: bool
    runs_images: bool
    table: Mapping[str, Ability] = field(default_factory=dict[str, Ability])


class Engine(Protocol):
    """Runs replicas. Every method may raise EngineError; EngineUnavailable when it can't be reached at all."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def observe(self) -> Observed:
        """Everything of this fleet that the engine has, whoever made it."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yields when it is worth to observe again; it may yield too often, never too seldom."""
        ...

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        """Carries the actions out in order, goes on past one that fails, and returns what failed."""
        ...


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a replica wrote. `stream` is `stdout` or `stderr`; `at` is epoch seconds where known."""

    replica: str
    agent: str
    text: str
    stream: str = "stdout"
    at: float | None = None


class Platform(Protocol):
    """Runs gateways and the embedded broker, and knows by which addresses agents reach them."""

    async def ensure(self, fleet: Fleet) -> Wiring:
        """Starts or adapts what the fleet needs and is not there yet; idempotent, and quick when nothing is to do."""
        ...

    async def remove(self, *, data: bool) -> None:
        """Stops gateways and broker; with `data` their data goes too."""
        ...


class Command(Protocol):
    """A command that a person runs in a replica, as long as it is looked at."""

    def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        """What it writes, until it has closed its outputs: `stdout` or `stderr`, and a piece. With a terminal all is
        `stdout`."""
        ...

    async def write(self, content: bytes) -> None:
        """Gives it input; waits while it does not read."""
        ...

    async def end_input(self) -> None:
        """Nothing more comes."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal."""
        ...

    async def exit_code(self) -> int | None:
        """What it ended with, once its outputs are closed; `None` if it goes on without them."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


class Inspector(Protocol):
    """Lets people look into replicas, and sources measure them."""

    def logs(
        self, *agents: str, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[LogLine]:
        """What the agents' replicas wrote, the oldest first: from `since` (epoch seconds) on, of each replica the last
        `tail` lines; with `follow`, whatever they write from then on."""
        ...

    async def usage(self) -> Mapping[str, Usage]:
        """Use by replica id; replicas that could not be measured are absent."""
        ...

    def exec(self, replica: str, argv: Sequence[str], *, tty: bool) -> AbstractAsyncContextManager[Command]:
        """A command where the replica (or run) with this id runs, with what it has: its files, environment and rights.
        Raises NotFound where it does not run now."""
        ...


def not_running(replica: str) -> NotFound:
    """The error of `Inspector.exec`."""
    return NotFound(f"{replica} does not run now, so no command can be run there; `shoal status` shows what does")


def no_autoscaler(agent: str) -> EngineError:
    """Of an engine that has none of its own."""
    return EngineError(f"agents.{agent}: this engine has no autoscaler to which a count could be handed over")
