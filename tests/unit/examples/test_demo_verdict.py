"""The demo's verdict: losses, repeats and failures are found, whatever the order in which effects came."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import Outcome, compare
from examples.warehouse.warehouse.sink import Effect, read_effects, record
from examples.warehouse.warehouse_demo.ledger import Ledger
from examples.warehouse.warehouse_demo.traffic import Traffic, make_traffic
from examples.warehouse.warehouse_demo.verdict import judge, render, time_to_scale
from shoal.api.views import AgentView, DecisionView, ReplicaView, StatusView

IDS = st.text("abc", min_size=1, max_size=2)


@given(expected=st.lists(IDS), done=st.lists(IDS))
def test_compare_accounts_for_every_id(expected: list[str], done: list[str]) -> None:
    """An id is lost, done twice or unexpected exactly when its counts say so, in any order and with any repeats."""
    found = compare(expected, done)
    counts = Counter(done)
    for identity in {*expected, *done}:
        assert (identity in found.lost) == (identity in expected and counts[identity] == 0)
        assert (identity in found.twice) == (counts[identity] > 1)
        assert (identity in found.unexpected) == (identity not in expected and counts[identity] > 0)
    assert compare(reversed(expected), reversed(done)) == found


def outcome(identity: str, what: str = "ok") -> Outcome:
    return Outcome(identity, 0.0, 0.0, 0.1, 0.05, 200 if what == "ok" else 503, what, idempotent=True)


def effects_of(traffic: Traffic) -> list[Effect]:
    effects = [Effect("request", batch, "ingest-1", 1.0) for batch in traffic.batches]
    effects += [Effect("stock", batch, "inventory-0", 1.0) for batch in traffic.batches]
    return effects + [Effect(kind, task, "w", 2.0) for kind in ("image", "metadata") for task in traffic.tasks]


TRAFFIC = make_traffic([n / 10 for n in range(30)], seconds=10)
GOOD = [outcome(request.id) for request in TRAFFIC.requests]


def test_a_run_in_order_has_no_problem() -> None:
    """All answered, all done once."""
    verdict = judge(TRAFFIC, 0.0, GOOD, effects_of(TRAFFIC))
    assert verdict.problems == []
    assert (verdict.tasks, verdict.failed) == (10, 0)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda effects: [e for e in effects if (e.kind, e.id) != ("image", TRAFFIC.tasks[0])], "1 tasks lost"),
        (lambda effects: [e for e in effects if (e.kind, e.id) != ("metadata", TRAFFIC.tasks[3])], "1 tasks lost"),
        (lambda effects: [*effects, Effect("image", TRAFFIC.tasks[0], "w", 3.0)], "1 tasks done twice"),
        (lambda effects: [e for e in effects if (e.kind, e.id) != ("stock", "batch-00000")], "1 stock changes lost"),
        (lambda effects: [*effects, Effect("stock", "batch-00000", "i", 3.0)], "1 stock changes booked twice"),
    ],
)
def test_what_is_wrong_is_said(broken, said: str) -> None:
    """One effect too few or too many is a problem by name."""
    assert judge(TRAFFIC, 0.0, GOOD, broken(effects_of(TRAFFIC))).problems == [said]


def test_a_request_that_failed_owes_no_effects() -> None:
    """It counts as failed, and its tasks not as lost besides."""
    outcomes = [outcome("batch-00000", "http-503"), *(each for each in GOOD if each.id != "batch-00000")]
    effects = [effect for effect in effects_of(TRAFFIC) if not effect.id.startswith("batch-00000")]
    assert judge(TRAFFIC, 0.0, outcomes, effects).problems == ["1 requests failed"]


def test_a_request_that_was_never_sent_failed() -> None:
    """A schedule that was cut short is no success."""
    assert judge(TRAFFIC, 0.0, GOOD[:-2], effects_of(TRAFFIC)).problems[0] == "2 requests failed"


def test_time_to_scale_ends_with_the_first_answer_of_a_new_replica() -> None:
    """Replicas that had served before the spike don't count."""
    served = [("a", 1.0), ("a", 5.0), ("b", 7.5), ("c", 8.0)]
    effects = [Effect("request", f"{at}", replica, at) for replica, at in served]
    assert time_to_scale(effects, 4.0) == 3.5
    assert time_to_scale(effects[:2], 4.0) is None


