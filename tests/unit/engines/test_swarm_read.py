"""What services and tasks of a Swarm mean: phases, reasons, restarts, who ends, who may still hold an identity."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from shoal.control.events import events_between
from shoal.core.observed import JobRun, Phase, Replica
from shoal.core.rollout_counts import takes_requests
from shoal.engines.swarm.read import Probe, Seen, broken_tasks, ended_runs, epoch_s, ordinals_in_use, read_agents

Json = dict[str, Any]
LABELS = {"shoal.fleet": "shop", "shoal.agent": "web", "shoal.revision": "r1", "shoal.role": "revision"}


def _dotted(labels: dict[str, str]) -> dict[str, str]:
    return {f"shoal.{key}": value for key, value in labels.items()}


def service(key: str = "s1", count: int = 1, **labels: str) -> Json:
    """A replicated service."""
    return {"ID": key, "Spec": {"Labels": {**LABELS, **_dotted(labels)}, "Mode": {"Replicated": {"Replicas": count}}}}


def task(
    key: str, state: str = "running", desired: str = "running", *, at: int = 0, slot: int = 1, of: str = "s1",
    node: str = "n1", status: Json | None = None, **labels: str,
) -> Json:  # fmt: skip
    """One task; `at` are the seconds at which it was made."""
    stamp = f"2026-01-01T00:00:{at:02}.123456789Z"
    return {
        "ID": key, "ServiceID": of, "Slot": slot, "NodeID": node, "DesiredState": desired, "CreatedAt": stamp,
        "Spec": {"ContainerSpec": {"Labels": {**LABELS, "shoal.port": "80", **_dotted(labels)}}},
        "Status": {"State": state, "Timestamp": stamp, "Message": state, **(status or {})},
        "NetworksAttachments": [
            {"Network": {"ID": "other"}, "Addresses": ["10.9.9.9/24"]},
            {"Network": {"ID": "net"}, "Addresses": [f"10.0.1.{at}/24"]},
        ],
    }  # fmt: skip


def failed(key: str, code: int = 1, **more: Any) -> Json:
    """A task that ended by itself with this code."""
    status = {"Err": f"task: non-zero exit ({code})", "ContainerStatus": {"ExitCode": code}}
    return task(key, "failed", "shutdown", status=status, **more)


def look(*tasks: Json, services: tuple[Json, ...] | None = None, **more: Any) -> Seen:
    """A look at them."""
    made = (service(),) if services is None else services
    return Seen(services=made, tasks=tasks, network="net", hosts={"n1": "alpha"}, **more)


def replicas(seen: Seen) -> tuple[Replica, ...]:
    """Of the one agent."""
    (agent,) = read_agents(seen).values()
    return agent.replicas


def test_a_replica_that_runs() -> None:
    """Its address is that in the fleet's network; who is not probed is ready as it runs."""
    (found,) = replicas(look(task("task000001xyz", at=5)))
    assert (found.id, found.phase, found.ready, found.host, found.port, found.source, found.node) == (
        "web-task000001", Phase.RUNNING, True, "10.0.1.5", 80, "10.0.1.5", "alpha",
    )  # fmt: skip
    assert found.created_at == found.started_at == found.ready_at == epoch_s("2026-01-01T00:00:05.123456Z")


def test_who_is_probed_is_ready_when_it_answers() -> None:
    """And serves on by Envoy's own check once it did: the time is kept."""
    probed = task("t1", health="{}")
    assert not replicas(look(probed))[0].ready
    (found,) = replicas(look(probed, probes={"t1": Probe(True, 7.0)}))
    assert found.ready and found.ready_at == 7.0
    (missed,) = replicas(look(probed, probes={"t1": Probe(False, 7.0, "503")}))
    assert (missed.ready, missed.ready_at, missed.reason) == (False, 7.0, "503")


def test_who_ends_is_still_there() -> None:
    """A task that Swarm takes away stops, and one in its place starts; what has ended is history."""
    found = replicas(
        look(task("old", desired="shutdown"), task("new", "preparing", at=9), task("gone", "shutdown", "shutdown"))
    )
    assert [(r.id, r.phase) for r in found] == [("web-old", Phase.STOPPING), ("web-new", Phase.PENDING)]
    (scaled,) = replicas(look(task("t1", desired="remove"), services=()))
    assert scaled.phase is Phase.STOPPING


def test_a_crash_loop_says_why() -> None:
    """The slot waits to be filled again: how the last one ended, how often, and its last words."""
    waits = task("t3", "ready", "ready", at=9)
    seen = look(failed("t1", at=1), failed("t2", 3, at=5), waits, last_logs={"t2": ("boom",)})
    (found,) = replicas(seen)
    assert (found.phase, found.reason, found.restarts, found.exit_code, found.last_log) == (
        Phase.BACKOFF, "exit code 3", 2, 3, ("boom",),
    )  # fmt: skip
    assert broken_tasks(seen) == {"t2"}


