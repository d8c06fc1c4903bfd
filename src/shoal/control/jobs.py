"""A job's part of a pass: which runs are due, and the revision that they run.

A run keeps the revision that it began with, retries included; a change concerns the runs that begin after it. What an
agent had been before it became a job leaves as any replica does: first the gateway, then it is told to stop.
"""

from __future__ import annotations

from dataclasses import replace

from shoal.control.agent_pass import Outcome
from shoal.control.agent_state import AgentState, Wired
from shoal.core.action import Action, EnsureRevision, Remove, RunJob
from shoal.core.observed import Phase
from shoal.core.reconcile import takes_requests
from shoal.core.record import AgentRecord
from shoal.core.schedule import due_fires
from shoal.core.template import Template
from shoal.spec.model import Agent

_ENDED = (Phase.SUCCEEDED, Phase.FAILED)


def step_job(state: AgentState, spec: Agent, template: Template, wired: Wired, now: float) -> Outcome:
    """The next actions of a job. A run's id names its scheduled time, and the last one is remembered only after the
    engine took it, so that a controller that dies between the two neither loses a run nor starts it twice."""
    assert spec.schedule is not None
    schedule = f"{spec.schedule.cron} {spec.schedule.time_zone}"
    last_fire_at = state.record.last_fire_at if state.record.schedule == schedule else None
    due = due_fires(state.name, spec.schedule, last_fire_at, now)
    runs = [*(fire.run_id for fire in due.fires), *state.manual_runs]
    told: list[Action] = []
    if state.ensure or state.revision not in state.observed.counts:
        environment = wired.environment_of(state.name, spec)
        told.append(EnsureRevision(state.name, state.revision, template, environment))
    actions: list[Action] = [
        RunJob(state.name, state.revision, run_id, spec.timeout_s, spec.retries) for run_id in runs
    ]
    busy = {run.revision for run in state.observed.runs if run.phase not in _ENDED}
    busy |= _drain(state)
    actions += [
        Remove(state.name, revision)
        for revision in state.observed.counts
        if revision != state.revision and revision not in busy
    ]
    state.next_run_at = state.due_at = due.due_at
    state.ensure = False
    state.settled = not actions and state.revision in state.observed.counts and not state.observed.replicas
    waiting_for = "old replicas to drain" if state.observed.replicas else "its revision to be known"
    state.waiting_for = "" if state.settled else waiting_for
    # It has no count.
    record = AgentRecord(last_fire_at=due.last_fire_at, schedule=schedule, started=state.record.started)
    return Outcome(
        (*told, *actions),
        record=None if record == state.record and not state.manual_runs else record,
        started_runs=state.manual_runs,
    )


def _drain(state: AgentState) -> set[str]:
    """Takes out of the gateway what a service left to the job; the revisions that a gateway may still send to."""
    serving = {replica.id: replica.revision for replica in state.observed.replicas if takes_requests(replica)}
    state.serving, state.leaving, state.left = (), frozenset(serving), state.left & serving.keys()
    if not state.observed.replicas:
        state.route = state.traffic = None
    elif state.route is not None:
        state.route = replace(state.route, endpoints=(), hold=False)
    return {revision for replica, revision in serving.items() if replica not in state.left}
