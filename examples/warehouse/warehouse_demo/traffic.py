"""Traffic for the demo: when requests arrive is replayed from a real trace, what they carry is made here. All of it is
deterministic, so that every run can be held against the same expectations.
"""

from __future__ import annotations

import csv
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.load import Request

EXCERPT = Path(__file__).parents[1] / "traces" / "azure-llm-2023-code-excerpt.csv"
WINDOW_S = 90.0  # how much of a larger trace is replayed, around its busiest second

SENSORS = 6
READINGS_A_SENSOR = 140  # about 15 ms of processor time a batch
BATCHES_AN_HOUR = 4  # of the sensors' own time: an hour of theirs is a moment here
FIRST_HOUR = 490_896  # 2026-01-01, in hours since the epoch


@dataclass(frozen=True, slots=True)
class Traffic:
    """What will be sent, and what must come of it: the ids of all batches and of all picture tasks."""

    requests: tuple[Request, ...]
    batches: tuple[str, ...]
    tasks: tuple[str, ...]
    spike_at_s: float
    peak_rps: int

    def tasks_in(self, done: set[str]) -> bool:
        """Are all tasks among these?"""
        return done.issuperset(self.tasks)


def load_arrivals(path: Path) -> list[float]:
    """Seconds since the first arrival, in order, of a CSV whose first column is a timestamp."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        # Seven decimals in the traces; Python reads six.
        instants = sorted(datetime.fromisoformat(row[0][:26]).timestamp() for row in rows if row)
    if not instants:
        raise ValueError(f"{path}: no arrivals; expected a CSV whose first column is a timestamp")
    return [instant - instants[0] for instant in instants]


def busiest_window(arrivals: Sequence[float], span_s: float) -> list[float]:
    """The arrivals of a window with the busiest second in its middle, counted from the window's first."""
    middle_s = _busiest_second(arrivals) + 0.5
    inside = [at_s for at_s in arrivals if abs(at_s - middle_s) <= span_s / 2]
    return [at_s - inside[0] for at_s in inside]


def compress(arrivals: Sequence[float], seconds: float, peak_rps: float) -> list[float]:
    """The same shape within `seconds`, thinned evenly so that no second has more than about `peak_rps`."""
    factor = seconds / arrivals[-1] if arrivals[-1] > 0 else 1.0
    scaled = [at_s * factor for at_s in arrivals]
    keep = min(1.0, peak_rps / max(Counter(int(at_s) for at_s in scaled).values()))
    return [at_s for number, at_s in enumerate(scaled) if int((number + 1) * keep) > int(number * keep)]


def spike_start(arrivals: Sequence[float]) -> float:
    """The beginning of the second in which the climb to the busiest one begins: it has over a quarter of its rate."""
    rates = Counter(int(at_s) for at_s in arrivals)
    second = _busiest_second(arrivals)
    while rates[second - 1] > rates[_busiest_second(arrivals)] / 4:
        second -= 1
    return float(second)


def make_batch(number: int) -> tuple[str, int]:
    """A batch of readings as CSV, and how many pictures it names: every third batch one, of a sensor that works."""
    chance = random.Random(number)
    hour = FIRST_HOUR + number // BATCHES_AN_HOUR
    rate = 1.4 + math.sin(2 * math.pi * (hour % 24 - 8) / 24)
    lines = ["sensor,sku,minute,change,temperature_c,picture"]
    pictures = 0
    for sensor in range(SENSORS):
        sku = f"SKU-{(number * SENSORS + sensor) % 40:03d}"
        drift = 0.2 if sensor == SENSORS - 1 and number % 17 == 0 else 0.0  # °C a minute: to be rejected
        for reading in range(READINGS_A_SENSOR):
            change = round(rate * READINGS_A_SENSOR) if reading == 0 else -int(chance.random() * 2 * rate)
            celsius = 18 + drift * reading + chance.gauss(0, 0.3)
            picture = f"shelf-{number % 24:02d}.jpg" if number % 3 == 0 and sensor == 0 and reading == 0 else ""
            pictures += bool(picture)
            minute = hour * 60 + reading * 60 // READINGS_A_SENSOR
            lines.append(f"S{number % 50:02d}-{sensor},{sku},{minute},{change},{celsius:.2f},{picture}")
    return "\n".join(lines) + "\n", pictures


def make_traffic(arrivals: Sequence[float], seconds: float) -> Traffic:
    """One batch an arrival, and two bursts of people who open the report."""
    requests: list[Request] = []
    tasks: list[str] = []
    for number, at_s in enumerate(arrivals):
        name = f"batch-{number:05d}"
        body, pictures = make_batch(number)
        path = f"/ingest/readings/{name}"
        requests.append(Request(name, at_s, "PUT", path, body, {"content-type": "text/csv"}, idempotent=True))
        tasks += [f"{name}-{picture}" for picture in range(pictures)]
    batches = tuple(request.id for request in requests)
    requests += _reports(seconds)
    peak = max(Counter(int(at_s) for at_s in arrivals).values())
    requests.sort(key=lambda request: request.at_s)
    return Traffic(tuple(requests), batches, tuple(tasks), spike_start(arrivals), peak)


def _reports(seconds: float) -> Iterator[Request]:
    for burst, share in enumerate((0.25, 0.75)):
        for number in range(12):
            at_s = seconds * share + number * 0.05
            yield Request(f"report-{burst}-{number:02d}", at_s, "GET", "/reporting/report", idempotent=True)


def _busiest_second(arrivals: Sequence[float]) -> int:
    rates = Counter(int(at_s) for at_s in arrivals)
    return max(rates, key=lambda second: (rates[second], -second))
