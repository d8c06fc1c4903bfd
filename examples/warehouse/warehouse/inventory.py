"""inventory: the one agent with state, kept on its volume. The others tell it what happened and ask it what there is.

SQLite answers in well under a millisecond, so the handlers call it straight from the event loop.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .sink import record
from .stock import Stock


def volume() -> Path:
    """Where the volume `stock` is: `/data` in a container, elsewhere on a machine without containers."""
    return Path(os.environ.get("SHOAL_VOLUME_STOCK", "/data"))


async def put_changes(request: Request) -> Response:
    name = request.path_params["request"]
    applied = stock(request).apply(name, await request.json())
    if applied:
        record("stock", name)
    return JSONResponse({"applied": applied})


async def put_picture(request: Request) -> Response:
    kept = stock(request).keep_picture(request.path_params["task"], await request.json())
    return JSONResponse({"kept": kept})


async def put_forecast(request: Request) -> Response:
    stock(request).keep_forecast(await request.json())
    return JSONResponse({})


async def get_forecast(request: Request) -> Response:
    forecast = stock(request).forecast()
    return JSONResponse(forecast, status_code=404 if forecast is None else 200)


async def get_stock(request: Request) -> Response:
    return JSONResponse({"units": stock(request).units(), "pictures": stock(request).pictures()})


async def get_demand(request: Request) -> Response:
    return JSONResponse(stock(request).demand())


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


def stock(request: Request) -> Stock:
    return request.app.state.stock


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.stock = Stock(volume() / "stock.sqlite")
    yield
    app.state.stock.close()


app = Starlette(
    routes=[
        Route("/changes/{request}", put_changes, methods=["PUT"]),
        Route("/pictures/{task}", put_picture, methods=["PUT"]),
        Route("/forecast", put_forecast, methods=["PUT"]),
        Route("/forecast", get_forecast),
        Route("/stock", get_stock),
        Route("/demand", get_demand),
        Route("/healthz", healthz),
    ],
    lifespan=lifespan,
)