def test_the_sink_keeps_every_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What handlers record can be read back, by which replica; without a file nothing is recorded."""
    record("image", "t0")
    monkeypatch.setenv("WAREHOUSE_SINK", str(tmp_path / "effects.jsonl"))
    monkeypatch.setenv("SHOAL_REPLICA", "images-1")
    assert list(read_effects(tmp_path / "effects.jsonl")) == []
    record("image", "t1")
    record("image", "t1")
    effects = list(read_effects(tmp_path / "effects.jsonl"))
    assert [(effect.kind, effect.id, effect.replica) for effect in effects] == [("image", "t1", "images-1")] * 2


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    """Reading beside writers never fails on half a line."""
    path = tmp_path / "effects.jsonl"
    path.write_text(json.dumps({"kind": "image", "id": "t", "replica": "r", "at": 1.0}) + '\n{"kind": "im')
    assert [effect.id for effect in read_effects(path)] == ["t"]


def look(at: float, count: int, decision: DecisionView | None = None, name: str = "ingest") -> StatusView:
    replicas = tuple(ReplicaView(f"r{n}", "v1", "running", True, None, 0.0, 0, "") for n in range(count))
    agent = AgentView(
        name, "service", "v1", "ok", "", count, count, 0, 0, 1, 9, decision=decision, replicas=replicas
    )  # fmt: skip
    return StatusView("warehouse", "local", at, 1, 1, True, None, (), 1, (agent,))


def test_the_ledger_adds_up_replica_seconds() -> None:
    """Each look counts until the next one; the share is of the largest size over the whole time."""
    ledger = Ledger()
    for at, count in ((0.0, 1), (10.0, 4), (20.0, 1), (40.0, 1)):
        ledger.see(look(at, count))
    assert ledger.replica_seconds == {"ingest": 10 + 40 + 20}
    assert ledger.share_of_fixed == pytest.approx(70 / 160)


def test_the_commonest_reasons_come_first() -> None:
    """Reasons that differ by numbers alone are one; what changed nothing is left out."""
    ledger = Ledger()
    for at, (before, after, reason) in enumerate([(1, 1, "quiet"), (1, 2, "concurrency 3.5"), (2, 4, "concurrency 9")]):
        decision = DecisionView(float(at), before, after, reason, "", None)
        ledger.see(look(float(at), after, decision))
        ledger.see(look(float(at) + 0.5, after, decision))
    assert ledger.top_reasons(3) == [(2, "ingest", "2 -> 4: concurrency 9")]


def test_the_summary_names_everything() -> None:
    """Every figure that the demo promises is in its last words."""
    ledger = Ledger()
    ledger.see(look(0.0, 1))
    ledger.see(look(10.0, 2))
    ledger.crashes.append("ingest-1: killed by SIGKILL")
    text = render(judge(TRAFFIC, 0.0, GOOD, effects_of(TRAFFIC)), ledger, "ingest-1", 0)
    assert "  crash: ingest-1: killed by SIGKILL" in text.splitlines()
    for name in ("requests:", "failed:", "lost:", "done twice:", "time to scale:", "replica-seconds:", "decisions"):
        assert name in text


def test_what_was_done_twice_is_told_with_who_and_when() -> None:
    """So that the logs of these replicas can be looked at."""
    task = TRAFFIC.tasks[0]
    effects = [*effects_of(TRAFFIC), Effect("metadata", task, "metadata-extraction-2", 33.5)]
    assert judge(TRAFFIC, 0.5, GOOD, effects).repeats == (
        f"metadata {task}: w at 1.500 s, metadata-extraction-2 at 33.000 s",
    )
