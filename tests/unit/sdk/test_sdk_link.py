"""The connection to the broker: what is lost with it, and in which moment. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from shoal.sdk.jetstream.link import Link
from shoal.sources.jetstream_api import JetStreamApi
from tests.simulation.virtual_time import run_virtually


class Silent:
    """A client that is connected, to a broker that answers nothing."""

    is_connected, is_closed = True, False

    async def request(self, *_: object, **__: object) -> None:
        await asyncio.sleep(3600)


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Runs what never waits."""
    with pytest.raises(StopIteration):
        work.send(None)


def lost_at(loss_s: float, subject: Link | JetStreamApi, asking: Coroutine[Any, Any, object]) -> tuple[float, bool]:
    """When a request to a silent broker fails whose connection is lost at that time, and whether the loss was noted."""
    noted: list[bool] = []

    def lose() -> None:
        at_once(subject._on_disconnected())
        noted.append(True)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        subject._client = Silent()  # type: ignore[assignment]
        loop.call_at(loss_s, lose)
        with pytest.raises(Exception, match=r"^$|no answer"):
            await asking
        await asyncio.sleep(0)
        return loop.time()

    return run_virtually(run()), bool(noted)


@pytest.mark.parametrize(
    ("loss_s", "failed_s"),
    [(1.0, 1.0), (5.0 + 1e-10, 5.0)],  # the second one in the very turn of the loop in which the request times out
)
def test_an_answer_is_lost_with_its_connection(loss_s: float, failed_s: float) -> None:
    """Whoever waits for one is told at once; whoever gives up in that moment keeps nobody from connecting again."""
    link, api = Link("nats://127.0.0.1:1", "w"), JetStreamApi("nats://127.0.0.1:1")
    asked = lost_at(loss_s, link, link.request("x", b"", timeout_s=5.0))
    assert asked == (pytest.approx(failed_s), True)
    assert lost_at(loss_s, api, api.call("INFO")) == (pytest.approx(failed_s), True)
