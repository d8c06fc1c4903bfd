"""What of Shoal's own does not run on a Swarm is told with the nodes, the reason and what to do."""

from __future__ import annotations

from typing import Any

from shoal.engines.swarm.own_tasks import troubles_of

HOSTS = {"i1": "n1", "i2": "n2", "i3": "n3"}
NOW = 1767225600.0 + 5  # five seconds after 2026 began
TAKEN = "no suitable node (host-mode port already in use on 1 node)"


def task(
    state: str, node: str = "i1", *, role: str = "gateway", at: int = 0, err: str = "", desired: str = "running"
) -> Any:
    return {
        "ID": f"{node}{at}",
        "NodeID": node,
        "DesiredState": desired,
        "CreatedAt": f"2026-01-01T00:00:{at:02}Z",
        "Spec": {"ContainerSpec": {"Labels": {"shoal.role": role}}},
        "Status": {
            "State": state,
            "Message": state,
            "Timestamp": f"2026-01-01T00:00:{at:02}Z",
            **({"Err": err} if err else {}),
        },
    }


def test_those_that_run_or_start_are_no_trouble() -> None:
    """Nor those that ended long ago, nor agents' own."""
    ended = task("failed", at=1, err="task: non-zero exit (1)", desired="shutdown")
    tasks = [ended, task("running", at=2), task("preparing", "i2"), task("rejected", "i3", role="revision", err="no")]
    assert troubles_of(tasks, HOSTS, NOW) == ()


def test_a_port_that_is_taken_is_told_once_with_all_nodes() -> None:
    """And what to do."""
    tasks = [task("pending", node, err=TAKEN) for node in ("i2", "i1")]
    (line,) = troubles_of([*tasks, task("running", "i3")], HOSTS, NOW)
    assert line.startswith(f"the gateway on n1, n2 does not run: {TAKEN} (")
    assert "choose another one" in line


def test_one_that_ends_again_and_again_is_told_while_it_starts() -> None:
    """By how the last one ended; the broker has one place, wherever Swarm puts it."""
    tasks = [
        task("failed", "i1", role="broker", at=1, err="task: non-zero exit (3)", desired="shutdown"),
        task("starting", "i2", role="broker", at=2),
    ]
    assert troubles_of(tasks, HOSTS, NOW) == ("the broker on n2 does not run: non-zero exit (3)",)
    assert troubles_of([*tasks, task("running", "i2", role="broker", at=3)], HOSTS, NOW) == ()
    assert troubles_of(tasks, HOSTS, NOW + 60) == (), "it is given the time that its image takes"
