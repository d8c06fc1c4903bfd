"""Sensor readings: parse, validate, and reject sensors that drift. CPU-bound on purpose, and free of I/O.

A batch is what a gateway of shelf sensors sends: CSV with a header, or JSON with the same fields. Drift is found by
the Theil-Sen slope (the median over all pairs), which a few wild values don't move; it is quadratic in the readings
of a sensor, which is where the time goes.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

FIELDS = ("sensor", "sku", "minute", "change", "temperature_c", "picture")
MAX_READINGS = 5_000
TEMPERATURES_C = (-40.0, 60.0)
MAX_DRIFT_C_PER_HOUR = 3.0


class BadBatch(ValueError):
    """The batch can't be used. The message says which reading, what was found, what was expected."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading: `minute` counts from the epoch, `change` is in units of stock, `picture` may be empty."""

    sensor: str
    sku: str
    minute: int
    change: int
    temperature_c: float
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is accepted of a batch, and the sensors that were rejected with their drift in °C an hour."""

    readings: tuple[Reading, ...]
    drifting: Mapping[str, float]

    @property
    def changes(self) -> list[tuple[str, int, int, int]]:
        """Stock changes by SKU and hour: (sku, hour, units put in, units taken out), sorted."""
        put_in: Counter[tuple[str, int]] = Counter()
        taken: Counter[tuple[str, int]] = Counter()
        for reading in self.readings:
            totals = put_in if reading.change > 0 else taken
            totals[reading.sku, reading.minute // 60] += abs(reading.change)
        return [(*key, put_in[key], taken[key]) for key in sorted({*put_in, *taken})]

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Pictures that readings name: (sku, picture)."""
        return [(reading.sku, reading.picture) for reading in self.readings if reading.picture]


def parse_batch(body: bytes, content_type: str) -> Batch:
    """Parse and validate. Raises BadBatch."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadBatch(f"byte {error.start}: expected UTF-8") from error
    rows = _json_rows(text) if content_type.startswith("application/json") else _csv_rows(text)
    readings = [_reading(number, row) for number, row in enumerate(rows, start=1)]
    if not readings:
        raise BadBatch("no readings: expected at least one")
    if len(readings) > MAX_READINGS:
        raise BadBatch(f"{len(readings)} readings: expected at most {MAX_READINGS}")
    return _without_drifting(readings)


def _csv_rows(text: str) -> Iterable[Mapping[str, object]]:
    rows = csv.DictReader(io.StringIO(text))
    if tuple(rows.fieldnames or ()) != FIELDS:
        raise BadBatch(f"header {rows.fieldnames}: expected {','.join(FIELDS)}")
    return rows


def _json_rows(text: str) -> Iterable[Mapping[str, object]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadBatch(f"line {error.lineno}: {error.msg}") from error
    rows = document.get("readings") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadBatch('expected {"readings": [{...}, ...]}')
    return rows


def _reading(number: int, row: Mapping[str, object]) -> Reading:
    try:
        reading = Reading(
            sensor=str(row["sensor"]),
            sku=str(row["sku"]),
            minute=int(str(row["minute"])),
            change=int(str(row["change"])),
            temperature_c=float(str(row["temperature_c"])),
            picture=str(row.get("picture") or ""),
        )
    except (KeyError, ValueError) as error:
        raise BadBatch(f"reading {number}: {error}") from error
    low, high = TEMPERATURES_C
    if not low <= reading.temperature_c <= high:
        raise BadBatch(f"reading {number}: temperature {reading.temperature_c}: expected {low} to {high}")
    if not reading.sensor or not reading.sku:
        raise BadBatch(f"reading {number}: expected a sensor and a sku")
    return reading


def _without_drifting(readings: Sequence[Reading]) -> Batch:
    by_sensor: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_sensor[reading.sensor].append(reading)
    drifts = {sensor: drift_c_per_hour(of_sensor) for sensor, of_sensor in by_sensor.items()}
    drifting = {sensor: drift for sensor, drift in drifts.items() if abs(drift) > MAX_DRIFT_C_PER_HOUR}
    return Batch(tuple(reading for reading in readings if reading.sensor not in drifting), drifting)


def drift_c_per_hour(readings: Sequence[Reading]) -> float:
    """The Theil-Sen slope of temperature over time; 0 where there are no two instants."""
    slopes = [
        (later.temperature_c - earlier.temperature_c) / (later.minute - earlier.minute)
        for index, later in enumerate(readings)
        for earlier in readings[:index]
        if later.minute != earlier.minute
    ]
    return 60 * median(slopes) if slopes else 0.0
