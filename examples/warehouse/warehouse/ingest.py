"""ingest: takes batches of sensor readings, tells inventory what changed, and sends pictures on to be worked on.

`PUT /readings/{batch}` names its batch, and all that follows from it carries a name made of it; so a batch that is
sent twice (a retry after a replica died) has its effects once. That is why shoal.yaml declares PUT as idempotent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, ClientTimeout
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shoal.sdk import close, publish

from .readings import BadBatch, Batch, parse_batch
from .sink import record

INVENTORY_TIMEOUT_S = 20.0


async def put_readings(request: Request) -> Response:
    """Accept one batch, or say what is wrong with it."""
    name = request.path_params["batch"]
    body = await request.body()
    try:
        # Some 15 ms in the event loop itself. A thread would only fight it for the interpreter's lock, also between
        # the head and the body of other answers, where a replica that dies can't be made up for any more. It is
        # replicas that make this parallel.
        batch = parse_batch(body, request.headers.get("content-type", "text/csv"))
    except BadBatch as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    async with asyncio.TaskGroup() as group:
        group.create_task(tell_inventory(request.app.state.session, name, batch))
        group.create_task(publish_pictures(name, batch))
    record("request", name)
    return JSONResponse({"accepted": len(batch.readings), "drifting": batch.drifting})


async def tell_inventory(session: ClientSession, name: str, batch: Batch) -> None:
    """No retry here: the gateway behind this address repeats what inventory declares idempotent."""
    async with session.put(f"{os.environ['SHOAL_URL_INVENTORY']}/changes/{name}", json=batch.changes) as answer:
        answer.raise_for_status()


async def publish_pictures(name: str, batch: Batch) -> None:
    """One task a picture; the queue drops a task whose id it has seen."""
    for number, (sku, picture) in enumerate(batch.pictures):
        await publish("image_tasks", {"sku": sku, "picture": picture}, id=f"{name}-{number}")


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with ClientSession(timeout=ClientTimeout(INVENTORY_TIMEOUT_S)) as session:
        app.state.session = session
        yield
        await close()


app = Starlette(
    routes=[Route("/readings/{batch}", put_readings, methods=["PUT"]), Route("/healthz", healthz)], lifespan=lifespan
)
