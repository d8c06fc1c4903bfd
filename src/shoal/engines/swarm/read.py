"""What Swarm shows of a fleet, read as what control knows: services and tasks in, agents out. Pure.

A replica is a task. Swarm never starts a task again: what ends is replaced by another task in the same slot, and the
last few that ended stay listed, from which restarts and their reasons are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shoal.core.observed import AgentObserved, JobRun, Phase, Replica
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import remedy_for
from shoal.engines.swarm.names import Role, replica_id

Json = Mapping[str, Any]

_ENDED = frozenset(("complete", "failed", "rejected", "shutdown", "orphaned", "remove"))
BROKEN = frozenset(("failed", "rejected", "orphaned"))
_LEAVING = frozenset(("shutdown", "remove"))


@dataclass(frozen=True, slots=True)
class Probe:
    """What its node's agent knows of a container: whether it can take traffic, and since when it ever could; `ended`:
    the agent ended it, for `reason`."""

    ready: bool
    ready_at: float | None = None
    reason: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. `nodes_down` are ids of nodes that Swarm does not hear of, `nodes_unheard` of those whose agent has
    told this process nothing; `probes` and `last_logs` are by task; `hosts` by node id; `ended` has by run why a
    node's agent ended its last attempt."""

    services: Sequence[Json]
    tasks: Sequence[Json]
    network: str
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    nodes_down: frozenset[str] = frozenset()
    nodes_unheard: frozenset[str] = frozenset()
    probes: Mapping[str, Probe] = field(default_factory=dict[str, Probe])
    last_logs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    ended: Mapping[str, str] = field(default_factory=dict[str, str])


def read_agents(seen: Seen) -> dict[str, AgentObserved]:
    """Every agent of which there is a service, or a task that still ends."""
    services: dict[str, list[Json]] = {}
    for service in seen.services:
        agent = _labels(service).get(names.AGENT)
        if agent is not None:
            services.setdefault(agent, []).append(service)
    tasks: dict[str, list[Json]] = {}
    for task in seen.tasks:
        agent = task_labels(task).get(names.AGENT)
        if agent is not None:
            tasks.setdefault(agent, []).append(task)
    found = {name: _agent(name, services.get(name, ()), tasks.get(name, ()), seen) for name in {*services, *tasks}}
    return {name: agent for name, agent in sorted(found.items()) if agent.counts or agent.replicas or agent.runs}


def broken_tasks(seen: Seen) -> frozenset[str]:
    """The tasks whose last words are worth to be read: those that failed, the last one of each slot."""
    return frozenset(
        history[0]["ID"]
        for slot in _slots(seen.tasks).values()
        if (history := [task for task in slot if _state(task) in BROKEN])
    )


def ended_runs(seen: Seen) -> dict[str, str]:
    """By run why a node's agent ended its last attempt, of those that are over and not in `seen.ended` yet: to be
    written down, as the agent forgets."""
    found: dict[str, str] = {}
    for service in seen.services:
        labels = _labels(service)
        if names.role_of(labels) != Role.RUN or labels[names.RUN] in seen.ended:
            continue
        attempts = _attempts(service, seen.tasks)
        probe = seen.probes.get(attempts[-1]["ID"]) if attempts else None
        if probe is not None and probe.ended and _is_over(labels, attempts):
            found[labels[names.RUN]] = probe.reason
    return found


def ordinals_in_use(tasks: Iterable[Json]) -> dict[int, Json]:
    """By ordinal a task that has, or may still have, the identity: on a node that Swarm does not hear of too."""
    return {
        int(labels[names.ORDINAL]): task
        for task in tasks
        if names.ORDINAL in (labels := task_labels(task)) and _holds(task)
    }


def is_agents(task: Json) -> bool:
    """Whether it is a replica's or a run's, not of what Shoal runs beside them."""
    return names.AGENT in task_labels(task)


def replica_of(task: Json) -> str:
    """The id of the replica or run that a task is."""
    labels = task_labels(task)
    return labels.get(names.RUN) or replica_id(labels[names.AGENT], task["ID"], labels.get(names.ORDINAL))


def replicas_of(service: Json) -> int:
    """How many replicas a service is set to have; 0 for a job."""
    return service["Spec"]["Mode"].get("Replicated", {}).get("Replicas", 0)


