"""A plan as text for people: one block an agent, stable to the byte, without colours. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shoal.core.drift import Drift
from shoal.core.plan import RESTART, SECRET_CONTENT, Change, ChangeClass, Plan
from shoal.units import format_duration, format_memory

_SIGNS: Mapping[ChangeClass, str] = {"create": "+", "recreate": "-/+", "rolling": "~", "live": "~", "remove": "-"}
_MEANS: Mapping[ChangeClass, str] = {
    "create": "create",
    "recreate": "recreate: old replicas stop before new ones start",
    "rolling": "rolling: new replicas take over from old ones",
    "live": "live: nothing restarts",
    "remove": "remove",
}
_DURATIONS = frozenset(
    (
        "interval", "timeout", "start_period", "period", "stabilization_window", "p95", "request_timeout",
        "stop_grace_period", "ack_wait", "min_ready_time", "progress_deadline",
    )
)  # fmt: skip


def format_plan(plan: Plan) -> str:
    """The plan as lines, without a newline at the end."""
    lines = [f"fleet {plan.fleet} on the {plan.engine} engine"]
    for change in plan.changes:
        lines += ["", *_change_lines(change, plan.fleet)]
    if plan.drift:
        lines += ["", "changed by somebody else since, and put back by `up`:", *map(_drift_line, plan.drift)]
    if plan.notes:
        lines += ["", *(f"note: {note}" for note in plan.notes)]
    return "\n".join([*lines, "", _summary(plan)])


def _change_lines(change: Change, fleet: str) -> list[str]:
    who = f"{change.agent} ({change.kind})" if change.agent is not None else f"the fleet {fleet}"
    means = _MEANS[change.class_]
    if change.kind == "job" and change.class_ == "rolling":
        means = "rolling: from the next run on"
    if change.returns:
        means = "live: this version still serves, as the one after it was given up; nothing restarts"
    if change.one_by_one:
        means = f"{change.class_}: each replica stops before its successor starts, the highest ordinal first"
    lines = [f"  {_SIGNS[change.class_]} {who}: {means}"]
    for path, old, new in change.fields:
        if old == new == RESTART:
            lines.append("      restart: new replicas of the same version")
        elif old == new == SECRET_CONTENT:
            lines.append(f"      {path}: another content")
        elif change.class_ == "create" or old is None:
            lines.append(f"      {path}: {_shown(path, new)}")
        else:
            lines.append(f"      {path}: {_shown(path, old)} -> {_shown(path, new)}")
    return lines


def _drift_line(drift: Drift) -> str:
    if not drift.path:
        return f"  ! {drift.where}: is gone"
    by = [drift.by] if drift.by else []
    if drift.at is not None:
        by.append(f"{datetime.fromtimestamp(drift.at, UTC):%Y-%m-%d %H:%M:%SZ}")
    who = f" ({', '.join(by)})" if by else ""
    now, wanted = (_value(each) if each is not None else "nothing" for each in (drift.found, drift.wanted))
    return f"  ! {drift.where}: {drift.path}: {now}{who} -> {wanted}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    if value is None:
        return "none"
    if path == "command":
        return shlex.join(value)
    if path.startswith("environment."):
        return str(value) if str(value).startswith("(") else json.dumps(value, ensure_ascii=False)
    if path in ("resources.memory", "shm_size"):
        return format_memory(value)
    if name in _DURATIONS and isinstance(value, (int, float)):
        return format_duration(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _summary(plan: Plan) -> str:
    if not plan:
        return "No changes."
    counts = {each: sum(change.class_ == each for change in plan.changes) for each in _SIGNS}
    said = [f"{count} {each}" for each, count in counts.items() if count]
    if plan.drift:
        said.append(f"{len(plan.drift)} put back")
    return f"Plan: {', '.join(said)}."