def test_one_that_waits_for_room_says_so() -> None:
    """In Swarm's words, and what to do."""
    why = "no suitable node (insufficient resources on 3 nodes)"
    (found,) = replicas(look(task("t1", "pending", node="", status={"Err": why})))
    assert (found.phase, found.host) == (Phase.PENDING, None)
    assert found.reason.startswith(f"{why} (`docker node ls` shows the nodes")


def test_an_image_that_a_node_has_not_says_on_which() -> None:
    """And what to do."""
    gone = task("t1", "rejected", "shutdown", status={"Err": "No such image: acme/web:1"})
    (found,) = replicas(look(gone, task("t2", "preparing", at=1)))
    assert found.reason.startswith("No such image: acme/web:1 (push the image to a registry")
    assert found.reason.endswith("(`docker save` and `docker load`)), on alpha; started again, preparing")


def test_a_node_that_does_not_answer() -> None:
    """What Swarm replaces there is gone; what it can't replace is not ready. An identity there may still be held."""
    down = frozenset({"n1"})
    (found,) = replicas(look(task("t1", desired="shutdown"), task("t2", node="n2", at=3), nodes_down=down))
    assert found.id == "web-t2"
    (stays,) = replicas(look(task("t1"), nodes_down=down))
    assert not stays.ready and stays.reason == "its node does not answer"
    held = task("t1", desired="shutdown", role="ordinal", ordinal="2")
    assert ordinals_in_use([held, task("t9", "shutdown", "shutdown", role="ordinal", ordinal="1")]) == {2: held}


def test_whom_nobody_tells_of_is_left_to_the_gateways() -> None:
    """A controller that takes over while it can't reach a node's agent takes nobody out who may well serve there; of
    one that an agent tells nothing of, the agent knows best."""
    (unknown,) = replicas(look(task("t1", health="/"), nodes_unheard=frozenset({"n1"})))
    assert takes_requests(unknown) and not unknown.ready
    assert unknown.reason == "its node's agent does not answer"
    (starting,) = replicas(look(task("t1", health="/")))
    assert not takes_requests(starting)
    (probed,) = replicas(look(task("t1", health="/"), probes={"t1": Probe(False)}, nodes_unheard=frozenset({"n1"})))
    assert not takes_requests(probed)
    (pending,) = replicas(look(task("t1", "starting", health="/"), nodes_unheard=frozenset({"n1"})))
    assert not takes_requests(pending)


def test_counts_by_revision() -> None:
    """Of services and of identities; one that is emptied keeps its place and counts for nothing."""
    services = (
        service("s1", 3), service("s2", 0, revision="r2"),
        service("s3", 1, role="ordinal", revision="r3"), service("s4", 0, role="ordinal", revision="r4"),
    )  # fmt: skip
    assert read_agents(look(services=services))["web"].counts == {"r1": 3, "r2": 0, "r3": 1}
    assert read_agents(look(services=(service(count=0, role="ordinal"),))) == {}


@pytest.mark.parametrize(
    ("tasks", "phase", "attempt", "exit_code"),
    [
        ([], Phase.PENDING, 1, None),
        ([task("t1", desired="complete")], Phase.RUNNING, 1, None),
        ([task("t1", "complete", "complete")], Phase.SUCCEEDED, 1, 0),
        ([failed("t1", 4)], Phase.BACKOFF, 1, 4),
        ([failed("t1", 4), failed("t2", 5, at=3)], Phase.FAILED, 2, 5),
    ],
)
def test_a_run(tasks: list[Json], phase: Phase, attempt: int, exit_code: int | None) -> None:
    """A job's: one retry, so two attempts at most."""
    made = service(role="run", run="web-1", retries="1", started="12.5")
    made["Spec"]["Mode"] = {"ReplicatedJob": {}}
    for each in tasks:
        each["Spec"]["ContainerSpec"]["Labels"] |= {"shoal.role": "run", "shoal.run": "web-1"}
    (run,) = read_agents(look(*tasks, services=(made,)))["web"].runs
    assert (run.run_id, run.phase, run.attempt, run.exit_code, run.started_at) == (
        "web-1",
        phase,
        attempt,
        exit_code,
        12.5,
    )


