"""The fleet's status as it changes, for commands that stay.

An engine that is no single machine starts controllers itself: one that is killed, moved or replaced has a next one
within seconds, and that goes on where the last one was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from shoal.errors import ControllerUnavailable

if TYPE_CHECKING:
    from shoal.api.views import StatusView
    from shoal.cli.place import Place

_NEXT_S = 30.0  # until there is a next one, if there will be one
_AGAIN_S = 0.5
_SILENT_S = 10.0  # a controller tells something each second: this one's machine is gone, without a word


async def watch(place: Place) -> AsyncGenerator[StatusView]:
    """The fleet as it is now, then again whenever something changed; ends with the controller, on a shared place with
    the last of them. Raises ControllerUnavailable where there was none."""
    client = place.client()
    seen_at: float | None = None
    now = asyncio.get_running_loop().time
    while True:
        try:
            async with aclosing(client.watch()) as views:
                while (view := await _next(views, place)) is not None:
                    seen_at = now()
                    yield view
        except ControllerUnavailable:
            if seen_at is None or not place.shared:
                raise
        if seen_at is None or not place.shared or now() - seen_at > _NEXT_S:
            return
        await asyncio.sleep(_AGAIN_S)


async def _next(views: AsyncGenerator[StatusView, None], place: Place) -> StatusView | None:
    try:
        async with asyncio.timeout(_SILENT_S if place.shared else None):
            return await anext(views, None)
    except TimeoutError:
        raise ControllerUnavailable(f"the controller of {place.fleet} has fallen silent") from None
