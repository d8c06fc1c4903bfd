"""What objects of Kubernetes mean: phases, reasons, restarts, runs, what is set to be there."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.core.observed import JobRun, Phase, Replica
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.own_pods import troubles_of
from shoal.engines.kubernetes.read import Parts, epoch_s, read_agent, replica_id
from shoal.engines.kubernetes.stateful import ORDINALS, POD_INDEX
from shoal.engines.kubernetes.warnings import read_warnings

Object = dict[str, Any]

CRASHED = {"exitCode": 3, "reason": "Error", "finishedAt": "2026-01-01T00:00:09Z"}
OOM = {"exitCode": 137, "reason": "OOMKilled"}


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}Z"


def pod(
    name: str = "web-r1-abc", *, state: Object | None = None, last: Object | None = None, ready: int | None = None,
    unready: int | None = None, role: Role = Role.REVISION, revision: str = "r1", restarts: int = 0, made: int = 0,
    status: Object | None = None, ends: bool = False, **labels: str,
) -> Object:  # fmt: skip
    """One pod on `n1`; `ready` and `unready` are the seconds since when it is."""
    metadata: Object = {
        "name": name, "uid": f"uid-{name}", "creationTimestamp": at(made),
        "labels": {**fleet_labels("shop", role, agent="web", revision=revision), **labels},
    }  # fmt: skip
    if ends:
        metadata["deletionTimestamp"] = at(50)
    condition = {"type": "Ready", "status": "True" if ready is not None else "False"}
    since = unready if ready is None else ready
    container: Object = {
        "name": "agent", "restartCount": restarts,
        "state": state or {"running": {"startedAt": at(5)}}, "lastState": {"terminated": last} if last else {},
    }  # fmt: skip
    return {
        "metadata": metadata,
        "spec": {"nodeName": "n1", "containers": [{"name": "agent", "ports": [{"containerPort": 80}]}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [container],
            "conditions": [{**condition, "lastTransitionTime": at(since or 0)}], **(status or {}),
        },
    }  # fmt: skip


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def replica(item: Object, **parts: Any) -> Replica:
    """How it is read."""
    (found,) = read_agent("web", Parts(pods=[item], **parts)).replicas
    return found


def test_a_replica_that_runs() -> None:
    found = replica(pod(ready=8, made=2))
    assert found == Replica(
        "web-r1-abc", "web", "r1", Phase.RUNNING, ready=True, host="10.0.0.7", port=80, source="10.0.0.7", node="n1",
        created_at=epoch_s(at(2)) or 0.0, started_at=epoch_s(at(5)), ready_at=epoch_s(at(8)),
    )  # fmt: skip


def test_who_was_ready_once_is_asked_by_the_gateway_from_then_on() -> None:
    """Kubernetes tells since when it is not ready: from before its start on means that it never was."""
    starts, missed = replica(pod(unready=1)), replica(pod(unready=9))
    assert (starts.ready, starts.ready_at, starts.reason) == (False, None, "not ready yet")
    assert (missed.ready, missed.ready_at, missed.reason) == (False, epoch_s(at(5)), "its health check fails")


def test_a_node_that_does_not_answer() -> None:
    """Its pods are told to be not ready, their containers are as they were; later they are told to end."""
    lost = pod(unready=20)
    lost["status"]["conditions"].append({"type": "ContainersReady", "status": "True"})
    found = replica(lost)
    assert (found.phase, found.ready, found.reason) == (Phase.RUNNING, False, "its node does not answer")
    lost["metadata"]["deletionTimestamp"] = at(50)
    found = replica(lost)
    assert (found.phase, found.reason) == (Phase.STOPPING, "its node does not answer")


def test_who_ends_is_still_there() -> None:
    found = replica(pod(ready=8, ends=True))
    assert (found.phase, found.ready, found.ready_at, found.host) == (Phase.STOPPING, False, None, "10.0.0.7")


@pytest.mark.parametrize(
    ("state", "last", "phase", "reason"),
    [
        (waiting("ContainerCreating"), None, Phase.PENDING, "its container is being made"),
        (
            waiting("ImagePullBackOff", "Back-off pulling image"), None, Phase.PENDING,
            "ImagePullBackOff: Back-off pulling image (push the image to a registry that every node reaches",
        ),
        (
            waiting("InvalidImageName", 'invalid reference format'), None, Phase.PENDING,
            "InvalidImageName: invalid reference format (mend its name under `image` in the file; expected",
        ),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'), None, Phase.PENDING,
            'CreateContainerConfigError: secret "x" not found (`shoal up` puts it back)',
        ),
        (waiting("CrashLoopBackOff"), CRASHED, Phase.BACKOFF, "exit code 3"),
        (waiting("CrashLoopBackOff"), OOM, Phase.BACKOFF, "out of memory"),
        ({"terminated": CRASHED}, None, Phase.BACKOFF, "exit code 3"),
        (
            {"terminated": {"exitCode": 128, "reason": "StartError", "message": 'exec: "nope": not found'}}, None,
            Phase.BACKOFF, 'it can\'t be started: exec: "nope": not found',
        ),
        ({"terminated": {"exitCode": 137, "reason": "Error"}}, None, Phase.BACKOFF, "killed by SIGKILL"),
        ({"running": {"startedAt": at(5)}}, CRASHED, Phase.RUNNING, "exit code 3; started again, not ready yet"),
        (waiting("ErrImagePull", "gone"), CRASHED, Phase.PENDING, "exit code 3; started again, ErrImagePull: gone"),
    ],
)  # fmt: skip
def test_why_one_does_not_run(state: Object, last: Object | None, phase: Phase, reason: str) -> None:
    """What is in its way, or how it ended."""
    found = replica(pod(state=state, last=last, unready=0))
    assert found.phase is phase and found.reason.startswith(reason)


def test_one_that_fits_nowhere() -> None:
    said = "0/2 nodes are available: 2 Insufficient memory."
    unplaced = pod(unready=0)
    unplaced["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}],
    }
    del unplaced["spec"]["nodeName"]
    found = replica(unplaced)
    assert (found.phase, found.reason, found.node, found.host) == (Phase.PENDING, said, None, None)


def test_a_crash_loop_has_its_last_words() -> None:
    """The last ones, without secrets; those of the start before while the next one runs; none of a good end."""
    said = {**CRASHED, "message": "\n".join([*map(str, range(30)), "token s3cret is wrong"])}
    looping = pod(state=waiting("CrashLoopBackOff"), last=said, restarts=4, unready=0)
    found = replica(looping, mask=lambda text: text.replace("s3cret", "***"))
    assert (found.restarts, found.exit_code, len(found.last_log)) == (4, 3, 20)
    assert found.last_log[-1] == "token *** is wrong"
    ended = replica(pod(state={"terminated": said}, unready=0))
    assert ended.last_log == (*found.last_log[:-1], "token s3cret is wrong")
    assert replica(pod(last={**said, "exitCode": 0})).last_log == ()


def test_what_has_ended_for_good_is_no_replica() -> None:
    """An evicted pod stays as a record, and another one has its place."""
    evicted = pod(status={"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory"})
    assert read_agent("web", Parts(pods=[evicted])).replicas == ()


def test_a_container_beside_the_agents() -> None:
    """A mesh's, say, put in by an admission webhook: before the agent's, or after."""
    meshed = pod(unready=0)
    meshed["spec"]["containers"].insert(0, {"name": "a-proxy", "ports": [{"containerPort": 15001}]})
    proxy = {"name": "a-proxy", "restartCount": 9, "state": {"terminated": CRASHED}}
    meshed["status"]["containerStatuses"].insert(0, proxy)
    found = replica(meshed)
    assert (found.phase, found.port, found.restarts) == (Phase.RUNNING, 80, 0)


def deployment(count: int, revision: str = "r1", conditions: tuple[Object, ...] = ()) -> Object:
    return {
        "metadata": {
            "name": f"web-{revision}",
            "labels": fleet_labels("shop", Role.REVISION, agent="web", revision=revision),
        },
        "spec": {"replicas": count},
        "status": {"conditions": list(conditions)},
    }


def test_counts_by_revision() -> None:
    """What they are set to, whoever set it; a template that no replica has yet counts none."""
    template = {"metadata": {"labels": fleet_labels("shop", Role.TEMPLATE, agent="web", revision="r0")}}
    found = read_agent("web", Parts(deployments=[deployment(3), deployment(0, "r2")], templates=[template]))
    assert found.counts == {"r0": 0, "r1": 3, "r2": 0}


def test_replicas_that_can_not_be_made_are_told() -> None:
    """As many as are missing, with what the API server says, and what to do."""
    said = 'pods "web-r1-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    parts = Parts(deployments=[deployment(3, conditions=(failure,))], pods=[pod(ready=8), pod("other", ends=True)])
    unmade = [each for each in read_agent("web", parts).replicas if each.id.startswith("web-r1-unmade")]
    assert [each.phase for each in unmade] == [Phase.PENDING] * 2
    assert unmade[0].reason.startswith(said) and "kubectl describe quota" in unmade[0].reason
    assert len({each.id for each in unmade}) == 2


def test_replicas_that_kubernetes_has_not_come_to_are_queued() -> None:
    """Until there is a first pod, or a reason why there is none."""
    refused = {"type": "ReplicaFailure", "status": "True", "message": "no"}
    assert read_agent("web", Parts(deployments=[deployment(3), deployment(0, "r2")])).queued == {"r1"}
    assert read_agent("web", Parts(deployments=[deployment(3)], pods=[pod(ready=8)])).queued == frozenset()
    assert read_agent("web", Parts(deployments=[deployment(3, conditions=(refused,))])).queued == frozenset()


def identity(ordinal: int, revision: str, **more: Any) -> Object:
    labels = {POD_INDEX: str(ordinal)}
    return pod(f"web-{ordinal}", role=Role.STATEFUL, revision=revision, ready=8, **labels, **more)


def stateful_set(kept: str, replicas: int, rolled_out: str) -> Object:
    labels = fleet_labels("shop", Role.STATEFUL, agent="web")
    return {
        "metadata": {"name": "web", "labels": labels, "annotations": {ORDINALS: kept}},
        "spec": {
            "replicas": replicas,
            "template": {"metadata": {"labels": {**labels, "shoal.dev/revision": rolled_out}}},
        },
    }


def test_identities() -> None:
    """An id is of one life; the ordinal outlives it. One that Kubernetes is about to replace, or to end, ends."""
    there = stateful_set('[["r1", 1], ["r2", 1]]', 2, "r2")
    pods = [identity(0, "r1"), identity(1, "r1"), identity(2, "r2")]
    found = read_agent("web", Parts(stateful_sets=[there], pods=pods))
    assert found.counts == {"r1": 1, "r2": 1}
    assert [(each.id, each.ordinal, each.revision, each.phase) for each in found.replicas] == [
        ("web-0.uid-web-0", 0, "r1", Phase.RUNNING),
        ("web-1.uid-web-1", 1, "r1", Phase.STOPPING),
        ("web-2.uid-web-2", 2, "r2", Phase.STOPPING),
    ]
    assert replica_id(pods[0]) == "web-0.uid-web-0"


def job(*, status: Object | None = None, retries: int = 0) -> Object:
    return {
        "metadata": {
            "name": "web-1", "labels": fleet_labels("shop", Role.RUN, agent="web", revision="r1", run="web-1"),
            "creationTimestamp": at(1),
            "annotations": {"shoal.dev/started": f"{epoch_s(at(0))}", "shoal.dev/retries": str(retries)},
        },
        "spec": {"backoffLimit": retries},
        "status": status or {},
    }  # fmt: skip


def attempt(number: int, **more: Any) -> Object:
    return pod(f"web-1-{number}", role=Role.RUN, made=number, **{"shoal.dev/run": "web-1"}, **more)


FAILED = {"phase": "Failed"}
DEADLINE = {
    "phase": "Failed", "reason": "DeadlineExceeded",
    "message": "Pod was active on the node longer than the specified deadline",
}  # fmt: skip
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": at(30)}
OVER = [{"type": "Failed", "status": "True", "lastTransitionTime": at(40), "message": "reached the backoff limit"}]


def run(item: Object, *pods: Object) -> JobRun:
    (found,) = read_agent("web", Parts(jobs=[item], pods=pods)).runs
    return found


@pytest.mark.parametrize(
    ("status", "pods", "phase", "number", "exit_code"),
    [
        ({}, [], Phase.PENDING, 1, None),
        ({}, [attempt(1, state=waiting("ContainerCreating"))], Phase.PENDING, 1, None),
        ({}, [attempt(1)], Phase.RUNNING, 1, None),
        ({}, [attempt(1, ends=True)], Phase.RUNNING, 1, None),
        ({"failed": 1}, [attempt(1, state={"terminated": CRASHED}, status=FAILED)], Phase.BACKOFF, 1, 3),
        ({"failed": 1}, [attempt(2), attempt(1, state={"terminated": CRASHED}, status=FAILED)], Phase.RUNNING, 2, None),
        ({**COMPLETE, "failed": 1, "succeeded": 1}, [attempt(2)], Phase.SUCCEEDED, 2, 0),
        (
            {"conditions": OVER, "failed": 2}, [attempt(2, state={"terminated": CRASHED}, status=FAILED)],
            Phase.FAILED, 2, 3,
        ),
        ({"conditions": OVER, "failed": 2}, [], Phase.FAILED, 2, None),
    ],
)  # fmt: skip
def test_a_run(status: Object, pods: list[Object], phase: Phase, number: int, exit_code: int | None) -> None:
    """Its phase, which attempt it is, and how the last one ended. Its pods are no replicas."""
    found = run(job(status=status), *pods)
    assert (found.phase, found.attempt, found.exit_code) == (phase, number, exit_code)
    assert found.started_at == epoch_s(at(0))
    assert read_agent("web", Parts(jobs=[job()], pods=pods)).replicas == ()


@pytest.mark.parametrize(("ended", "reason"), [({"exitCode": 0}, ""), (CRASHED, "exit code 3")])
def test_a_run_of_which_kubernetes_has_not_noted_the_end(ended: Object, reason: str) -> None:
    """Its container has ended, its Job not yet: it began, and a success is nothing that is in its way."""
    found = run(job(), attempt(1, state={"terminated": ended}))
    assert (found.phase, found.attempt, found.reason) == (Phase.RUNNING, 1, reason)


def test_why_a_run_failed() -> None:
    """How its last attempt ended; of one of which no pod is left, what Kubernetes says."""
    over = job(status={"conditions": OVER, "failed": 1})
    assert run(over, attempt(1, state={"terminated": OOM}, status=FAILED)).reason.startswith("out of memory")
    late = attempt(1, status=DEADLINE)
    late["spec"]["activeDeadlineSeconds"] = 60
    assert run(over, late).reason == "timed out after 60s"
    assert run(over).reason == "reached the backoff limit"
    assert run(over).finished_at == epoch_s(at(40))


def test_a_runs_calls_are_known_by_its_address() -> None:
    """While it is not over."""
    assert run(job(), attempt(1)).source == "10.0.0.7"
    assert run(job(status=COMPLETE), attempt(1)).source is None


def test_what_of_shoals_own_does_not_run() -> None:
    """Each reason once; what runs, or is on its way, and what agents do, is no trouble."""
    pulls = waiting("ErrImagePull", "no such host")
    pods = [
        pod("g1", role=Role.GATEWAY, state=pulls), pod("g2", role=Role.GATEWAY, state=pulls),
        pod("g3", role=Role.GATEWAY, ready=8), pod("b", role=Role.BROKER, state=waiting("PodInitializing")),
        pod("w", state=pulls),
    ]  # fmt: skip
    (line,) = troubles_of(pods)
    assert line.startswith("the gateway does not run: ErrImagePull: no such host")


def event(kind: str, name: str, reason: str, message: str, second: int) -> Object:
    about = {"kind": kind, "name": name}
    return {"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at(second)}


def test_what_only_events_tell() -> None:
    """Of a pod on its way, a StatefulSet and a Job whose pods are refused the last of them, with what to do; what runs
    is not spoken of."""
    quota = 'pods "web-1" is forbidden: exceeded quota: small'
    mount = 'MountVolume.SetUp failed for volume "shoal-secrets" : secret "x" not found'
    warnings = read_warnings(
        [
            event("Pod", "web-r1-abc", "FailedMount", mount, 9),
            event("Pod", "web-r1-abc", "FailedAttachVolume", "an older one", 3),
            event("StatefulSet", "web", "FailedCreate", quota, 5),
            event("Job", "web-1", "FailedCreate", quota, 5),
        ]
    )
    stuck = pod(state=waiting("ContainerCreating"))
    assert replica(stuck, warnings=warnings).reason == f"FailedMount: {mount} (`shoal up` puts it back)"
    assert replica(pod(ready=8), warnings=warnings).reason == ""
    named = Parts(stateful_sets=[stateful_set('[["r1", 2]]', 2, "r1")], pods=[identity(0, "r1")], warnings=warnings)
    missing, runs = read_agent("web", named).replicas
    assert (runs.reason, missing.revision, missing.phase) == ("", "r1", Phase.PENDING)
    assert missing.reason.startswith(f"FailedCreate: {quota} (`kubectl describe quota`")
    (run,) = read_agent("web", Parts(jobs=[job()], warnings=warnings)).runs
    assert run.phase is Phase.PENDING and run.reason.startswith("FailedCreate")
    gateway = pod(role=Role.GATEWAY, state=waiting("ContainerCreating"))
    assert troubles_of([gateway], warnings) == (f"the gateway does not run: FailedMount: {mount} (`shoal up` puts it "
                                                "back)",)  # fmt: skip
