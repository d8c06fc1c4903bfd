"""The decorator that makes a function a worker. What runs it, with asyncio and the broker, is loaded by `run`."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing does, whose import would take most of the time of this one
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, overload

    from shoal.sdk.task import Task

    Handler = Callable[[Task], Any]


class Worker:
    """A handler and how it is run. Calling it calls the handler, so that a test needs no broker."""

    def __init__(
        self,
        handler: Handler,
        *,
        queue: str | None = None,
        concurrency: int = 1,
        retry_delay_s: float = 1.0,
        retry_delay_max_s: float = 60.0,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; expected 1 or more")
        if retry_delay_s <= 0 or retry_delay_max_s < retry_delay_s:
            raise ValueError(
                f"retry_delay_s is {retry_delay_s}, retry_delay_max_s {retry_delay_max_s}; expected 0 < first <= second"
            )
        self.handler = handler
        self.queue = queue
        self.concurrency = concurrency
        self.retry_delay_s = retry_delay_s
        self.retry_delay_max_s = retry_delay_max_s
        self._stopping: asyncio.Event | None = None
        self._stopped = False

    def __call__(self, task: Task) -> Any:
        return self.handler(task)

    def run(self) -> None:
        """Works until SIGTERM or SIGINT, then drains and returns. For an agent that does nothing else.

        Draining: tasks not started are handed back at once, running ones may finish within the agent's
        `stop_grace_period`, what is left then is cancelled and handed back. Raises QueueError when the agent has no
        queue; a broker that is away is waited for.
        """
        from shoal.sdk.brokers import run_until_signal  # noqa: PLC0415 - light import

        run_until_signal(self)

    async def serve(self) -> None:
        """The same inside a running event loop, for an agent that also serves HTTP; `stop` makes it drain and return.

        Cancelling it hands everything back at once, running tasks too.
        """
        import asyncio  # noqa: PLC0415 - light import

        from shoal.sdk.brokers import consume  # noqa: PLC0415 - light import

        self._stopping = asyncio.Event()
        if self._stopped:
            self._stopping.set()
        await consume(self, self._stopping)

    def stop(self) -> None:
        """Begins to drain; to be called in the thread of the event loop. A worker that was stopped stays so."""
        self._stopped = True
        if self._stopping is not None:
            self._stopping.set()


if TYPE_CHECKING:

    @overload
    def worker(handler: Handler, /) -> Worker: ...
    @overload
    def worker(
        *,
        queue: str | None = None,
        concurrency: int = 1,
        retry_delay_s: float = 1.0,
        retry_delay_max_s: float = 60.0,
    ) -> Callable[[Handler], Worker]: ...


def worker(handler: Handler | None = None, /, **options: Any) -> Worker | Callable[[Handler], Worker]:
    """Makes `async def handle(task)` or `def handle(task)` a worker; the latter runs in a thread of its own.

    Returning acknowledges the task. Raising has it again after a growing, jittered delay (from `retry_delay_s`,
    doubled each time, up to `retry_delay_max_s`), and after the queue's `max_attempts` it goes to the dead letters.
    `concurrency` is how many tasks one replica works on at once; no more than that are ever fetched. `queue` is the
    agent's own queue unless given.
    """
    if handler is not None:
        return Worker(handler, **options)
    return lambda function: Worker(function, **options)
