"""What ingest accepts and refuses, and what follows from a batch."""

import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.warehouse.warehouse.readings import (
    FIELDS,
    BadBatch,
    Reading,
    drift_c_per_hour,
    parse_batch,
)

ROWS = [
    {"sensor": "a", "sku": "X", "minute": 60 + n, "change": -n, "temperature_c": 20.5, "picture": ""} for n in range(70)
]


def as_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    lines = [",".join(FIELDS), *(",".join(str(row[name]) for name in FIELDS) for row in rows)]
    return "\n".join(lines).encode()


def as_json(rows: Sequence[Mapping[str, object]]) -> bytes:
    return json.dumps({"readings": rows}).encode()


def test_csv_and_json_mean_the_same() -> None:
    """The same readings are accepted in both forms."""
    assert parse_batch(as_csv(ROWS), "text/csv") == parse_batch(as_json(ROWS), "application/json; charset=utf-8")


def test_changes_are_added_up_by_sku_and_hour() -> None:
    """Inventory gets one change a SKU and hour, not one a reading."""
    batch = parse_batch(as_csv([dict(ROWS[0], change=5), *ROWS]), "text/csv")
    assert batch.changes == [("X", 1, 5, sum(range(60))), ("X", 2, 0, sum(range(60, 70)))]


def test_pictures_are_those_named() -> None:
    """A reading without a picture makes no task."""
    rows = [dict(ROWS[0], picture="p.jpg"), ROWS[1]]
    assert parse_batch(as_csv(rows), "text/csv").pictures == [("X", "p.jpg")]


def test_a_drifting_sensor_is_rejected_and_the_others_stay() -> None:
    """Drift rejects a sensor's readings, not the batch."""
    drifting = [dict(row, sensor="b", temperature_c=10 + n * 0.2) for n, row in enumerate(ROWS)]
    batch = parse_batch(as_csv([*ROWS, *drifting]), "text/csv")
    assert {reading.sensor for reading in batch.readings} == {"a"}
    assert batch.drifting == {"b": pytest.approx(12.0)}


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"\xff\xfe", "text/csv", "UTF-8"),
        (b"", "text/csv", "header None"),
        (b"a,b\n1,2\n", "text/csv", "expected sensor,sku"),
        (as_csv([]), "text/csv", "at least one"),
        (as_csv([dict(ROWS[0], minute="soon")]), "text/csv", "reading 1: invalid literal"),
        (as_csv([ROWS[0], dict(ROWS[1], temperature_c=99)]), "text/csv", "reading 2: temperature 99.0"),
        (as_csv([dict(ROWS[0], sku="")]), "text/csv", "a sensor and a sku"),
        (b"{", "application/json", "line 1"),
        (b"[1]", "application/json", '"readings"'),
        (as_json([{"sensor": "a"}]), "application/json", "reading 1: 'sku'"),
        (as_csv([ROWS[0]] * 5001), "text/csv", "at most 5000"),
    ],
)
def test_a_bad_batch_is_refused_with_its_reason(body: bytes, content_type: str, said: str) -> None:
    """Nothing of a bad batch is taken, and the message says what to mend."""
    with pytest.raises(BadBatch, match=said):
        parse_batch(body, content_type)


@given(slope=st.floats(-5, 5), wild=st.integers(0, 4))
def test_a_few_wild_values_do_not_look_like_drift(slope: float, wild: int) -> None:
    """The Theil-Sen slope stays near the truth with up to a tenth of the values wrong."""
    readings = [Reading("s", "X", n, 0, slope * n / 60) for n in range(40)]
    readings[: wild * 5 : 5] = [Reading("s", "X", r.minute, 0, 55.0) for r in readings[: wild * 5 : 5]]
    assert abs(drift_c_per_hour(readings) - slope) < 1.0


def test_readings_of_one_instant_have_no_drift() -> None:
    """Where there are no two instants there is no slope."""
    assert drift_c_per_hour([Reading("s", "X", 1, 0, 1.0), Reading("s", "X", 1, 0, 9.0)]) == 0.0
