"""Recorded answers of Kubernetes' own autoscaler, given again by ours. How they were made: data/hpa_recorded.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from kubernetes_quantity import approximate_float, milli_value

from shoal.core import hpa_types
from shoal.core.hpa import recommend, record_change
from shoal.core.hpa_numbers import int64, nanoseconds

Case = dict[str, Any]
RECORDED = Path(__file__).parent / "data" / "hpa_recorded.jsonl"


def seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / 10**9


def instant(ns: int) -> float:
    return ns // 10**9 if ns % 10**9 == 0 else ns / 10**9


def rules_of(case: Case | None) -> hpa_types.Rules:
    if case is None:
        return hpa_types.Rules()
    policies = case.get("Policies")
    tolerance = case.get("Tolerance")
    return hpa_types.Rules(
        stabilization_window_s=case.get("Window"),
        select_policy=case.get("Select") or "Max",
        policies=tuple(hpa_types.Policy(p["Type"], p["Value"], p["Period"]) for p in policies) if policies else None,
        tolerance=None if tolerance is None else approximate_float(tolerance),
    )


def spec_of(case: Case) -> hpa_types.HpaSpec:
    behavior = case.get("Behavior")
    minimum = case.get("Min")
    return hpa_types.HpaSpec(
        max_replicas=case["Max"],
        min_replicas=1 if minimum is None else minimum,
        behavior=None
        if behavior is None
        else hpa_types.Behavior(rules_of(behavior.get("Up")), rules_of(behavior.get("Down"))),
        tolerance=case["Tolerance"],
        downscale_stabilization_s=instant(case["DownscaleWindow"]),
        cpu_initialization_period_s=instant(case["CpuInit"]),
        initial_readiness_delay_s=instant(case["InitialDelay"]),
    )


def pod_of(case: Case) -> hpa_types.Pod:
    return hpa_types.Pod(
        case["Name"],
        phase=case["Phase"],
        deleting=case.get("Deleting", False),
        started_at=seconds(case.get("Start")),
        ready=case.get("Ready"),
        ready_changed_at=seconds(case.get("Transition")),
    )


def requests_of(pods: list[Case], resource: str, container: str) -> dict[str, int]:
    """A pod's request in milli-units: the sum over its containers; none where one has none."""
    requests: dict[str, int] = {}
    for pod in pods:
        chosen = [c for c in pod["Containers"] if container in {"", c["Name"]}]
        if all(resource in c["Requests"] for c in chosen):
            requests[pod["Name"]] = int64(sum(milli_value(c["Requests"][resource]) for c in chosen))
    return requests


def metric_of(case: Case, index: int, pods: list[Case]) -> hpa_types.Metric:
    name = chr(ord("a") + index)
    failed = case.get("Failed", False)
    average, value = case.get("Average"), case.get("Value")
    samples = None
    if not failed and "Samples" in case:
        samples = {
            pod: hpa_types.Sample(s["Value"], instant(s["At"]), instant(s["Window"]))
            for pod, s in case["Samples"].items()
        }
    match case["Kind"]:
        case "resource" | "container":
            resource, container = case["Resource"], case.get("Container", "")
            requests = requests_of(pods, resource, container)
            return hpa_types.ResourceMetric(resource, samples, case.get("Utilization"), average, requests, container)
        case "pods":
            return hpa_types.PodsMetric(name, samples, case["Average"])
        case "object":
            return hpa_types.ObjectMetric(name, None if failed else case["Usage"], value, average)
        case _:
            return hpa_types.ExternalMetric(name, None if failed else tuple(case["Values"]), value, average)


def history_of(case: Case) -> hpa_types.History:
    def changes(events: list[Case]) -> tuple[hpa_types.Change, ...]:
        return tuple(hpa_types.Change(e["N"], instant(e["At"]), e["Outdated"]) for e in events)

    remembered = tuple(hpa_types.Remembered(r["N"], instant(r["At"])) for r in case.get("Recs") or [])
    return hpa_types.History(remembered, changes(case.get("Ups") or []), changes(case.get("Downs") or []))


def run(case: Case) -> Iterator[tuple[hpa_types.Outcome, hpa_types.History]]:
    """Every pass of a case, and the history after it."""
    spec, history, last = spec_of(case), history_of(case.get("History") or {}), 0
    for step in case["Passes"]:
        current = last if step.get("Replicas") is None else step["Replicas"]
        pods = step.get("Pods") or []
        outcome = recommend(
            spec,
            [pod_of(pod) for pod in pods],
            [metric_of(metric, index, pods) for index, metric in enumerate(step.get("Metrics") or [])],
            history,
            instant(step["At"]),
            current=current,
            status_replicas=step.get("Status"),
        )
        history, last = outcome.history, outcome.replicas
        if outcome.rescale:
            history = record_change(spec, history, current, outcome.replicas, instant(step["At"]))
        yield outcome, history


def shown(outcome: hpa_types.Outcome, history: hpa_types.History) -> Case:
    """What Kubernetes can be seen to answer, in the shape of the records.

    A rescale overwrites the reason of AbleToScale; the statuses of failed metrics are empty.
    """

    def changes(events: tuple[hpa_types.Change, ...]) -> list[list[int | bool]]:
        return [[e.replicas, nanoseconds(e.at), e.outdated] for e in events]

    return {
        "desired": outcome.replicas,
        "rescaled": outcome.rescale,
        "failed": bool(outcome.error),
        "active": outcome.active,
        "able": "SucceededRescale" if outcome.rescale else outcome.stabilized or "SucceededGetScale",
        "limited": outcome.limited,
        "metrics": [[m.utilization, m.average_milli, m.value_milli] for m in outcome.metrics],
        "recs": [[r.replicas, nanoseconds(r.at)] for r in history.recommendations],
        "ups": changes(history.ups),
        "downs": changes(history.downs),
    }


def recorded() -> list[Case]:
    return [cast(Case, json.loads(line)) for line in RECORDED.read_text().splitlines()]


@pytest.mark.parametrize("record", [pytest.param(record, id=str(record["seed"])) for record in recorded()])
def test_the_answer_is_kubernetes_own(record: Case) -> None:
    """Count, conditions, statuses and memory after every pass are those that Kubernetes 1.34.4 gave."""
    assert [shown(outcome, history) for outcome, history in run(record["case"])] == record["results"]
