"""Quantities as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.units import (
    LARGEST_MEMORY_BYTES,
    format_duration,
    format_memory,
    parse_cpu_cores,
    parse_duration_s,
    parse_memory_bytes,
    parse_percent,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("1h30m", 5400.0), ("250ms", 0.25), ("2d", 172800.0), ("1.5m", 90.0), (3, 3.0), ("10us", 1e-5)],
)
def test_durations(text: Any, seconds: float) -> None:
    """Compose's form, and a bare number of seconds."""
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("256Mi", 256 * 2**20), ("1.5Gi", 3 * 2**29), ("512mb", 2**29), ("1G", 10**9), (4096, 4096), ("10b", 10)],
)
def test_memory(text: Any, amount: int) -> None:
    """Kubernetes' units and Compose's."""
    assert parse_memory_bytes(text) == amount


@pytest.mark.parametrize(("text", "cores"), [("500m", 0.5), ("2", 2.0), (0.25, 0.25), (3, 3.0)])
def test_cpu(text: Any, cores: float) -> None:
    """Cores, or thousandths of one."""
    assert parse_cpu_cores(text) == cores


@pytest.mark.parametrize(("text", "percent"), [("70%", 70.0), (70, 70.0), ("12.5 %", 12.5)])
def test_percent(text: Any, percent: float) -> None:
    """With its sign or without."""
    assert parse_percent(text) == percent


@pytest.mark.parametrize("parse", [parse_duration_s, parse_memory_bytes, parse_cpu_cores, parse_percent])
@pytest.mark.parametrize("text", ["", "x", "-1", "1 2", True, "1e9", "٣s", "9" * 400, 10**400, "nan", "1.", "5s5"])
def test_what_is_no_quantity_is_refused(parse: Callable[[Any], float], text: Any) -> None:
    """By ValueError alone, in a message fit to be shown."""
    with pytest.raises(ValueError, match=r"expected|not a|too large") as caught:
        parse(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("parse", [parse_duration_s, parse_memory_bytes])
def test_negative_numbers_are_refused(parse: Callable[[Any], float]) -> None:
    """A number is refused as its text is."""
    with pytest.raises(ValueError, match="negative"):
        parse(-1)


def test_durations_that_are_no_numbers_are_refused() -> None:
    """YAML can write infinity and not-a-number."""
    for number in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="too large"):
            parse_duration_s(number)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.25, "250ms"), (90, "1m30s"), (5400, "1h30m"), (86400, "1d"), (1.5, "1.5s")]
)
def test_durations_are_shown_short(seconds: float, text: str) -> None:
    """As people would write them."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("amount", "text"), [(256 * 2**20, "256Mi"), (3 * 2**29, "1.5Gi"), (900, "900")])
def test_memory_is_shown_short(amount: int, text: str) -> None:
    """As people would write it."""
    assert format_memory(amount) == text


@given(st.integers(0, 10**9))
def test_durations_come_back(seconds: int) -> None:
    """Writing a duration and reading it gives the same one."""
    assert parse_duration_s(format_duration(seconds)) == seconds


@given(st.integers(0, 2**20))
def test_memory_comes_back_where_it_is_round(mebibytes: int) -> None:
    """Below a gibibyte nothing is rounded."""
    amount = mebibytes % 1024 * 2**20
    assert parse_memory_bytes(format_memory(amount)) == amount
    assert amount < LARGEST_MEMORY_BYTES
