"""What a run of answers and misses means."""

from __future__ import annotations

import pytest

from shoal.engines.swarm.node.census import read_container
from shoal.engines.swarm.node.health import Check, Condition, after_probe, next_probe_in_s
from shoal.engines.swarm.node.meter import Meter, parse_stats

CHECK = Check(port=8000, retries=3, start_period_s=60.0, interval_s=2.0)
MISS = "no answer within 2s"


def run(*misses: str | None, age_s: float, condition: Condition | None = None) -> Condition:
    condition = condition or Condition()
    for miss in misses:
        condition = after_probe(condition, CHECK, miss, age_s)
    return condition


def test_the_first_answer_makes_it_ready():
    assert run(MISS, None, age_s=1.0) == Condition(ready=True, was_ready=True)


def test_who_starts_may_miss_as_often_as_it_likes():
    condition = run(*[MISS] * 50, age_s=60.0)
    assert (condition.ready, condition.dead) == (False, False)
    assert condition.reason == f"not ready yet: {MISS}"


def test_who_never_answered_is_dead_after_its_start_period():
    condition = run(MISS, age_s=60.1, condition=run(*[MISS] * 50, age_s=59.0))
    assert condition.dead
    assert condition.reason == f"does not answer 60s after its start: {MISS}"


def test_who_was_ready_and_misses_is_ready_no_more_and_dead_much_later():
    """Within its start period too: it does not start any more."""
    ready = run(None, age_s=1.0)
    assert run(MISS, MISS, age_s=5.0, condition=ready).ready
    assert run(MISS, MISS, None, MISS, MISS, age_s=5.0, condition=ready).ready
    slow = run(MISS, MISS, MISS, age_s=5.0, condition=ready)
    assert (slow.ready, slow.dead, slow.reason) == (False, False, f"health check failed 3 times in a row: {MISS}")
    assert run(None, age_s=5.0, condition=slow) == ready
    assert not run(*[MISS] * 11, age_s=5.0, condition=slow).dead
    dead = run(*[MISS] * 12, age_s=5.0, condition=slow)
    assert (dead.ready, dead.dead) == (False, True)
    assert dead.reason == f"health check failed 15 times in a row: {MISS}"


def test_who_is_late_with_its_first_answer_gets_all_its_tries():
    """As one of which a probe was not to be asked in time."""
    assert not run(MISS, MISS, age_s=3600.0).dead
    assert run(MISS, MISS, MISS, age_s=3600.0).dead


@pytest.mark.parametrize(
    ("condition", "age_s", "wait_s"),
    [
        (Condition(), 0.0, 0.1),
        (Condition(), 50.0, 1.0),
        (Condition(), 59.0, 1.18),
        (Condition(), 61.0, 2.0),
        (Condition(ready=True, was_ready=True), 1.0, 2.0),
        (Condition(was_ready=True), 1.0, 2.0),
    ],
)
def test_probes_are_dense_while_it_starts(condition: Condition, age_s: float, wait_s: float):
    assert next_probe_in_s(condition, CHECK, age_s) == pytest.approx(wait_s)


def test_the_label_is_what_the_file_says():
    label = (
        '{"port": 8000, "protocol": "http", "path": "/healthz", "interval_s": 1.0, "timeout_s": 0.5, "retries": 2, '
        '"start_period_s": 9.0, "grace_s": 30.0, "of_a_newer_shoal": 1}'
    )
    assert Check.parse(label) == Check(8000, "/healthz", 1.0, 0.5, 2, 9.0, 30.0)
    assert Check.parse(label.replace('"http"', '"grpc"')) == Check(8000, None, 1.0, 0.5, 2, 9.0, 30.0)
    assert Check.parse("") is None


@pytest.mark.parametrize("label", ["{", "[]", "{}"])
def test_a_label_that_is_none_is_told(label: str):
    with pytest.raises(ValueError):
        Check.parse(label)


def listed(**labels: str) -> dict[str, object]:
    return {
        "Id": "c1",
        "Created": 1700000000,
        "Labels": {"com.docker.swarm.task.id": "t1", "shoal.agent": "web", **labels},
        "NetworkSettings": {"Networks": {"f": {"IPAddress": "10.0.1.5"}, "other": {"IPAddress": "10.0.2.5"}}},
    }


def test_a_container_is_asked_in_the_fleets_network():
    found = read_container(listed(**{"shoal.health": '{"port": 1}'}), "f")
    assert found is not None
    assert (found.container, found.task, found.host, found.created_at) == ("c1", "t1", "10.0.1.5", 1700000000.0)
    assert found.check == Check(1)


def test_what_is_no_replica_is_left_out():
    assert read_container({"Id": "c", "Created": 1, "Labels": {"shoal.fleet": "f"}}, "f") is None
    assert read_container({"Id": "c", "Created": 1, "Labels": None}, "f") is None


def test_who_has_no_address_yet_has_none():
    found = read_container({**listed(), "NetworkSettings": {"Networks": {}}}, "f")
    assert found is not None
    assert found.host is None


def stats(cpu_s: float, memory: dict[str, object]) -> dict[str, object]:
    return {"cpu_stats": {"cpu_usage": {"total_usage": int(cpu_s * 1e9)}}, "memory_stats": memory}


def test_cpu_is_a_rate_between_two_looks():
    meter, memory = Meter(), {"usage": 100, "stats": {"inactive_file": 30}}
    first, second = parse_stats(stats(1.0, memory), 10.0), parse_stats(stats(2.0, memory), 14.0)
    assert first is not None
    assert second is not None
    assert meter.measure({"c": first}, 1000.0) == {}
    use = meter.measure({"c": second}, 1004.0)["c"]
    assert (use.cpu_cores, use.memory_bytes, use.at, use.window_s) == (0.25, 70, 1004.0, 4.0)


def test_page_cache_is_left_out_of_both_kernels_control_groups():
    for key in ("inactive_file", "total_inactive_file"):
        look = parse_stats(stats(1.0, {"usage": 100, "stats": {key: 40}}), 0.0)
        assert look is not None
        assert look.memory_bytes == 60


def test_who_has_ended_uses_nothing():
    assert parse_stats(stats(0.0, {}), 0.0) is None
