"""Identities of a stateful agent through rollouts, undone ones and scales, by control's own steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stateful_set import StatefulSet

from shoal.core.action import EnsureRevision, Remove, Scale
from shoal.core.reconcile import Wanted, reconcile
from shoal.core.revision import template_of
from shoal.core.template import Template
from shoal.engines.kubernetes.stateful import Ordinals, read_ordinals, render_ordinals, scaled
from shoal.spec.model import Fleet

ENOUGH = 200  # steps, for any rollout of these tests
LATER = 4e9  # whoever is ready has been so for long


def template() -> Template:
    """Of a worker, so that no gateway has to acknowledge anything."""
    agent = {"command": "work", "queue": "tasks", "stateful": True, "image": "acme/stock:1"}
    return template_of(Fleet.model_validate({"fleet": "shop", "agents": {"stock": agent}}), "stock", {})


TEMPLATE = template()


class Rollout:
    """Control and Kubernetes, in turns that a test chooses."""

    def __init__(self, revision: str, count: int) -> None:
        self.set = StatefulSet("stock")
        self.known: set[str] = set()
        self.want(revision, count)

    def want(self, revision: str, count: int) -> None:
        self.revision, self.count = revision, count

    def control(self) -> bool:
        """One step; says whether nothing is left to do."""
        wanted = Wanted("stock", self.revision, TEMPLATE, self.count, now=LATER)
        observed = self.set.observed(self.known)
        step = reconcile(
            wanted, observed, leaving=frozenset(), left=frozenset(), healthy=None, chooses_victims=True
        )  # fmt: skip
        for action in step.actions:
            match action:
                case EnsureRevision():
                    self.known.add(action.revision)
                case Scale():
                    self.set.scale(action)
                    assert self.set.spec.rolled_out in self.known
                case Remove():
                    self.known.discard(str(action.revision))
                case _:
                    raise AssertionError(action)
        return step.settled

    def kubernetes(self) -> None:
        self.set.work()

    def pods_end(self) -> None:
        self.set.end()

    def pods_get_ready(self) -> None:
        for pod in self.set.pods.values():
            pod.ready = True

    def finish(self) -> int:
        """Everybody does what is left to do; gives the most identities that were not ready at once."""
        worst = 0
        for _ in range(ENOUGH):
            settled = self.control()
            self.kubernetes()
            worst = max(worst, self.count - self.serving())
            if settled:
                return worst
            self.pods_end()
            worst = max(worst, self.count - self.serving())
            self.kubernetes()
            self.pods_get_ready()
        raise AssertionError(f"not settled: {self.set}, {self.known}")

    def serving(self) -> int:
        return sum(pod.ready and not pod.ending for pod in self.set.pods.values())


def assert_done(rollout: Rollout) -> None:
    """All identities are there and of the wished revision, and that is what is told of them."""
    assert sorted(rollout.set.pods) == list(range(rollout.count))
    assert {pod.revision for pod in rollout.set.pods.values()} <= {rollout.revision}
    counts = rollout.set.observed(rollout.known).counts
    assert counts == {rollout.revision: rollout.count}


def test_a_rollout_goes_from_the_highest_down_one_at_a_time() -> None:
    """And never has two identities down."""
    rollout = Rollout("v1", 3)
    rollout.finish()
    assert_done(rollout)
    rollout.want("v2", 3)
    seen: list[tuple[str, ...]] = []
    for _ in range(ENOUGH):
        rollout.control()
        if not seen or rollout.set.spec.of != seen[-1]:
            seen.append(rollout.set.spec.of)
        rollout.kubernetes()
        assert rollout.serving() >= 2
        rollout.pods_end()
        rollout.kubernetes()
        rollout.pods_get_ready()
    assert seen == [
        ("v1", "v1"), ("v1", "v1", "v2"), ("v1", "v2", "v2"), ("v2", "v2", "v2"),
    ]  # fmt: skip
    assert_done(rollout)


@pytest.mark.parametrize("after", range(1, 12))
@pytest.mark.parametrize("then", ["v1", "v3"])
def test_a_rollout_is_undone_or_overtaken_in_its_middle(after: int, then: str) -> None:
    """Then too one identity is down at most."""
    rollout = Rollout("v1", 4)
    rollout.finish()
    rollout.want("v2", 4)
    for _ in range(after):
        rollout.control()
        rollout.kubernetes()
        rollout.pods_end()
        rollout.kubernetes()
        rollout.pods_get_ready()
    rollout.want(then, 4)
    assert rollout.finish() <= 1
    assert_done(rollout)


TURNS = st.one_of(
    st.sampled_from(["control", "control", "kubernetes", "pods_end", "pods_get_ready"]),
    st.tuples(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 4)),
    st.integers(0, 4),
)


@given(st.lists(TURNS, max_size=60))
@example(["control", "kubernetes", ("v2", 3), "control", 1, "kubernetes", ("v1", 2)])
def test_identities_come_back_whatever_happens(turns: list[Any]) -> None:
    """Whatever is wished, in whatever order things happen, and whichever pod is lost meanwhile: in the end there are
    as many as wished, of the revision that is wished."""
    rollout = Rollout("v1", 3)
    for turn in turns:
        match turn:
            case str():
                getattr(rollout, turn)()
            case (revision, count):
                rollout.want(revision, count)
            case ordinal:
                rollout.set.pods.pop(ordinal, None)
    rollout.finish()
    assert_done(rollout)


OF = st.lists(st.sampled_from("abc"), max_size=6).map(tuple)


@given(OF, st.sampled_from("abc"), st.integers(0, 7))
def test_a_scale_sets_the_count_it_was_told(of: tuple[str, ...], revision: str, count: int) -> None:
    """The others keep theirs or get what was given up, and what is below the partition stays as it was."""
    there = Ordinals(of, of[-1] if of else "a")
    after = scaled(there, Scale("stock", revision, count))
    assert after.counts.get(revision, 0) == count
    assert after.of[: after.partition] == of[: after.partition]
    assert all(each == after.rolled_out for each in after.of[after.partition :])


def item(of: Ordinals, replicas: int | None = None) -> dict[str, Any]:
    made = StatefulSet("stock", of).item()
    made["spec"]["replicas"] = len(of.of) if replicas is None else replicas
    return made


@given(OF)
def test_what_is_kept_is_read_again(of: tuple[str, ...]) -> None:
    ordinals = Ordinals(of, of[-1] if of else "a")
    assert read_ordinals(item(ordinals), ()) == ordinals


def test_runs_of_one_revision_are_kept_as_one() -> None:
    """A hundred identities are a short annotation."""
    assert render_ordinals(Ordinals(("a",) * 99 + ("b",), "b")) == '[["a", 99], ["b", 1]]'


def test_somebody_else_scaled_it() -> None:
    """By `kubectl scale`, say: what is more is rolled out, what is less is gone."""
    there = Ordinals(("a", "a", "b"), "b")
    assert read_ordinals(item(there, 5), ()).of == ("a", "a", "b", "b", "b")
    assert read_ordinals(item(there, 1), ()).of == ("a",)


def test_below_the_partition_a_pod_may_be_another_than_it_was() -> None:
    """Kubernetes makes one anew as the last revision that was rolled out as a whole."""
    made = StatefulSet("stock", Ordinals(("a", "b", "c"), "c"), current="a")
    made.work()
    assert [pod.revision for _, pod in sorted(made.pods.items())] == ["a", "a", "c"]
    assert read_ordinals(made.item(), made.pod_items()) == Ordinals(("a", "a", "c"), "c")