def epoch_s(text: str | None) -> float | None:
    """Docker's times as epoch seconds; it writes the year 1 for never."""
    if not text or text.startswith("0001"):
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _agent(name: str, services: Sequence[Json], tasks: Sequence[Json], seen: Seen) -> AgentObserved:
    counts: dict[str, int] = {}
    for service in services:
        labels = _labels(service)
        role, replicas = names.role_of(labels), replicas_of(service)
        if role == Role.REVISION or (role == Role.ORDINAL and replicas):
            counts[labels[names.REVISION]] = counts.get(labels[names.REVISION], 0) + replicas
    of_runs = [service for service in services if names.role_of(_labels(service)) == Role.RUN]
    slots = _slots(task for task in tasks if names.role_of(task_labels(task)) != Role.RUN)
    replicas = [replica for slot in slots.values() for replica in _replicas(name, slot, seen)]
    runs = [_run(name, service, _attempts(service, tasks), seen) for service in of_runs]
    return AgentObserved(
        name,
        dict(sorted(counts.items())),
        tuple(sorted(replicas, key=lambda r: (r.created_at, r.id))),
        tuple(sorted(runs, key=lambda run: (run.started_at or 0.0, run.run_id))),
    )


def _slots(tasks: Iterable[Json]) -> dict[tuple[str, int], list[Json]]:
    """The tasks of each slot, the newest first."""
    slots: dict[tuple[str, int], list[Json]] = {}
    for task in tasks:
        slots.setdefault((task["ServiceID"], task.get("Slot", 0)), []).append(task)
    for slot in slots.values():
        slot.sort(key=lambda task: (task["CreatedAt"], task["ID"]), reverse=True)
    return slots


def _replicas(agent: str, slot: Sequence[Json], seen: Seen) -> list[Replica]:
    broken = [task for task in slot if _state(task) in BROKEN]
    current = next((task for task in slot if task["DesiredState"] not in _LEAVING), None)
    found: list[Replica] = []
    for task in slot:
        if task is current:
            found.append(_current(agent, task, broken, seen))
        elif _state(task) not in _ENDED and task.get("NodeID", "") not in seen.nodes_down and _has_started(task):
            found.append(_replica(agent, task, Phase.STOPPING, seen, ready=False))
    return found


def _current(agent: str, task: Json, broken: Sequence[Json], seen: Seen) -> Replica:
    """The one that the slot is to have. `broken` are those that failed in it, the newest first."""
    state, waits = _state(task), task["DesiredState"] == "ready"
    if state == "running" and task.get("NodeID", "") in seen.nodes_down:
        return _replica(agent, task, Phase.RUNNING, seen, ready=False, reason="its node does not answer", broken=broken)
    if state == "running":
        probe = _probe(task, seen)
        reason = probe.reason if probe.ready else _again(probe.reason, broken, seen)
        return _replica(agent, task, Phase.RUNNING, seen, ready=probe.ready, reason=reason, broken=broken)
    if state in _ENDED or (waits and broken):
        last = broken[0] if broken else task
        reason = _why_ended(last, seen)
        return _replica(agent, task, Phase.BACKOFF, seen, ready=False, reason=reason, broken=broken or [task])
    told = _with_remedy(task["Status"].get("Err") or "")
    reason = told or ("" if state == "pending" and not broken else task["Status"]["Message"])
    return _replica(agent, task, Phase.PENDING, seen, ready=False, reason=_again(reason, broken, seen), broken=broken)


def _again(reason: str, broken: Sequence[Json], seen: Seen) -> str:
    """Of one that was started again how the one before ended comes first: what a crash loop is at the moment matters
    less than what it does."""
    if not broken:
        return reason
    return f"{_why_ended(broken[0], seen)}; started again" + (f", {reason}" if reason else "")


def _replica(
    agent: str,
    task: Json,
    phase: Phase,
    seen: Seen,
    *,
    ready: bool,
    reason: str = "",
    broken: Sequence[Json] = (),
) -> Replica:
    labels, status = task_labels(task), task["Status"]
    ordinal = labels.get(names.ORDINAL)
    host = _address(task, seen.network)
    started = phase in (Phase.RUNNING, Phase.STOPPING)
    port = labels.get(names.PORT)
    return Replica(
        id=replica_id(agent, task["ID"], ordinal),
        agent=agent,
        revision=labels[names.REVISION],
        phase=phase,
        ready=ready,
        host=host if started else None,
        port=int(port) if port is not None and started else None,
        source=host,
        node=seen.hosts.get(task.get("NodeID", "")),
        ordinal=int(ordinal) if ordinal is not None else None,
        created_at=epoch_s(task["CreatedAt"]) or 0.0,
        started_at=epoch_s(status.get("Timestamp")) if phase is Phase.RUNNING else None,
        ready_at=_probe(task, seen).ready_at if started else None,
        restarts=sum(one is not task for one in broken),  # its own end is not one yet: Swarm makes another task for it
        exit_code=_exit_code(broken[0]) if broken else None,
        reason=reason,
        last_log=seen.last_logs.get(broken[0]["ID"], ()) if broken else (),
    )


