"""The fleet's status as JSON, at a price that the control loop can pay: it shares its only thread with this.

An agent's JSON is made anew only where something that it is made of changed, one line is made for all who watch, and
the pause between two lines is at least ten times what making one took.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from shoal.api.present import agent_view, fleet_view, gateway_url, is_settled, value_of
from shoal.control.agent_state import AgentState
from shoal.control.controller import Controller

WATCH_INTERVAL_S = 0.2  # how often a watcher is told at most
UNCHANGED_S = 1.0  # how often it is told where nothing changed
PAUSE_TO_COST = 10
_RANK = {"failed": 0, "degraded": 1, "progressing": 2, "asleep": 3, "ok": 3}


@dataclass(frozen=True, slots=True)
class _Fragment:
    """An agent's JSON, and what it was made of: `parts` compared by identity, `values` by value."""

    parts: tuple[object, ...]
    values: tuple[object, ...]
    order: tuple[int, str]
    text: str


class StatusLines:
    """Renders the status of one controller, for one reader or for all who watch."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._fragments: dict[str, _Fragment] = {}
        self._line, self._cost_s, self._made_at = b"", 0.0, float("-inf")
        self._made, self._due = 0, 0
        self._is_due = asyncio.Event()
        self._watchers = 0
        self._watched = asyncio.Event()

    @property
    def pause_s(self) -> float:
        """How long to wait between two lines."""
        return max(WATCH_INTERVAL_S, PAUSE_TO_COST * self._cost_s)

    def render(self) -> bytes:
        """The status as it is now, as one line."""
        began = time.perf_counter()
        controller = self._controller
        url, loaded = gateway_url(controller), controller.stored is not None
        self._fragments = {name: self._fragment(state, url, loaded) for name, state in controller.states.items()}
        ordered = sorted(self._fragments.values(), key=lambda fragment: fragment.order)
        head = dataclasses.asdict(fleet_view(controller))
        head.pop("agents")
        agents = ", ".join([fragment.text for fragment in ordered])
        self._line = f'{json.dumps(head)[:-1]}, "agents": [{agents}]}}\n'.encode()
        self._made_at = time.perf_counter()
        self._cost_s = self._made_at - began
        return self._line

    async def watch(self) -> AsyncGenerator[bytes]:
        """One line at once, then one whenever something changed, for as long as `keep_time` runs."""
        self._watchers += 1
        self._watched.set()
        try:
            seen = self._due
            fresh = time.perf_counter() - self._made_at < self.pause_s
            yield self._line if fresh else self.render()
            while True:
                while self._due == seen:
                    await self._is_due.wait()
                seen = self._due
                if self._made != seen:
                    self.render()
                    self._made = seen
                yield self._line
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()

    async def keep_time(self) -> None:
        """Says when the next line is due, while somebody watches."""
        while True:
            await self._watched.wait()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._change())
                await asyncio.sleep(0)  # it waits from before the line is made, so that no change is missed
                self._due += 1
                self._is_due.set()
                self._is_due = asyncio.Event()
                await asyncio.sleep(WATCH_INTERVAL_S)
                await asyncio.sleep(self.pause_s - WATCH_INTERVAL_S)

    async def _change(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNCHANGED_S):
                await self._controller.next_change()

    def _fragment(self, state: AgentState, url: str | None, loaded: bool) -> _Fragment:
        signals = state.signals
        parts = (state, state.spec, state.observed, state.record, state.decision)
        values = (
            url,
            loaded,
            state.revision,
            is_settled(state),
            state.waiting_for,
            state.failure,
            state.next_run_at,
            state.usage,
            value_of(state.depth),
            value_of(signals.concurrency),
            value_of(signals.rps),
            value_of(signals.p95_s),
        )
        known = self._fragments.get(state.name)
        if (
            known is not None
            and all(a is b for a, b in zip(known.parts, parts, strict=True))
            and known.values == values
        ):
            return known
        view = agent_view(state, url, loaded=loaded)
        return _Fragment(parts, values, (_RANK[view.state], view.name), json.dumps(view, default=_fields))


def _fields(view: Any) -> dict[str, Any]:
    """A view's fields, without the deep copies that `asdict` makes."""
    return {name: getattr(view, name) for name in _names(cast("type[Any]", type(view)))}


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
