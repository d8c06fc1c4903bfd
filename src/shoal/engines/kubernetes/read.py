"""What Kubernetes shows of one agent, read as what control knows: its objects in, an agent out. Pure.

A replica is a pod. Its container may be started again in place, which keeps its id; the last of these is told with its
reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.core.observed import AgentObserved, CountOwner, JobRun, Phase, Replica
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api.kinds import JOB, STATEFUL_SET
from shoal.engines.kubernetes.api.refusals import remedy_for
from shoal.engines.kubernetes.names import Role, labels_of, role_of
from shoal.engines.kubernetes.ownership import aims_at, read_autoscaler, read_owner
from shoal.engines.kubernetes.render_pod import CONTAINER, wiring_name
from shoal.engines.kubernetes.stateful import ORDINALS, Ordinals, ordinal_of, read_ordinals
from shoal.engines.kubernetes.times import epoch_s
from shoal.engines.kubernetes.warnings import NONE, Warnings

Object = Mapping[str, Any]
LAST_LINES = 20
_NONE: Mapping[str, Any] = {}
_NODE_LOST = "its node does not answer"

ON_ITS_WAY = "its container is being made"
_IMAGE_REMEDY = (
    "push the image to a registry that every node reaches, and name its password under `registries` if it asks for one"
)
_NAME_REMEDY = "mend its name under `image` in the file; expected [REGISTRY/]NAME[:TAG] in lower case, as in web:1.2"
_BAD_WAITS = frozenset(
    (
        "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects of one agent, the autoscalers that aim at it, whoever made them, and what events tell. `mask` takes
    secrets out of what replicas wrote. `governed`: there is the Service of identities, `budgeted`: a budget."""

    deployments: Sequence[Object] = ()
    stateful_sets: Sequence[Object] = ()
    templates: Sequence[Object] = ()
    jobs: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    autoscalers: Sequence[Object] = ()
    warnings: Warnings = field(default_factory=dict[tuple[str, str], str])
    mask: Callable[[str], str] = str
    governed: bool = True
    budgeted: bool = True

    @property
    def several(self) -> bool:
        """Whether it is to have more than one replica of a version."""
        return any(each["spec"].get("replicas", 1) > 1 for each in (*self.deployments, *self.stateful_sets))

    @property
    def lacking(self) -> bool:
        """Whether it has not all that it needs beside its replicas."""
        return (
            (bool(self.stateful_sets) and not self.governed)
            or (self.several and not self.budgeted)
            or self.lacks_variables
        )

    @property
    def lacks_variables(self) -> bool:
        """Whether a replica waits for the Secret of its private variables."""
        return any(_lacks_variables(pod) for pod in self.pods)


def read_agent(agent: str, parts: Parts) -> AgentObserved:
    """The agent with what it is set to have, its replicas and its runs."""
    counts: dict[str, int] = {labels_of(each)[names.REVISION]: 0 for each in parts.templates}
    for item in parts.deployments:
        counts[labels_of(item)[names.REVISION]] = int(item["spec"].get("replicas", 1))
    ordinals = [read_ordinals(item, parts.pods) for item in parts.stateful_sets]
    for each in ordinals:
        counts |= each.counts
    replicas = [
        _replica(agent, pod, parts, stays=all(each.has(pod) for each in ordinals))
        for pod in parts.pods
        if role_of(pod) in (Role.REVISION, Role.STATEFUL) and not is_over(pod)
    ]
    for item in (*parts.deployments, *parts.stateful_sets):
        replicas += _not_made(agent, item, replicas, parts.warnings)
    runs = [_run(agent, job, parts) for job in parts.jobs]
    return AgentObserved(
        agent,
        dict(sorted(counts.items())),
        tuple(sorted(replicas, key=lambda r: (r.created_at, r.id))),
        tuple(sorted(runs, key=lambda run: (run.started_at or 0.0, run.run_id))),
        _owners(parts, ordinals),
        read_autoscaler(parts.autoscalers),
        _queued(parts.deployments, replicas),
        parts.lacking,
    )


