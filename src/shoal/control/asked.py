"""What people ask of one agent, answered once it outlives this controller: another may take its place at any moment."""

from __future__ import annotations

import asyncio
import contextlib

from shoal.control.controller import Controller
from shoal.errors import EngineError, StoreError

PATIENCE_S = 5.0  # with a store or an engine that is away: it may come back


async def pin(controller: Controller, agent: str, count: int | None, for_s: float | None) -> None:
    """See `Controller.pin`. Raises StoreError where the count holds, but could not be stored."""
    begun = controller.passes
    controller.pin(agent, count, for_s)
    state = controller.state_of(agent)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while controller.states.get(agent) is state and (controller.passes <= begun or not state.pin_is_stored):
                await controller.next_change()
            return
    raise StoreError(
        f"{agent}: the count holds, but could not be stored within {PATIENCE_S:g} s, and is lost if this controller "
        f"ends before it is: {controller.problems.get('pass', 'the store does not answer')}; that is tried again"
    )


async def run_job(controller: Controller, agent: str) -> str:
    """See `Controller.run_job`. Raises EngineError where the engine could not be asked for it, or refused."""
    begun = controller.passes
    run_id = controller.run_job(agent)
    state = controller.state_of(agent)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while controller.passes <= begun or (run_id in state.manual_runs and not state.waits_on):
                await controller.next_change()
    problems = controller.problems
    why = problems.get("pass") or problems.get("actions") or state.failure
    if run_id in state.manual_runs and why:
        raise EngineError(f"{run_id} has not begun: {why}; that is tried again as long as this controller runs")
    return run_id
