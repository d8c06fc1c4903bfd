"""forecasting: a job that fits the season of demand and leaves the result with inventory, where reporting looks."""

from __future__ import annotations

import sys
from dataclasses import asdict

from . import inventory_client
from .seasonal import TooLittleData, fit_and_forecast
from .sink import record


def main() -> int:
    """Run once. Too little data is no failure: the next run will have more."""
    demand = inventory_client.get("/demand") or []
    # The newest hour is still being filled.
    known = demand[:-1]
    try:
        forecast = fit_and_forecast([hour for hour, _ in known], [units for _, units in known])
    except TooLittleData as error:
        print(f"no forecast yet: {error}")
        return 0
    inventory_client.put("/forecast", asdict(forecast))
    record("forecast", str(forecast.first_hour))
    print(f"forecast from hour {forecast.first_hour}, off by {forecast.fit_error:.1f} units an hour so far")
    return 0


if __name__ == "__main__":
    sys.exit(main())