def _queued(deployments: Sequence[Object], replicas: Sequence[Replica]) -> frozenset[str]:
    """Revisions whose Deployments wait for their pods to be made: Kubernetes' own controllers make some five a second
    by default. One whose pods are refused has replicas here, which say why."""
    waiting = {labels_of(each)[names.REVISION] for each in deployments if each["spec"].get("replicas", 1)}
    return frozenset(waiting - {each.revision for each in replicas})


def _owners(parts: Parts, ordinals: Sequence[Ordinals]) -> dict[str, CountOwner]:
    """By revision, who else than Shoal has its count; of a stateful agent there is one object, so all are his, and at
    zero the one that would come."""
    found: dict[str, CountOwner] = {}
    for item in parts.deployments:
        owner = read_owner(item, [each for each in parts.autoscalers if aims_at(each, item, "Deployment")])
        if owner is not None:
            found[labels_of(item)[names.REVISION]] = owner
    for item, those in zip(parts.stateful_sets, ordinals, strict=True):
        owner = read_owner(item, [each for each in parts.autoscalers if aims_at(each, item, "StatefulSet")])
        if owner is not None:
            found |= dict.fromkeys((*those.counts, those.rolled_out), owner)
    return found


def last_words(pod: Object) -> list[str]:
    """The end of what its container wrote before it failed, as kubelet noted it: its log may be gone by then."""
    status = _container(pod)
    ended = (status.get("state") or _NONE).get("terminated") or (status.get("lastState") or _NONE).get("terminated")
    said = str((ended or _NONE).get("message") or "") if (ended or _NONE).get("exitCode") else ""
    return said.splitlines()[-LAST_LINES:]


def replica_id(pod: Object) -> str:
    """The same as SHOAL_REPLICA in its container."""
    metadata = pod["metadata"]
    return f"{metadata['name']}.{metadata['uid']}" if role_of(pod) == Role.STATEFUL else metadata["name"]


def condition(item: Object, kind: str) -> Mapping[str, Any]:
    """One of an object's conditions; empty where it has none."""
    conditions: Sequence[Mapping[str, Any]] = (item.get("status") or _NONE).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), _NONE)


def is_over(pod: Object) -> bool:
    """Whether it has ended for good: another one takes its place."""
    return (pod.get("status") or _NONE).get("phase") in ("Failed", "Succeeded")


def _replica(agent: str, pod: Object, parts: Parts, *, stays: bool) -> Replica:
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or _NONE
    container = _container(pod)
    phase, reason = phase_of(pod, parts.warnings) if stays else (Phase.STOPPING, "")
    restarts = int(container.get("restartCount", 0))
    ended = (container.get("lastState") or _NONE).get("terminated") or _NONE
    ready = condition(pod, "Ready")
    is_ready = ready.get("status") == "True" and phase is Phase.RUNNING
    started = phase in (Phase.RUNNING, Phase.STOPPING)
    address = status.get("podIP")
    ports = _agents_own(spec["containers"]).get("ports")
    running = (container.get("state") or _NONE).get("running") or _NONE
    return Replica(
        id=replica_id(pod),
        agent=agent,
        revision=labels_of(pod)[names.REVISION],
        phase=phase,
        ready=is_ready,
        host=address if started else None,
        port=int(ports[0]["containerPort"]) if ports and started and address else None,
        source=address,
        node=spec.get("nodeName"),
        ordinal=ordinal_of(pod),
        created_at=epoch_s(metadata["creationTimestamp"]) or 0.0,
        started_at=epoch_s(running.get("startedAt")) if phase is Phase.RUNNING else None,
        ready_at=_ready_at(ready, running) if phase is Phase.RUNNING else None,
        restarts=restarts,
        exit_code=ended.get("exitCode"),
        reason=reason,
        last_log=tuple(parts.mask(line) for line in last_words(pod)),
    )


def _ready_at(ready: Object, running: Object) -> float | None:
    """When it became ready. Of one that is not any more Kubernetes tells since when: after its start means that it was,
    and that the gateway's own check decides, as when all replicas are slow at once, or a kubelet is started again."""
    changed_at, started_at = epoch_s(ready.get("lastTransitionTime")), epoch_s(running.get("startedAt"))
    if ready.get("status") == "True" or changed_at is None or started_at is None:
        return changed_at
    return started_at if changed_at > started_at else None


