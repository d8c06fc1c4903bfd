"""The verdict: what was asked for against what was done, as the load generator and the agents themselves recorded it.

Shoal's own figures are used for its own behaviour alone (decisions, replica-seconds), never for what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.load import Comparison, LoadSummary, Outcome, compare, summarize
from examples.warehouse.warehouse.sink import Effect

from .ledger import Ledger
from .traffic import Traffic

SHOWN = 5  # ids of what went wrong, that many of a kind
TASK_KINDS = ("image", "metadata")  # every picture goes through both queues


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the demo found. `tasks` and `stock` hold ids, so that what went wrong can be looked up; `repeats` says of
    what was done twice by whom, and when."""

    load: LoadSummary
    failures: tuple[Outcome, ...]
    unsent: int
    tasks: int
    lost_tasks: tuple[str, ...]
    twice_tasks: tuple[str, ...]
    repeats: tuple[str, ...]
    stock: Comparison
    time_to_scale_s: float | None
    forecasts: int

    @property
    def failed(self) -> int:
        return self.load.failed + self.unsent

    @property
    def problems(self) -> list[str]:
        """Why this run is no success; empty if it is one."""
        found = {
            "requests failed": self.failed,
            "tasks lost": len(self.lost_tasks),
            "tasks done twice": len(self.twice_tasks),
            "stock changes lost": len(self.stock.lost),
            "stock changes booked twice": len(self.stock.twice),
        }
        return [f"{count} {what}" for what, count in found.items() if count]


def judge(traffic: Traffic, started_at: float, outcomes: Sequence[Outcome], effects: Sequence[Effect]) -> Verdict:
    """Hold effects against what was accepted: a batch that was refused owes nothing, but counts as failed."""
    accepted = {outcome.id for outcome in outcomes if outcome.outcome == "ok"}
    expected = [task for task in traffic.tasks if task.rpartition("-")[0] in accepted]
    stages = [compare(expected, ids_of(effects, kind)) for kind in TASK_KINDS]
    return Verdict(
        load=summarize(outcomes),
        failures=tuple(outcome for outcome in outcomes if outcome.outcome != "ok"),
        unsent=len(traffic.requests) - len(outcomes),
        tasks=len(expected),
        lost_tasks=tuple(sorted({task for stage in stages for task in stage.lost})),
        twice_tasks=tuple(sorted({task for stage in stages for task in stage.twice})),
        repeats=tuple(
            f"{kind} {task}: " + ", ".join(_doings(effects, kind, task, started_at))
            for kind, stage in zip(TASK_KINDS, stages, strict=True)
            for task in stage.twice
        ),
        stock=compare([batch for batch in traffic.batches if batch in accepted], ids_of(effects, "stock")),
        time_to_scale_s=time_to_scale(effects, started_at + traffic.spike_at_s),
        forecasts=len(ids_of(effects, "forecast")),
    )


def _doings(effects: Sequence[Effect], kind: str, identity: str, started_at: float) -> list[str]:
    same = [effect for effect in effects if (effect.kind, effect.id) == (kind, identity)]
    return [f"{effect.replica} at {effect.at - started_at:.3f} s" for effect in same]


def ids_of(effects: Sequence[Effect], kind: str) -> list[str]:
    """The ids of all effects of one kind, in order, repeats included."""
    return [effect.id for effect in effects if effect.kind == kind]


def time_to_scale(effects: Sequence[Effect], spike_at: float) -> float | None:
    """From the start of the spike until a replica that is new since then had answered its first batch."""
    served = [(effect.at, effect.replica) for effect in effects if effect.kind == "request"]
    before = {replica for at, replica in served if at < spike_at}
    first = min((at for at, replica in served if at >= spike_at and replica not in before), default=None)
    return None if first is None else first - spike_at


def render(verdict: Verdict, ledger: Ledger, killed: str, left: int) -> str:
    """The summary as text."""
    load = verdict.load
    scaled = verdict.time_to_scale_s
    used = sum(ledger.replica_seconds.values())
    sizes = ", ".join(f"{name} {count}" for name, count in sorted(ledger.largest.items()) if count)
    rows = [
        ("requests", f"{load.requests}, p50 {load.p50_s * 1000:.0f} ms, p95 {load.p95_s * 1000:.0f} ms"),
        ("failed", f"{verdict.failed}" + (f"  {dict(load.outcomes)}" if verdict.failed else "")),
        ("tasks", f"{verdict.tasks}"),
        ("lost", _count(verdict.lost_tasks)),
        ("done twice", _count(verdict.twice_tasks)),
        ("stock changes", f"{len(verdict.stock.lost)} lost, {len(verdict.stock.twice)} booked twice"),
        ("forecasts", f"{verdict.forecasts}"),
        ("replica killed", killed),
        ("crashes", f"{len(ledger.crashes)}, the one on purpose included"),
        ("time to scale", "no new replica served" if scaled is None else f"{scaled:.1f} s from the start of the spike"),
        ("replica-seconds", f"{used:.0f}, {ledger.share_of_fixed:.0%} of a fixed fleet of the largest size ({sizes})"),
        ("processes left", f"{left}"),
    ]
    lines = [f"{name + ':':<17}{value}" for name, value in rows]
    lines += [f"  failed: {_describe(outcome)}" for outcome in verdict.failures[:SHOWN]]
    lines += [f"  crash: {crash}" for crash in ledger.crashes[:SHOWN]]
    lines += [f"  twice: {repeat}" for repeat in verdict.repeats[:SHOWN]]
    reasons = [f"  {times} x {agent} {wording}" for times, agent, wording in ledger.top_reasons(6)]
    return "\n".join([*lines, "decisions, the commonest reasons first:", *(reasons or ["  none"])])


def _describe(outcome: Outcome) -> str:
    begun = "" if outcome.first_byte_s is None else f", its answer began after {outcome.first_byte_s:.3f} s"
    return f"{outcome.id} at {outcome.sent_s:.3f} s: {outcome.outcome} after {outcome.latency_s:.3f} s{begun}"


def _count(ids: Sequence[str]) -> str:
    return f"{len(ids)}" + (f"  {', '.join(ids[:SHOWN])}" if ids else "")
