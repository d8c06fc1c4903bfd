"""Whom an agent waits for among those that the controller knows: before its first start, and before its end."""

from __future__ import annotations

from collections.abc import Mapping

from shoal.control.agent_state import AgentState, Event
from shoal.core.dependencies import lets_start


def take_waits(
    state: AgentState, states: Mapping[str, AgentState], now: float, *, reachable: bool = True
) -> tuple[Event, ...]:
    """Notes whom the agent waits for now; where it begins to, that is an event. Unless gateways are `reachable`, nobody
    can be called, however ready he is."""
    before = state.waits_on
    state.waits_on = _end_waits_on(state, states) if state.spec is None else _start_waits_on(state, states, reachable)
    if before or not state.waits_on:
        return ()
    return (Event(now, state.name, "waiting", describe_waits(state)),)


def describe_waits(state: AgentState) -> str:
    """`waits for a and b to be ready`."""
    *first, last = state.waits_on
    names = f"{', '.join(first)} and {last}" if first else last
    return f"waits for {names} to {'stop' if state.spec is None else 'be ready'}"


def _start_waits_on(state: AgentState, states: Mapping[str, AgentState], reachable: bool) -> tuple[str, ...]:
    """The agents that are not ready, and have to be before this one starts; none once it was started, or while no
    replica of it is wished."""
    spec, record = state.spec, state.record
    if spec is None or not spec.depends_on or not record.desired or record.started:
        return ()
    if any(state.observed.counts.values()):
        return ()
    return tuple(name for name in spec.depends_on if name in states and not (reachable and _lets_start(states[name])))


def _end_waits_on(state: AgentState, states: Mapping[str, AgentState]) -> tuple[str, ...]:
    """The agents that leave the fleet with this one, depend on it, and are still there."""
    leaving = ((name, other.last) for name, other in states.items() if other.spec is None)
    return tuple(name for name, last in leaving if last is not None and state.name in last.depends_on)


def _lets_start(state: AgentState) -> bool:
    if state.spec is None:
        return True  # it leaves the fleet: nobody who stays depends on it
    return lets_start(
        state.spec,
        state.observed,
        desired=None if state.decision is None else state.record.desired,
        pinned=state.record.pin is not None or state.held is not None,
        healthy=state.healthy,
    )
