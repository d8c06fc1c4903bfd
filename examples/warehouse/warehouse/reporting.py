"""reporting: what there is and how long it will last. Asked seldom and in bursts, so it sleeps at zero replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from . import inventory_client

LOWEST = 5


def get_report(_: Request) -> Response:
    """A plain function: Starlette runs it in a thread, as it waits for inventory."""
    return JSONResponse(make_report(inventory_client.get("/stock"), inventory_client.get("/forecast")))


def make_report(stock: Mapping[str, Any], forecast: Mapping[str, Any] | None) -> dict[str, Any]:
    """The report on one page. Without a forecast yet, it says nothing of the future."""
    units: Mapping[str, int] = stock["units"]
    expected = sum(forecast["values"]) if forecast else None
    return {
        "units": sum(units.values()),
        "pictures": stock["pictures"],
        "lowest": sorted(units, key=lambda sku: units[sku])[:LOWEST],
        "expected_demand": round(expected) if expected is not None else None,
        "days_left": round(sum(units.values()) / expected, 1) if expected and expected > 0 else None,
    }


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/report", get_report), Route("/healthz", healthz)])
