"""The controller's state as the API shows it. Pure: it reads, and changes nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from shoal import __version__
from shoal.api.views import AgentView, DecisionView, OwnerView, ReplicaView, RolloutView, RunView, StatusView
from shoal.control.agent_state import AgentState
from shoal.control.controller import Controller
from shoal.core.autoscaler_words import describe_held
from shoal.core.decision import Decision
from shoal.core.observed import JobRun, Phase, Replica
from shoal.core.ownership import Held
from shoal.core.rollout import RolloutPhase
from shoal.core.signals import Reading
from shoal.spec.model import Agent, Kind

CRASHES_UNTIL_FAILED = 3  # restarts without having been ready, after which a start counts as failed
_NOT_LOADED = "the controller has just started, and reads what the fleet is"

Number = TypeVar("Number", int, float)


def fleet_view(controller: Controller) -> StatusView:
    """The fleet without its agents."""
    wished, wired, routed = controller.wished, controller.wired, controller.routed
    return StatusView(
        fleet=wired.fleet if wired is not None else controller.parts.fleet,
        engine=controller.parts.engine.capabilities.engine,
        at=controller.parts.clock(),
        generation=wished.generation if wished is not None else 0,
        observed_generation=wired.generation if wired is not None else 0,
        settled=controller.settled and controller.carried_out is not None and routed,
        gateway_url=gateway_url(controller),
        gateways=controller.parts.gateways.live,
        controller_pid=os.getpid(),
        problems=tuple(controller.problems.values()),
        engine_away=controller.problems.engine_away,
        version=__version__,
        routed=routed,
    )


def gateway_url(controller: Controller) -> str | None:
    """Where the outside reaches the fleet."""
    if controller.wired is None:
        return None
    wiring = controller.wired.wiring
    bound = "127.0.0.1" if wiring.bind in ("0.0.0.0", "::") else wiring.bind
    return wiring.public_url or f"http://{bound}:{wiring.public_port}"


def agent_view(state: AgentState, base_url: str | None, *, loaded: bool = True) -> AgentView:
    """One agent. `loaded`: whether the controller knows the stored fleet already, so that an agent without a spec is
    one that left it."""
    spec, replicas = state.spec, state.observed.replicas
    health, reason = _health(state) if loaded or spec is not None else ("progressing", _NOT_LOADED)
    pin = state.record.pin
    usage = state.usage.values()
    return AgentView(
        name=state.name,
        kind=spec.kind.value if spec is not None else "removed" if loaded else "unknown",
        revision=state.revision,
        state=health,
        reason=reason,
        settled=is_settled(state),
        desired=0 if spec is None and loaded else state.record.desired,
        ready=sum(1 for r in replicas if r.ready and r.phase is Phase.RUNNING),
        starting=sum(1 for r in replicas if not r.ready and r.phase in (Phase.PENDING, Phase.RUNNING, Phase.BACKOFF)),
        stopping=sum(1 for r in replicas if r.phase is Phase.STOPPING),
        min=spec.scale.min if spec is not None else 0,
        max=spec.scale.max if spec is not None else 0,
        pin=pin.count if pin is not None else None,
        pin_until=pin.until if pin is not None else None,
        url=_public_url(spec, base_url),
        concurrency=value_of(state.signals.concurrency),
        rps=value_of(state.signals.rps),
        p95_s=value_of(state.signals.p95_s),
        queue_depth=value_of(state.depth),
        cpu_cores=sum(u.cpu_cores for u in usage) if usage else None,
        memory_bytes=sum(u.memory_bytes for u in usage) if usage else None,
        next_run_at=state.next_run_at,
        decision=decision_view(state.decision) if state.decision is not None else None,
        replicas=tuple(_replica_view(state, each) for each in sorted(replicas, key=lambda r: r.ordinal or 0)),
        runs=tuple(run_view(run) for run in state.observed.runs),
        rollout=_rollout_view(state),
        waits_on=state.waits_on,
        gpus_busy=_sum_of([u.gpus_busy for u in usage]),
        gpu_memory_bytes=_sum_of([u.gpu_memory_bytes for u in usage]),
        owner=_owner_view(state.held, state.record.held_since) if state.held is not None else None,
    )


def _owner_view(held: Held, since: float | None) -> OwnerView:
    owner = held.owner
    return OwnerView(owner.name, since, held.delegated, owner.lasting, owner.trouble)


def _sum_of(values: Iterable[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None


def is_settled(state: AgentState) -> bool:
    """Whether what is wished of it is carried out; `ensure` says that a wish was taken up, and nothing done yet."""
    return state.settled and not state.ensure and not state.acting


def decision_view(decision: Decision) -> DecisionView:
    """One decision of the autoscaler."""
    return DecisionView(
        at=decision.at,
        current=decision.current,
        count=decision.count,
        reason=decision.reason,
        capped_by=decision.capped_by,
        due_at=decision.due_at,
        proposals=tuple(dataclasses.asdict(proposal) for proposal in decision.proposals),
    )


def _health(state: AgentState) -> tuple[str, str]:
    """The agent's state in one word, and why."""
    spec, replicas = state.spec, state.observed.replicas
    if state.failure:
        return "failed", state.failure
    if spec is None:
        return "progressing", state.waiting_for if state.waits_on else "is being removed"
    rollout = state.record.rollout
    if rollout is not None and rollout.phase is RolloutPhase.FAILED and rollout.revision == state.revision:
        serves = rollout.target(state.observed)
        goes_on = f"; {serves} serves on" if serves != rollout.revision else ""
        return "failed", f"{rollout.revision} was given up: {rollout.reason}{goes_on}"
    new = [r for r in replicas if r.revision == state.revision]
    crashing = next(_crashing(new), None)
    if crashing is not None:
        return ("degraded" if any(r.ready for r in new) else "failed"), _reason(crashing)
    if spec.kind is Kind.JOB:
        return _job_health(state)
    if not is_settled(state):
        unready = next((r for r in new if not r.ready and r.reason), None)
        return "progressing", _reason(unready) if unready is not None else state.waiting_for
    if state.record.desired == 0 and state.record.pin is not None:
        return "ok", "pinned to 0 by hand: nothing wakes it"
    if state.record.desired == 0 and state.held is not None:
        return "ok", f"{describe_held(state.held)}: nothing wakes it"
    if state.record.desired == 0:
        return "asleep", "wakes with the next request" if spec.kind is Kind.SERVICE else "wakes with the next task"
    return "ok", state.decision.reason if state.decision is not None else ""


