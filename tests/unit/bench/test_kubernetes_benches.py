"""What the benches on Kubernetes render, and what they read of what the cluster tells."""

from __future__ import annotations

import itertools
import math

import pytest

from bench.api_server import requests_in
from bench.controller_metrics import passes_in
from bench.kubernetes_controller import memory_mb
from bench.kubernetes_many import AGENTS, render_many, render_plain
from bench.kubernetes_plain import Program, render_autoscaler, render_deployment, render_service
from bench.load import Outcome
from bench.loss import by_kind, count, failed, requests
from bench.step_load import BEFORE_RPS, STEP_RPS, schedule

PAGE = """\
# HELP shoal_controller_pass_seconds How long a pass of the loop took.
# TYPE shoal_controller_pass_seconds histogram
shoal_controller_pass_seconds_bucket{le="0.1"} %d
shoal_controller_pass_seconds_bucket{le="0.5"} %d
shoal_controller_pass_seconds_bucket{le="+Inf"} %d
shoal_controller_pass_seconds_sum %g
shoal_controller_pass_seconds_count %d
"""


def outcome(what: str, *, idempotent: bool) -> Outcome:
    return Outcome("r", 0.0, 0.0, 0.0, None, None, what, idempotent)


def test_passes_are_those_between_two_looks() -> None:
    """A long pass of the start says nothing of the time that is measured."""
    before, after = passes_in(PAGE % (10, 10, 11, 3.0, 11)), passes_in(PAGE % (18, 20, 21, 4.0, 21))
    found = after.since(before)
    assert found.count == 10
    assert found.mean_s == pytest.approx(0.1)
    assert found.longest_at_most_s == 0.5
    assert after.longest_at_most_s == math.inf
    assert math.isnan(before.since(before).mean_s)


def test_requests_are_counted_of_one_account_alone() -> None:
    """Over all of its priority levels, and of no other schema's."""
    name = "apiserver_flowcontrol_dispatched_requests_total"
    page = "\n".join(
        f'{name}{{flow_schema="{schema}",priority_level="{level}"}} {value}'
        for schema, level, value in (("bench-account", "workload-low", "1.2e+03"), ("bench-account", "other", "4"),
                                     ("service-accounts", "workload-low", "99"))
    )  # fmt: skip
    assert requests_in(page) == 1204
    assert requests_in("") == 0


def test_memory_is_read_of_a_process() -> None:
    status = "Name:\tpython3\nVmPeak:\t  900000 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n"
    assert memory_mb(status, "VmHWM") == 200.0
    with pytest.raises(ValueError, match="VmSwap"):
        memory_mb(status, "VmSwap")


def test_the_plain_pod_sleeps_before_its_end_only_where_asked() -> None:
    """Nothing of Shoal's is in what it is held against."""
    container = render_deployment(Program("agents", ["serve"], {"VERSION": "1"}), 4)["spec"]["template"]["spec"]
    assert "lifecycle" not in container["containers"][0]
    assert {"name": "VERSION", "value": "1"} in container["containers"][0]["env"]
    asleep = render_deployment(Program("agents", ["serve"], leaves_s=3), 4)["spec"]["template"]["spec"]
    assert asleep["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 3}}}
    assert render_service()["spec"]["selector"] == {"app": "web"}
    assert "behavior" not in render_autoscaler(4)["spec"]


def test_kubectl_is_given_as_much_as_shoal() -> None:
    """A Deployment and a Service for each agent, of pods that go to simulated nodes alone; ours are as many objects."""
    items, ours = render_plain("agents"), render_many()
    assert len(ours) == len(items)
    assert {each["kind"] for each in ours} == {"Deployment", "Secret"}
    assert [sum(each["kind"] == kind for each in items) for kind in ("Deployment", "Service")] == [AGENTS, AGENTS]
    assert len({each["metadata"]["name"] for each in items}) == AGENTS
    assert all(each["spec"]["template"]["spec"]["nodeSelector"] for each in items if each["kind"] == "Deployment")


def test_a_load_has_as_many_of_each_kind_as_asked() -> None:
    """Evenly spaced; half of them come on new connections, of either kind."""
    a_second = list(itertools.takewhile(lambda each: each.at_s < 1.0, requests(90, 10)))
    assert [sum(each.idempotent is safe for each in a_second) for safe in (True, False)] == [90, 10]
    assert [sum("Connection" in each.headers for each in a_second if each.method == method)
            for method in ("GET", "POST")] == [45, 5]  # fmt: skip
    assert all(each.idempotent == (each.method == "GET") for each in a_second)


def test_failures_are_told_by_kind() -> None:
    outcomes = [outcome("ok", idempotent=True)] * 1200 + [outcome("reset", idempotent=True)] * 2
    outcomes += [outcome("timeout", idempotent=True), outcome("ok", idempotent=False)]
    safe, unsafe = by_kind(outcomes)
    assert (count(safe), failed(safe)) == ("1,203", "3 (reset 2, timeout 1)")
    assert (count(unsafe), failed(unsafe)) == ("1", "0")


def test_the_step_is_from_one_rate_to_the_other() -> None:
    planned = schedule(3.0, 8.0)
    assert sum(each.at_s < 3.0 for each in planned) == 3 * BEFORE_RPS
    assert sum(each.at_s >= 3.0 for each in planned) == 8 * STEP_RPS
    assert [each.at_s for each in planned] == sorted(each.at_s for each in planned)