def phase_of(pod: Object, warnings: Warnings = NONE) -> tuple[Phase, str]:
    """Where a pod is in its life, and what is to be said of that."""
    container = _container(pod)
    state = container.get("state") or _NONE
    ended = (container.get("lastState") or _NONE).get("terminated") or _NONE
    if pod["metadata"].get("deletionTimestamp"):
        return Phase.STOPPING, _NODE_LOST if _node_lost(pod) else ""
    if "terminated" in state:
        return Phase.BACKOFF, why_ended(state["terminated"], pod)
    if "running" in state:
        ready = condition(pod, "Ready")
        reason = "" if ready.get("status") == "True" else _not_ready(pod, state["running"])
        return Phase.RUNNING, _again(pod, ended, reason)
    waiting = state.get("waiting") or _NONE
    if waiting.get("reason") == "CrashLoopBackOff" or (ended and waiting.get("reason") not in _BAD_WAITS):
        return Phase.BACKOFF, why_ended(ended, pod) if ended else "it ends again and again"
    reason = _why_pending(pod, waiting)
    if reason in ("", ON_ITS_WAY):
        reason = warnings.get(("Pod", pod["metadata"]["name"]), reason)
    return Phase.PENDING, _again(pod, ended, reason)


def _node_lost(pod: Object) -> bool:
    """Of a node that is not heard of Kubernetes says that its pods are not ready, and leaves what their containers
    are."""
    return (
        condition(pod, "Ready").get("status") == "False" and condition(pod, "ContainersReady").get("status") == "True"
    )


def _not_ready(pod: Object, running: Object) -> str:
    if _node_lost(pod):
        return _NODE_LOST
    return "not ready yet" if _ready_at(condition(pod, "Ready"), running) is None else "its health check fails"


def _again(pod: Object, ended: Object, reason: str) -> str:
    """Of one that was started again how it ended comes first: what a crash loop is at the moment matters less than what
    it does."""
    if not ended:
        return reason
    return f"{why_ended(ended, pod)}; started again" + (f", {reason}" if reason else "")


