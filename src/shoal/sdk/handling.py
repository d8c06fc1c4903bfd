"""Calls a handler, whether it is a coroutine function or not, and turns every way of failing into a value."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

from shoal.sdk.task import Task


async def call_handler(handler: Callable[[Task], Any], task: Task) -> BaseException | None:
    """None when `handler` returned, else what it raised, SystemExit included: no task may end its worker.

    Raises CancelledError only when the caller was cancelled.
    """
    try:
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004 - asks for its kind
            await handler(task)
        else:
            result = await _in_thread(handler, task)
            if inspect.isawaitable(result):
                await result
    except asyncio.CancelledError as cancelled:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        return cancelled
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the failure of a task is a value here
        return error
    return None


async def _in_thread(handler: Callable[[Task], Any], task: Task) -> Any:
    """In a daemon thread: a handler that does not end in time must not keep a stopped process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return  # given up in the meantime
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = context.run(handler, task)
        except StopIteration as error:  # a future can't hold it
            failure = RuntimeError(f"the handler raised {error!r}")
        except BaseException as error:  # noqa: BLE001 - handed to the waiting coroutine
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    context = contextvars.copy_context()
    threading.Thread(target=run, name=f"task {task.id}", daemon=True).start()
    return await future
