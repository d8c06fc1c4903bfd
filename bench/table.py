"""Rows as a table for people, in Markdown, and as JSON for who compares two runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.row import Row, quantile

_HEAD = ("bench", "what", "goal", "figure", "ours", "baseline", "ratio", "spread", "runs", "load", "")


def render_table(rows: Sequence[tuple[Row, float]]) -> str:
    """Each row comes with the load average when its bench began."""
    lines = [_HEAD, *(_cells(row, load) for row, load in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in lines]  # fmt: skip
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"{row.bench}, {row.what}: {row.note}" for row, _ in rows if row.note]
    return "\n".join([*text, *([""] if notes else []), *notes])


def write_json(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """One bench's rows and the machine that they were measured on. Figures that are not numbers become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "rows": [row.to_json() for row in rows]}
    path.write_text(json.dumps(_finite(content), indent=2) + "\n")


def format_figure(value: float | None, unit: str) -> str:
    """Three significant digits, with the unit."""
    if value is None or math.isnan(value):
        return "-"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def _cells(row: Row, load: float) -> tuple[str, ...]:
    unit = "" if row.compare == "ratio" else row.unit
    low, high = row.spread
    kind = {"alone": "", "ratio": " of baseline", "difference": " over baseline"}[row.compare]
    name = "median" if row.quantile == 0.5 else f"p{row.quantile * 100:g}"
    goal = "-" if row.goal is None else f"{'≤' if row.goal.most else '≥'} {format_figure(row.goal.bound, unit)}{kind}"
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    return (
        row.bench,
        row.what,
        goal,
        f"{format_figure(row.figure, unit)} ({name})",
        format_figure(quantile(row.ours, 0.5), row.unit),
        format_figure(quantile(row.baseline, 0.5), row.unit),
        format_figure(row.ratio if row.baseline else None, ""),
        f"{format_figure(low, '')} to {format_figure(high, '')}",
        str(len(row.compared)),
        f"{load:.1f}",
        verdict,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