def run_of(*tasks: Json, retries: int = 0, **more: Any) -> tuple[Seen, JobRun]:
    """A run as it is seen and as it is read."""
    made = service(role="run", run="web-1", started="12.5", retries=f"{retries}")
    for each in tasks:
        each["Spec"]["ContainerSpec"]["Labels"] |= {"shoal.role": "run", "shoal.run": "web-1"}
    seen = look(*tasks, services=(made,), **more)
    return seen, read_agents(seen)["web"].runs[0]


@pytest.mark.parametrize(
    ("state", "source"),
    [("assigned", "10.0.1.7"), ("starting", "10.0.1.7"), ("running", "10.0.1.7"), ("complete", None)],
)
def test_a_runs_calls_are_known_by_its_address(state: str, source: str | None) -> None:
    """From before it starts, and no longer than it has it."""
    _, run = run_of(task("t1", state, at=7))
    assert run.source == source


def test_a_run_that_was_ended_at_its_timeout_has_failed() -> None:
    """Whatever its program made of being told to end. Why is to be written down once the run is over."""
    ended, why = {"t1": Probe(False, None, "timed out after 60s", ended=True)}, "timed out after 60s"
    for attempt, exit_code in ((failed("t1", 143), 143), (task("t1", "complete", "complete"), 0)):
        seen, run = run_of(attempt, probes=ended)
        assert (run.phase, run.exit_code, run.reason) == (Phase.FAILED, exit_code, why)
        assert ended_runs(seen) == {"web-1": why}
        seen, run = run_of(attempt, ended={"web-1": why})
        assert (run.phase, run.reason, ended_runs(seen)) == (Phase.FAILED, why, {})
    seen, run = run_of(failed("t1", 143), probes=ended, retries=1)
    assert (run.phase, run.reason, ended_runs(seen)) == (Phase.BACKOFF, why, {})
    seen, run = run_of(task("t1", "complete", "complete"), probes={"t1": Probe(False, None, "no answer")})
    assert (run.phase, run.reason, ended_runs(seen)) == (Phase.SUCCEEDED, "", {})


def test_a_crash_is_told_once_at_whatever_moment_it_is_seen() -> None:
    """A task that failed may be seen before Swarm has made the next one for its slot, which tells of it again."""
    crashed = failed("t1", 3)
    looks = (
        (task("t1"),), (failed("t1", 3) | {"DesiredState": "running"},), (crashed, task("t2", "ready", "ready", at=9)),
        (crashed, task("t2", at=9)), (crashed, failed("t2", 4, at=9) | {"DesiredState": "running"}),
        (crashed, failed("t2", 4, at=9), task("t3", "preparing", at=11)),
    )  # fmt: skip
    agents = [read_agents(look(*tasks))["web"] for tasks in looks]
    events = [event for pair in pairwise(agents) for event in events_between(*pair, at=0.0)]
    assert [event.message for event in events if event.kind == "crashed"] == [
        "web-t2: exit code 3",
        "web-t3: exit code 4; started again, preparing",
    ]
    assert [[(r.restarts, r.exit_code) for r in agent.replicas] for agent in agents[1:3]] == [[(0, 3)], [(1, 3)]]


def test_who_was_ended_by_its_nodes_agent_says_why() -> None:
    """Instead of the signal; a probe's miss says nothing of one that ended by itself."""
    for probe, reason in (
        (Probe(False, 7.0, "health check failed 3 times in a row", ended=True), "health check failed 3 times in a row"),
        (Probe(False, 7.0, "not ready yet: refused"), "exit code 1"),
    ):
        (found,) = replicas(look(task("t2", "ready", "ready", at=3), failed("t1"), probes={"t1": probe}))
        assert (found.phase, found.reason) == (Phase.BACKOFF, reason)


def test_one_that_was_started_again_says_why_until_it_is_ready() -> None:
    """What a crash loop is at the moment matters less than what it does."""
    tasks = task("t2", at=3, health="{}"), failed("t1", 3, health="{}")
    (found,) = replicas(look(*tasks, probes={"t2": Probe(False, None, "not ready yet: refused")}))
    assert found.reason == "exit code 3; started again, not ready yet: refused"
    assert replicas(look(*tasks))[0].reason == "exit code 3; started again"
    assert replicas(look(*tasks, probes={"t2": Probe(True, 7.0)}))[0].reason == ""
    for state in ("preparing", "starting"):
        (found,) = replicas(look(task("t2", state, at=3), failed("t1", 3)))
        assert found.reason == f"exit code 3; started again, {state}"


def test_times() -> None:
    """Nanoseconds are more than there is room for, and the year 1 is never."""
    assert epoch_s("1970-01-01T00:00:01.500000000Z") == 1.5
    assert epoch_s("0001-01-01T00:00:00Z") is None and epoch_s(None) is None