def _why_pending(pod: Object, waiting: Object) -> str:
    """Why it does not run yet: what is in its way, or where it is on its way."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("message") or "not placed on a node yet")
    reason = str(waiting.get("reason", ""))
    if reason in _BAD_WAITS:
        said = str(waiting.get("message") or "")
        remedy = _IMAGE_REMEDY if "Image" in reason else remedy_for(said)
        remedy = _NAME_REMEDY if reason == "InvalidImageName" else remedy
        return (f"{reason}: {said}" if said else reason) + (f" ({remedy})" if remedy else "")
    return ON_ITS_WAY if reason == "ContainerCreating" else ""


def _lacks_variables(pod: Object) -> bool:
    labels, waiting = labels_of(pod), (_container(pod).get("state") or _NONE).get("waiting") or _NONE
    if waiting.get("reason") != "CreateContainerConfigError" or names.REVISION not in labels:
        return False
    return f'"{wiring_name(labels[names.AGENT], labels[names.REVISION])}" not found' in waiting.get("message", "")


def why_ended(ended: Object, pod: Object) -> str:
    """How a container of the pod ended, in words: codes above 128 are 128 + signal."""
    code = int(ended.get("exitCode", 0))
    reason = str(ended.get("reason") or "")
    if reason == "OOMKilled":
        return f"out of memory: {_memory_limit(pod)}"
    if reason in ("StartError", "ContainerCannotRun"):
        return f"it can't be started: {ended.get('message') or reason}"
    if code == 137:
        return "killed by SIGKILL (exit code 137): by itself, or as it did not answer"
    return f"exit code {code}"


def _memory_limit(pod: Object) -> str:
    limits = [(each.get("resources") or _NONE).get("limits") or _NONE for each in pod["spec"]["containers"]]
    told = next((str(each["memory"]) for each in limits if "memory" in each), None)
    if told is None:
        return "its node has no more"
    limit = f"{int(told) / 2**20:.0f} MiB" if told.isdigit() else told
    return f"limit {limit} (resources.memory)"


def why_refused(deployment: Object) -> str:
    """Why its pods can't be made, and what to do; empty where they can."""
    failure = condition(deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return ""
    said = str(failure.get("message") or failure.get("reason") or "its pods can't be made")
    remedy = remedy_for(said)
    return f"{said} ({remedy})" if remedy else said


def _not_made(agent: str, item: Object, replicas: Sequence[Replica], warnings: Warnings) -> list[Replica]:
    """Replicas that Kubernetes can't even make a pod of, with what it says: of a Deployment as a condition, of a
    StatefulSet in an event."""
    name = item["metadata"]["name"]
    reason = why_refused(item)
    if reason:
        revision = labels_of(item)[names.REVISION]
        there = sum(each.revision == revision and each.phase is not Phase.STOPPING for each in replicas)
    elif ORDINALS in _annotations(item) and (STATEFUL_SET.name, name) in warnings:
        revision = labels_of(item["spec"]["template"])[names.REVISION]
        there = sum(each.ordinal is not None for each in replicas)
        reason = warnings[STATEFUL_SET.name, name]
    else:
        return []
    return [
        Replica(f"{name}-unmade-{number}", agent, revision, Phase.PENDING, reason=reason)
        for number in range(there, int(item["spec"].get("replicas", 0)))
    ]


def _run(agent: str, job: Object, parts: Parts) -> JobRun:
    labels, status = labels_of(job), job.get("status") or _NONE
    pods = sorted(
        (pod for pod in parts.pods if labels_of(pod).get(names.RUN) == labels[names.RUN]),
        key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]),
    )
    last = pods[-1] if pods else None
    failed = int(status.get("failed", 0))
    phase, finished_at, exit_code, source = Phase.PENDING, None, None, None
    reason = parts.warnings.get((JOB.name, job["metadata"]["name"]), "") if last is None else ""
    ended = _terminated(last) if last is not None else _NONE
    if condition(job, "Complete").get("status") == "True":
        phase, exit_code, reason = Phase.SUCCEEDED, 0, ""
        finished_at = epoch_s(status.get("completionTime"))
    elif condition(job, "Failed").get("status") == "True":
        over = condition(job, "Failed")
        phase, finished_at = Phase.FAILED, epoch_s(over.get("lastTransitionTime"))
        reason, exit_code = _why_failed(last, ended, over), ended.get("exitCode")
    elif last is not None:
        pod_phase = (last.get("status") or _NONE).get("phase")
        if pod_phase == "Failed":
            phase, reason, exit_code = Phase.BACKOFF, _why_failed(last, ended, _NONE), ended.get("exitCode")
        else:
            replica_phase, reason = phase_of(last, parts.warnings)
            runs = ended or replica_phase in (Phase.RUNNING, Phase.STOPPING)
            phase = Phase.RUNNING if runs else Phase.PENDING
            if ended and not ended.get("exitCode"):
                reason = ""  # the Job says a moment later that it is complete
            source = (last.get("status") or _NONE).get("podIP")
    annotations = _annotations(job)
    return JobRun(
        run_id=labels[names.RUN],
        agent=agent,
        revision=labels[names.REVISION],
        phase=phase,
        attempt=max(1, failed + (phase not in (Phase.FAILED, Phase.BACKOFF))),
        started_at=float(annotations.get(names.STARTED) or 0.0) or epoch_s(job["metadata"]["creationTimestamp"]),
        finished_at=finished_at,
        exit_code=exit_code,
        reason=reason,
        source=source,
    )


def _why_failed(pod: Object | None, ended: Object, over: Object) -> str:
    status: Mapping[str, Any] = ((pod or _NONE).get("status")) or _NONE
    if status.get("reason") == "DeadlineExceeded" and pod is not None:
        return f"timed out after {pod['spec'].get('activeDeadlineSeconds')}s"
    if ended and pod is not None:
        return why_ended(ended, pod)
    return str(status.get("message") or over.get("message") or "")


def _terminated(pod: Object) -> Mapping[str, Any]:
    return (_container(pod).get("state") or _NONE).get("terminated") or _NONE


def _container(pod: Object) -> Mapping[str, Any]:
    """The status of the agent's container."""
    return _agents_own((pod.get("status") or _NONE).get("containerStatuses") or ())


def _agents_own(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Who runs the cluster may have put others beside it; what Shoal itself runs has one of another name."""
    first = containers[0] if containers else _NONE
    return next((each for each in containers if each["name"] == CONTAINER), first)


def _annotations(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("annotations") or {}
