"""What agents call to send tasks. asyncio's and the broker's modules are loaded by the first call."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing does, whose import would take most of the time of this one
if TYPE_CHECKING:
    from collections.abc import Mapping


async def publish(
    queue: str,
    payload: object,
    *,
    id: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> str:
    """Sends a task to `queue` and returns its id once the broker has it safe.

    `payload` is sent as it is when it is bytes, as UTF-8 when it is text, else as JSON. `id` is the idempotency key: a
    second task of the same id within two minutes is dropped by the broker; None makes one up. Raises QueueError when
    the queue is not declared under `publishes`, when the broker refuses the task (too large, disk full), or when it
    did not confirm within `timeout_s` seconds; then the task may still have arrived, so send it again with its id.
    """
    from shoal.sdk.brokers import send_task  # noqa: PLC0415 - light import

    return await send_task(queue, encode_payload(payload), id=id, headers=headers or {}, timeout_s=timeout_s)


async def close() -> None:
    """Closes the connections that `publish` opened in this event loop. `Worker.run` does it by itself."""
    from shoal.sdk.brokers import close_links  # noqa: PLC0415 - light import

    await close_links()


def encode_payload(payload: object) -> bytes:
    """Bytes as they are, text as UTF-8, everything else as JSON. Raises TypeError for what JSON can't say."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    import json  # noqa: PLC0415 - light import

    return json.dumps(payload).encode()
