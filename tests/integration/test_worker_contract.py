"""`docs/workers.md` is enough to write a worker from: the program on that page is run as it stands there."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from queues_broker import Nats, WorkerProcess, a_fleet, depth, environment, running, until

from shoal.sdk import publish

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Nats]:
    async with running(Nats(tmp_path, a_fleet(ack_wait_s=3.0, max_attempts=2))) as broker:
        yield broker


async def test_the_worker_on_the_page_works(broker: Nats) -> None:
    """It does its tasks once, keeps a long one alive, buries a poisoned one, and drains on SIGTERM."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    bare = WorkerProcess(broker.directory, "bare", broker.environment("worker"), program)
    try:
        with environment(broker.environment("front")):
            await publish("images", "0", id="quick")
            await publish("images", "5", id="long")
            await publish("images", "poison", id="poisoned")

        async def all_answered() -> bool:
            return await depth(broker) == 0

        await until(all_answered, "an empty queue")
        (letter,) = await broker.admin.peek("images", dead=True)
        assert (letter.id, letter.payload, letter.reason) == ("poisoned", "poison", "ValueError('poison')")
        bare.stop(signal.SIGTERM)
        assert await bare.ended() == 0, bare.log.read_text()
    finally:
        bare.stop()
    done = [line for line in bare.log.read_text().splitlines() if line.startswith("work ")]
    assert sorted(done) == ["work long", "work poisoned", "work poisoned", "work quick"]
