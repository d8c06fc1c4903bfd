"""What the benches work out of what they measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench.closed_loop import parse_wrk
from bench.command_line import large_file
from bench.plain_envoy import configuration
from bench.row import Goal, Row, quantile
from bench.table import format_figure, render_table, write_json


def row(**changes: object) -> Row:
    """Three turns against a baseline."""
    values = {"bench": "b", "what": "w", "unit": "ms", "ours": (11.0, 24.0, 33.0), "baseline": (10.0, 20.0, 30.0)}
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def test_turns_are_compared_with_their_own_baseline() -> None:
    """A machine that slows down half-way slows both: the median is of the turns' ratios, not the ratio of medians."""
    assert row(compare="ratio").figure == pytest.approx(1.1)
    assert row(compare="ratio", ours=(30.0, 24.0, 10.0), baseline=(10.0, 20.0, 30.0)).figure == pytest.approx(1.2)
    assert row(compare="difference").compared == (1.0, 4.0, 3.0)
    assert row(compare="alone").figure == 24.0


def test_a_goal_is_an_upper_or_a_lower_bound() -> None:
    """The bound itself is met; no figure at all meets nothing."""
    assert Goal(3.0).met_by(3.0)
    assert not Goal(3.0).met_by(3.1)
    assert Goal(0.95, most=False).met_by(0.95)
    assert not Goal(0.95, most=False).met_by(0.9)
    assert row(ours=(), baseline=(), goal=Goal(1.0)).met is False
    assert row().met is None


def test_quantiles() -> None:
    """p95 of twenty is the nineteenth; the median of an even count lies between."""
    values = [float(value) for value in range(1, 21)]
    assert quantile(values, 0.95) == 19.0
    assert quantile(values, 0.5) == 10.5
    assert math.isnan(quantile([], 0.5))


def test_the_table_says_what_is_missed() -> None:
    """One line a row, with the goal in words, and the notes under it."""
    missed = row(compare="ratio", goal=Goal(0.95, most=False), ours=(9.0,), baseline=(10.0,), note="loud machine")
    lines = render_table([(missed, 6.28), (row(goal=Goal(100.0), quantile=0.95), 0.5)]).splitlines()
    assert "≥ 0.95 of baseline" in lines[2]
    assert "MISSED" in lines[2]
    assert "6.3" in lines[2]
    assert "≤ 100 ms" in lines[3]
    assert "(p95)" in lines[3]
    assert lines[-1] == "b, w: loud machine"
    assert len({len(line) for line in lines[:4]}) == 1


def test_figures_have_three_digits() -> None:
    """Whole numbers from a hundred on; what is not known is a dash."""
    assert format_figure(0.01234, "s") == "0.0123 s"
    assert format_figure(12345.6, "/s") == "12,346 /s"
    assert format_figure(None, "s") == format_figure(float("nan"), "s") == "-"


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    """NaN is no JSON."""
    path = tmp_path / "out" / "b.json"
    write_json(path, [row(ours=(), baseline=())], {"cores": 2})
    written = json.loads(path.read_text())
    assert written["rows"][0]["figure"] is None
    assert written["machine"] == {"cores": 2}


def test_wrk_with_failures_gives_no_figure() -> None:
    """A proxy that answers 503 is fast: such a figure says nothing."""
    good = "Running 2s test\nRequests/sec:  35362.10\nTransfer/sec: 1MB\n"
    assert parse_wrk(good) == 35362.10
    for bad in ("  Non-2xx or 3xx responses: 12\n", "  Socket errors: connect 0, read 3\n"):
        with pytest.raises(ValueError, match="good answers only"):
            parse_wrk(bad + good)
    with pytest.raises(ValueError, match="good answers only"):
        parse_wrk("")


def test_the_baseline_is_plain() -> None:
    """What Shoal adds must not be in what it is held against."""
    text = json.dumps(configuration(8080, ("127.0.0.1", 9000)))
    for extra in ("retry", "health_checks", "access_log", "outlier", "circuit", "ext_authz", "ads"):
        assert extra not in text


def test_the_large_file_is_a_fleet(tmp_path: Path) -> None:
    """`validate` is timed on what it accepts."""
    from shoal.spec.loading import load

    path = tmp_path / "shoal.yaml"
    path.write_text(large_file(20))
    assert len(load([path]).fleet.agents) == 20
