"""ingest: takes batches of sensor readings, tells inventory what changed, and sends pictures on to be worked on.

`PUT /readings/{batch}` names its batch, and all that follows from it carries a name made of it; so a batch that is
sent twice (a retry after a replica died) has its effects once. That is why shoal.yaml declares PUT as idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shoal.sdk import close, publish

from . import inventory_client
from .readings import BadBatch, Batch, parse_batch
from .sink import record

# One thread parses, so that batches take turns and the event loop still answers health checks meanwhile.
parser = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parse")


async def put_readings(request: Request) -> Response:
    """Accept one batch, or say what is wrong with it."""
    name = request.path_params["batch"]
    body, content_type = await request.body(), request.headers.get("content-type", "text/csv")
    try:
        batch = await asyncio.get_running_loop().run_in_executor(parser, parse_batch, body, content_type)
    except BadBatch as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(inventory_client.put, f"/changes/{name}", batch.changes))
        group.create_task(publish_pictures(name, batch))
    record("request", name)
    return JSONResponse({"accepted": len(batch.readings), "drifting": batch.drifting})


async def publish_pictures(name: str, batch: Batch) -> None:
    """One task a picture; the queue drops a task whose id it has seen."""
    for number, (sku, picture) in enumerate(batch.pictures):
        await publish("image_tasks", {"sku": sku, "picture": picture}, id=f"{name}-{number}")


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    yield
    await close()


app = Starlette(
    routes=[Route("/readings/{batch}", put_readings, methods=["PUT"]), Route("/healthz", healthz)], lifespan=lifespan
)
