"""Inventory's book: each request once, sums kept, nothing half done."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.warehouse.warehouse.reporting import make_report
from examples.warehouse.warehouse.stock import Stock


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    opened = Stock(tmp_path / "stock.sqlite")
    yield opened
    opened.close()


def test_a_request_is_booked_once(stock: Stock) -> None:
    """The second time of the same request says so and changes nothing."""
    assert stock.apply("r1", [("X", 5, 10, 0), ("X", 6, 0, 3)])
    assert not stock.apply("r1", [("X", 5, 10, 0)])
    assert stock.units() == {"X": 7}
    assert stock.demand() == [(5, 0), (6, 3)]


def test_a_request_is_booked_whole_or_not_at_all(stock: Stock) -> None:
    """A change that can't be booked takes the others back, and the request may come again."""
    with pytest.raises(Exception, match="unsupported operand"):
        stock.apply("r1", [("X", 5, 10, 0), ("Z", 1, 0, cast("int", "x"))])
    assert stock.units() == {}
    assert stock.apply("r1", [("X", 5, 10, 0)])


def test_what_was_booked_is_there_again(tmp_path: Path) -> None:
    """Another process finds stock, demand, forecast and pictures as they were."""
    first = Stock(tmp_path / "stock.sqlite")
    first.apply("r1", [("X", 5, 0, 2)])
    first.keep_forecast({"values": [1.0]})
    first.keep_forecast({"values": [2.0]})
    assert first.keep_picture("t1", {"camera": "c"})
    first.close()
    again = Stock(tmp_path / "stock.sqlite")
    assert again.units() == {"X": -2}
    assert again.forecast() == {"values": [2.0]}
    assert not again.keep_picture("t1", {"camera": "c"})
    assert again.pictures() == 1
    again.close()


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("XYZ"), st.integers(0, 3), st.integers(-9, 9))),
)
def test_sums_do_not_depend_on_repeats(changes: list[tuple[str, str, int, int]]) -> None:
    """Whatever is sent again: stock is the sum over the first sending of each request."""
    stock = Stock(Path(":memory:"))
    expected: dict[str, int] = {}
    seen: set[str] = set()
    for request, sku, hour, units in changes:
        assert stock.apply(request, [(sku, hour, max(units, 0), max(-units, 0))]) == (request not in seen)
        if request not in seen:
            expected[sku] = expected.get(sku, 0) + units
        seen.add(request)
    assert stock.units() == dict(sorted(expected.items()))
    stock.close()


def test_a_report_needs_no_forecast() -> None:
    """Before the first forecast a report says what there is, and nothing of the future."""
    report = make_report({"units": {"X": 3, "Y": 1}, "pictures": 2}, None)
    assert report == {"units": 4, "pictures": 2, "lowest": ["Y", "X"], "expected_demand": None, "days_left": None}


def test_a_report_says_how_long_stock_lasts() -> None:
    """Days left are units over the demand of the coming day."""
    report = make_report({"units": {"X": 30}, "pictures": 0}, {"values": [1.0] * 10})
    assert (report["expected_demand"], report["days_left"]) == (10, 3.0)
