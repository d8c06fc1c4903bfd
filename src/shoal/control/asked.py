"""What people ask of one agent, answered once it outlives this controller: another may take its place at any moment."""

from __future__ import annotations

from shoal.control.controller import Controller
from shoal.errors import EngineError, StoreError


async def pin(controller: Controller, agent: str, count: int | None, for_s: float | None) -> None:
    """See `Controller.pin`. Raises StoreError where the count holds, but could not be stored."""
    begun = controller.passes
    controller.pin(agent, count, for_s)
    state = controller.state_of(agent)
    while controller.states.get(agent) is state and (controller.passes <= begun or not state.pin_is_stored):
        await controller.next_change()
        if controller.failed_pass > begun and not state.pin_is_stored:
            raise StoreError(
                f"{agent}: the count holds, but could not be stored, and is lost if this controller ends before it is: "
                f"{controller.problems.get('pass')}; that is tried again"
            )


async def run_job(controller: Controller, agent: str) -> str:
    """See `Controller.run_job`. Raises EngineError where the engine could not be asked for it, or refused."""
    begun = controller.passes
    run_id = controller.run_job(agent)
    state = controller.state_of(agent)
    while controller.passes <= begun or state.acting:
        await controller.next_change()
        if controller.failed_pass > begun:
            break
    why = controller.problems.get("pass") or controller.problems.get("actions") or state.failure
    if run_id in state.manual_runs and why:
        raise EngineError(f"{run_id} has not begun: {why}; that is tried again as long as this controller runs")
    return run_id
