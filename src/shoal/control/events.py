"""What people want to be told of, found by comparing two observations of one agent."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.control.agent_state import Event, runs_by_id
from shoal.core.observed import AgentObserved, JobRun, Phase, Replica
from shoal.core.rollout import Rollout, RolloutPhase
from shoal.units import format_duration


def events_between(before: AgentObserved, after: AgentObserved, at: float) -> Iterator[Event]:
    """The events of one agent between two observations of it."""
    known = {replica.id: replica for replica in before.replicas}
    for replica in after.replicas:
        yield from _replica_events(known.pop(replica.id, None), replica, at)
    for replica in known.values():
        yield Event(at, replica.agent, "gone", f"{replica.id} ended")
    runs_before = runs_by_id(before)
    for run in after.runs:
        yield from _run_events(runs_before.get(run.run_id), run, at)


def rollout_events(agent: str, before: Rollout | None, after: Rollout, at: float) -> Iterator[Event]:
    """What became of an agent's rollout in one pass. The first version of an agent takes over from nobody."""
    new = before is None or before.revision != after.revision
    if new and after.stable is not None:
        yield Event(at, agent, "rollout", f"{after.revision} begins to take over from {after.stable}")
    if before is not None and not new and before.phase is after.phase:
        return
    took = format_duration(round(at - after.started_at, 1))
    if after.phase is RolloutPhase.FAILED:
        goes_on = f"; {after.stable} serves on" if after.stable is not None else ""
        yield Event(at, agent, "rollout-failed", f"{after.revision}: {after.reason}{goes_on}")
    elif after.phase is RolloutPhase.COMPLETE and after.stable is not None:
        yield Event(at, agent, "rollout-complete", f"{after.revision} took over from {after.stable} in {took}")


def _replica_events(before: Replica | None, after: Replica, at: float) -> Iterator[Event]:
    if before is None:
        yield Event(at, after.agent, "started", f"{after.id} of revision {after.revision}")
    if after.ready and (before is None or not before.ready):
        took = "" if after.started_at is None else f" {max(0.0, (after.ready_at or at) - after.started_at):.2f} s after"
        yield Event(at, after.agent, "ready", f"{after.id} ready{took} its start" if took else f"{after.id} ready")
    if before is not None and before.ready and not after.ready and after.phase is Phase.RUNNING:
        yield Event(at, after.agent, "unready", f"{after.id}: {after.reason or 'its check fails'}")
    if after.restarts > (before.restarts if before else 0):
        yield Event(at, after.agent, "crashed", f"{after.id}: {after.reason or 'ended by itself'}")
    if (
        after.phase in (Phase.PENDING, Phase.FAILED)
        and after.reason
        and (before is None or before.reason != after.reason)
    ):
        yield Event(at, after.agent, after.phase.value, f"{after.id}: {after.reason}")


def _run_events(before: JobRun | None, after: JobRun, at: float) -> Iterator[Event]:
    if before is None:
        yield Event(at, after.agent, "run-started", after.run_id)
    elif after.attempt > before.attempt:
        yield Event(at, after.agent, "run-retried", f"{after.run_id}: attempt {after.attempt}; {after.reason}")
    if after.phase is not (before.phase if before else None):
        if after.phase is Phase.SUCCEEDED:
            yield Event(at, after.agent, "run-succeeded", after.run_id)
        elif after.phase is Phase.FAILED:
            yield Event(at, after.agent, "run-failed", f"{after.run_id}: {after.reason or 'failed'}")
