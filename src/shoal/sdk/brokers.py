"""Which broker a queue is on is in its URL. Each broker's client is loaded when its first queue is met."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping

from shoal.sdk.settings import RabbitMqSettings, read_grace_period_s, read_queue_settings
from shoal.sdk.worker import Worker


def run_until_signal(worker: Worker) -> None:
    """Serves in an event loop of its own until SIGTERM or SIGINT."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        try:
            await worker.serve()
        finally:
            await close_links()

    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main())


async def consume(worker: Worker, stopping: asyncio.Event) -> None:
    """Works until `stopping` is set, then drains. Raises QueueError when the agent has no such queue."""
    settings, grace_s = read_queue_settings(os.environ, worker.queue), read_grace_period_s(os.environ)
    if isinstance(settings, RabbitMqSettings):
        from shoal.sdk.rabbitmq.consuming import Consumption as OnRabbitMq  # noqa: PLC0415 - light import

        await OnRabbitMq(worker, settings, grace_s).serve(stopping)
    else:
        from shoal.sdk.jetstream.consuming import Consumption as OnJetStream  # noqa: PLC0415 - light import

        await OnJetStream(worker, settings, grace_s).serve(stopping)


async def send_task(queue: str, payload: bytes, *, id: str | None, headers: Mapping[str, str], timeout_s: float) -> str:
    """As `shoal.sdk.publish`."""
    settings = read_queue_settings(os.environ, queue)
    if isinstance(settings, RabbitMqSettings):
        from shoal.sdk.rabbitmq import sending as on_rabbitmq  # noqa: PLC0415 - light import

        return await on_rabbitmq.send_task(settings, payload, id=id, headers=headers, timeout_s=timeout_s)
    from shoal.sdk.jetstream import sending as on_jetstream  # noqa: PLC0415 - light import

    return await on_jetstream.send_task(settings, payload, id=id, headers=headers, timeout_s=timeout_s)


async def close_links() -> None:
    """Closes this event loop's connections."""
    for broker in ("jetstream", "rabbitmq"):
        sending = sys.modules.get(f"shoal.sdk.{broker}.sending")
        if sending is not None:
            await sending.close_links()
