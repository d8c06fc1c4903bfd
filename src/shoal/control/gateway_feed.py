"""What the gateways are sent, and the barrier: nobody is stopped, and no hold relied upon, before they acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Mapping

from shoal.control.agent_state import AgentState, Event, Wired
from shoal.core.routes import caller_for, externals_for
from shoal.core.routing import Caller, Snapshot
from shoal.proxy.protocol import Gateways
from shoal.spec.model import Fleet

BARRIER_S = 5.0  # how long a drain waits for a gateway that does not answer
RECONNECT_LOOK_S = 0.05
GATHER_S = 2.0  # the gateways of the controller before call again within this time
COME_S = 30.0  # within which a gateway that was started calls


class GatewayFeed:
    """Composes snapshots out of the agents' routes, pushes them where they differ, and keeps the barrier."""

    def __init__(
        self,
        gateways: Gateways,
        *,
        states: Mapping[str, AgentState],
        clock: Callable[[], float],
        note: Callable[[Event], None],
        wake: Callable[[str], None],
    ) -> None:
        self._gateways, self._states, self._clock, self._note, self._wake = gateways, states, clock, note, wake
        self._snapshot: Snapshot | None = None
        self._version = 0
        self._awaited: dict[str, frozenset[str]] = {}
        self._out_since: dict[str, dict[str, int]] = {}  # by agent: who leaves, and the first version without it
        self._held_since: dict[str, int] = {}  # agents with a hold, and the first version that has it
        self._gathered_at = 0.0  # in the loop's time
        self._to_come: dict[str, float] = {}  # until when, in the loop's time
        self._callers: dict[str, tuple[tuple[object, ...], Caller | None]] = {}  # by agent: made from what, and it

    def expect_gateways(self) -> None:
        """There were gateways before this controller: for a moment, those that have called are not all there are."""
        self._gathered_at = asyncio.get_running_loop().time() + GATHER_S

    def await_arrival(self, names: Collection[str]) -> None:
        """These were started, and are to come."""
        come_by = asyncio.get_running_loop().time() + COME_S
        self._to_come = {name: self._to_come.get(name, come_by) for name in names}

    @property
    def routed(self) -> bool:
        """Whether all gateways are there, and route by what was sent last. One that did not come in time is not waited
        for: see `missing`."""
        now = asyncio.get_running_loop().time()
        waited_for = any(come_by >= now for name, come_by in self._to_come.items() if name not in self._gateways.live)
        return self._gateways.agreed and not waited_for

    def missing(self) -> str | None:
        """Which of those that were started did not come in time, in words."""
        for name in self._gateways.live:
            self._to_come.pop(name, None)
        now = asyncio.get_running_loop().time()
        late = sorted(name for name, come_by in self._to_come.items() if come_by < now)
        if not late:
            return None
        return f"no gateway on {', '.join(late)}, {COME_S:g} s after its start: requests there are refused"

    @property
    def outdated(self) -> bool:
        """Whether limits were divided by another number of gateways, or an agent was forgotten since."""
        if self._snapshot is None:
            return False
        divided = self._snapshot.gateways == max(1, len(self._gateways.live))
        return not divided or not self._snapshot.agents.keys() <= self._states.keys()

    def compose(self, fleet: Fleet, wired: Wired) -> Snapshot:
        """The whole of what the gateways should know now; `fleet` is the one in force, or the last that was."""
        wiring = wired.wiring
        return Snapshot(
            fleet=wired.fleet,
            bind=wiring.bind,
            public_port=wiring.public_port,
            internal_port=wiring.internal_port,
            gateways=max(1, len(self._gateways.live)),
            access_log=fleet.gateway.access_log,
            agents={name: state.route for name, state in self._states.items() if state.route is not None},
            callers=self._callers_by(wiring.caller_ports),
            externals=externals_for(fleet.external),
        )

    def _callers_by(self, ports: Mapping[str, int]) -> dict[str, Caller]:
        """Who calls, and how each is known. Who did not change stays the same object, and is not told again."""
        known, self._callers = self._callers, {}
        for name, state in self._states.items():
            made_from = (state.observed, state.calls, state.revision, ports.get(name))
            before = known.get(name)
            if before is None or any(one is not other for one, other in zip(made_from, before[0], strict=True)):
                caller = caller_for(state.may_call, ports.get(name), state.observed)
                before = (made_from, before[1] if before is not None and before[1] == caller else caller)
            self._callers[name] = before
        return {name: caller for name, (_, caller) in self._callers.items() if caller is not None}

    def push(self, snapshot: Snapshot, tasks: asyncio.TaskGroup | None) -> None:
        """Sends it where it differs from the last; a barrier follows for what must be acknowledged first."""
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._version = self._gateways.push(snapshot)
            self._awaited.clear()
        self._note_versions()
        waiting = {
            name: state.leaving - state.left
            for name, state in self._states.items()
            if _must_wait(state) and self._awaited.get(name) != state.leaving - state.left
        }
        if waiting and tasks is not None:
            self._awaited.update(waiting)
            tasks.create_task(self._barrier(self._version, waiting))

    def _note_versions(self) -> None:
        """An acknowledgement counts for who is out, or held, in that version and in all since: who came back in between
        has to be agreed upon anew."""
        out, held, version = self._out_since, self._held_since, self._version
        self._out_since = {
            name: {replica: out.get(name, {}).get(replica, version) for replica in state.leaving}
            for name, state in self._states.items()
            if state.leaving
        }
        self._held_since = {name: held.get(name, version) for name, state in self._states.items() if _holds(state)}

    async def _barrier(self, version: int, waiting: Mapping[str, frozenset[str]]) -> None:
        await asyncio.sleep(max(0.0, self._gathered_at - asyncio.get_running_loop().time()))
        if not self._gateways.live:  # one may still serve from its last snapshot, and be about to come back
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BARRIER_S):
                    while not self._gateways.live:  # noqa: ASYNC110 - `changed` has its reader, the loop
                        await asyncio.sleep(RECONNECT_LOOK_S)
        silent = await self._gateways.wait_acknowledged(version, BARRIER_S)
        any_live = bool(self._gateways.live)
        if silent:
            message = f"went on after {BARRIER_S:g} s without the acknowledgement of {', '.join(silent)}"
            self._note(Event(self._clock(), None, "drain", message))
        for name, leaving in waiting.items():
            state = self._states.get(name)
            if self._awaited.get(name) == leaving:
                del self._awaited[name]
            if state is not None:
                out = self._out_since.get(name, {})
                state.left |= {replica for replica in leaving if out.get(replica, math.inf) <= version}
                # Nobody to agree is no agreement here: the last replica must not go while nothing holds requests.
                state.hold_acknowledged |= any_live and self._held_since.get(name, math.inf) <= version
                self._wake(name)


def _holds(state: AgentState) -> bool:
    return state.route is not None and state.route.hold


def _must_wait(state: AgentState) -> bool:
    return bool(state.leaving - state.left) or (_holds(state) and not state.hold_acknowledged)
