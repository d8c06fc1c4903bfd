"""The forecast against signals whose future is known."""

import math

import numpy as np
import pytest

from examples.warehouse.warehouse.seasonal import DAY_H, TooLittleData, fit_and_forecast


def daily(hour: int) -> float:
    return 100 + 0.1 * hour + 40 * math.sin(2 * math.pi * hour / DAY_H) + 10 * math.cos(4 * math.pi * hour / DAY_H)


def test_a_daily_season_is_found_to_the_digit() -> None:
    """Without noise, trend and harmonics are recovered exactly."""
    forecast = fit_and_forecast(range(72), [daily(hour) for hour in range(72)])
    assert forecast.first_hour == 72
    assert forecast.values == pytest.approx([daily(hour) for hour in range(72, 96)])
    assert forecast.fit_error < 1e-6


def test_noise_and_gaps_leave_the_forecast_close() -> None:
    """With noise of 5 and a third of the hours missing, a day ahead is off by less than 5 (RMSE)."""
    random = np.random.default_rng(1)
    hours = [hour for hour in range(24 * 10) if hour % 3]
    forecast = fit_and_forecast(hours, [daily(hour) + random.normal(0, 5) for hour in hours])
    truth = [daily(hour) for hour in range(forecast.first_hour, forecast.first_hour + 24)]
    assert np.sqrt(np.mean((np.array(forecast.values) - truth) ** 2)) < 5


def test_a_week_is_used_once_two_are_known() -> None:
    """A weekly season shows in the forecast after two weeks of data."""

    def weekly(hour: int) -> float:
        return 50 + 20 * math.sin(2 * math.pi * hour / 168)

    forecast = fit_and_forecast(range(336), [weekly(hour) for hour in range(336)], horizon_h=168)
    assert forecast.values == pytest.approx([weekly(hour) for hour in range(336, 504)])


@pytest.mark.parametrize("hours", [[], list(range(40)), [0, 100]])
def test_too_little_is_said_rather_than_guessed(hours: list[int]) -> None:
    """Less than two days, or hardly any hours of them, is an error of its own."""
    with pytest.raises(TooLittleData):
        fit_and_forecast(hours, [1.0] * len(hours))
