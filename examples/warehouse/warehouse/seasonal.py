"""A seasonal forecast by least squares: a trend, and harmonics of the day and of the week. Pure.

With less than two periods of data a season can't be told from a trend, so its harmonics are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_H = 24
WEEK_H = 7 * DAY_H
HARMONICS = 3
MIN_HOURS = 2 * DAY_H


class TooLittleData(ValueError):
    """Fewer hours than a daily season needs."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected values for the hours from `first_hour` on, and how far off the fit was on what is known (RMSE)."""

    first_hour: int
    values: tuple[float, ...]
    fit_error: float


def fit_and_forecast(hours: Sequence[int], values: Sequence[float], horizon_h: int = DAY_H) -> Forecast:
    """Fit all known hours (gaps are fine) and look `horizon_h` ahead. Raises TooLittleData."""
    known = np.asarray(hours, dtype=float)
    span_h = int(known.max() - known.min()) + 1 if len(known) else 0
    if span_h < MIN_HOURS or len(known) < MIN_HOURS // 2:
        raise TooLittleData(f"{len(known)} hours over a span of {span_h}; expected a span of {MIN_HOURS}")
    periods = [DAY_H] + ([WEEK_H] if span_h >= 2 * WEEK_H else [])
    start = known.min()
    observed = np.asarray(values, dtype=float)
    design = _design(known - start, periods)
    weights, *_ = np.linalg.lstsq(design, observed, rcond=None)
    first = int(known.max()) + 1
    ahead = _design(np.arange(first, first + horizon_h) - start, periods) @ weights
    fit_error = float(np.sqrt(np.mean((design @ weights - observed) ** 2)))
    return Forecast(first, tuple(float(value) for value in ahead), fit_error)


def _design(hours: NDArray[np.float64], periods: Sequence[int]) -> NDArray[np.float64]:
    columns = [np.ones_like(hours), hours]
    for period in periods:
        for harmonic in range(1, HARMONICS + 1):
            angle = 2 * np.pi * harmonic * hours / period
            columns += [np.sin(angle), np.cos(angle)]
    return np.column_stack(columns)