def _attempts(service: Json, tasks: Sequence[Json]) -> list[Json]:
    """The tasks of a run, the oldest first."""
    ours = [task for task in tasks if task["ServiceID"] == service["ID"]]
    return sorted(ours, key=lambda task: (task["CreatedAt"], task["ID"]))


def _is_over(labels: Mapping[str, str], attempts: Sequence[Json]) -> bool:
    state, retries = _state(attempts[-1]), int(labels.get(names.RETRIES, "0"))
    return state == "complete" or (state in _ENDED and len(attempts) > retries)


def _run(agent: str, service: Json, attempts: Sequence[Json], seen: Seen) -> JobRun:
    """One that its node's agent ended has failed, whatever its program made of it."""
    labels = _labels(service)
    last = attempts[-1] if attempts else None
    phase, finished_at, exit_code, reason, source = Phase.PENDING, None, None, "", None
    if last is not None:
        state, probe = _state(last), seen.probes.get(last["ID"])
        if state in _ENDED:
            ended = seen.ended.get(labels[names.RUN]) or (probe.reason if probe is not None and probe.ended else "")
            phase = Phase.FAILED if _is_over(labels, attempts) else Phase.BACKOFF
            if state == "complete":
                phase, exit_code, reason = phase if ended else Phase.SUCCEEDED, 0, ended
            else:
                exit_code, reason = _exit_code(last), ended or _why_ended(last, seen)
            finished_at = epoch_s(last["Status"]["Timestamp"])
        elif state == "running":
            phase, source = Phase.RUNNING, _address(last, seen.network)
        else:
            reason, source = _with_remedy(last["Status"].get("Err") or ""), _address(last, seen.network)
    return JobRun(
        run_id=labels[names.RUN],
        agent=agent,
        revision=labels[names.REVISION],
        phase=phase,
        attempt=max(1, len(attempts)),
        started_at=float(labels[names.STARTED]),
        finished_at=finished_at,
        exit_code=exit_code,
        reason=reason,
        source=source,
    )


def _probe(task: Json, seen: Seen) -> Probe:
    """Who is not probed, having no port, is ready once it runs. Of whom nobody tells, the gateways' own check decides:
    whoever took over while the nodes' agents can't be reached would take out all that serve."""
    told, since = seen.probes.get(task["ID"]), epoch_s(task["Status"].get("Timestamp"))
    if not task_labels(task).get(names.HEALTH):
        return Probe(True, since) if _state(task) == "running" else Probe(False)
    if told is None and _state(task) == "running" and task.get("NodeID", "") in seen.nodes_unheard:
        return Probe(False, since, "its node's agent does not answer")
    return told or Probe(False)


def _labels(service: Json) -> Mapping[str, str]:
    return service["Spec"].get("Labels") or {}


def task_labels(task: Json) -> Mapping[str, str]:
    """Of its container."""
    return task["Spec"].get("ContainerSpec", {}).get("Labels") or {}


def _state(task: Json) -> str:
    return task["Status"]["State"]


def _holds(task: Json) -> bool:
    return _state(task) not in _ENDED


def _has_started(task: Json) -> bool:
    """What was never placed ends without a trace."""
    return _state(task) in ("starting", "running")


def _address(task: Json, network: str) -> str | None:
    for attachment in task.get("NetworksAttachments") or ():
        if attachment["Network"]["ID"] == network and attachment.get("Addresses"):
            return attachment["Addresses"][0].partition("/")[0]
    return None


def _exit_code(task: Json) -> int | None:
    return task["Status"].get("ContainerStatus", {}).get("ExitCode")


def _why_ended(task: Json, seen: Seen) -> str:
    probe = seen.probes.get(task["ID"])
    if probe is not None and probe.ended:
        return probe.reason
    status, code = task["Status"], _exit_code(task)
    words = (status.get("Err") or status.get("Message") or "").removeprefix("task: ")
    if words.startswith("non-zero exit") and code is not None:
        return exit_reason(code)
    host = seen.hosts.get(task.get("NodeID", ""))
    return f"{_with_remedy(words)}{f', on {host}' if host and _state(task) == 'rejected' else ''}"


def _with_remedy(words: str) -> str:
    remedy = remedy_for(words)
    return f"{words} ({remedy})" if remedy else words


def exit_reason(exit_code: int) -> str:
    """How a container ended, in words: codes above 128 are 128 + signal."""
    if exit_code == 137:
        return "killed by SIGKILL (exit code 137): by itself, for its memory, or as it did not answer"
    return f"exit code {exit_code}"