def _job_health(state: AgentState) -> tuple[str, str]:
    finished = [run for run in state.observed.runs if run.finished_at is not None]
    if finished and finished[-1].phase is Phase.FAILED:
        return "degraded", f"the last run failed: {finished[-1].run_id}: {finished[-1].reason}"
    return "ok", ""


def _crashing(replicas: Iterable[Replica]) -> Iterator[Replica]:
    return (
        replica
        for replica in replicas
        if replica.phase is Phase.FAILED
        or (replica.phase is Phase.BACKOFF and replica.restarts >= CRASHES_UNTIL_FAILED)
    )


def _reason(replica: Replica) -> str:
    last = f"; last said: {replica.last_log[-1]}" if replica.last_log else ""
    return f"{replica.id}: {replica.reason}{last}"


def _rollout_view(state: AgentState) -> RolloutView | None:
    rollout = state.record.rollout
    if rollout is None or state.spec is None or state.spec.kind is Kind.JOB:
        return None
    alive = [r for r in state.observed.replicas if r.phase not in (Phase.STOPPING, Phase.FAILED)]
    new = [r for r in alive if r.revision == rollout.revision]
    return RolloutView(
        phase=rollout.phase.value,
        revision=rollout.revision,
        stable=rollout.stable,
        serving=rollout.target(state.observed),
        generation=rollout.generation,
        started_at=rollout.started_at,
        finished_at=rollout.finished_at,
        new=len(new),
        new_ready=sum(1 for r in new if r.ready),
        old=len(alive) - len(new),
        reason=rollout.reason,
        last_log=rollout.last_log,
    )


def _replica_view(state: AgentState, replica: Replica) -> ReplicaView:
    usage = state.usage.get(replica.id)
    return ReplicaView(
        id=replica.id,
        revision=replica.revision,
        phase=replica.phase.value,
        ready=replica.ready,
        address=f"{replica.host}:{replica.port}" if replica.host is not None and replica.port is not None else None,
        started_at=replica.started_at,
        restarts=replica.restarts,
        reason=replica.reason,
        cpu_cores=usage.cpu_cores if usage is not None else None,
        memory_bytes=usage.memory_bytes if usage is not None else None,
        last_log=replica.last_log,
        gpus_busy=usage.gpus_busy if usage is not None else None,
        gpu_memory_bytes=usage.gpu_memory_bytes if usage is not None else None,
    )


def run_view(run: JobRun) -> RunView:
    """One run of a job."""
    return RunView(run.run_id, run.phase.value, run.attempt, run.started_at, run.finished_at, run.exit_code, run.reason)


def _public_url(spec: Agent | None, base_url: str | None) -> str | None:
    if spec is None or spec.public is None or base_url is None:
        return None
    if spec.public.host is not None:
        return f"http://{spec.public.host}:{base_url.rsplit(':', 1)[1]}{spec.public.path or ''}"
    return f"{base_url}{spec.public.path or ''}"


def value_of(reading: Reading | None) -> float | None:
    """What was read, without when."""
    return None if reading is None else reading.value
