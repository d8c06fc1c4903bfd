"""The queue campaign in small: kill -9 of broker and workers loses no task, and none runs after its acknowledgement."""

from __future__ import annotations

import pytest

from bench.queue_faults import judge, run_campaign
from bench.queue_faults_agents import ACKNOWLEDGED, PUBLISHED, RAN, RECORD

TASKS, KILLS = 2_000, 3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kills_lose_nothing_and_repeat_nothing_that_is_acknowledged(seed: int) -> None:
    """What the workers did stands in a file of a process that nobody kills."""
    campaign = run_campaign(TASKS, KILLS, seed, concurrency=16)
    assert campaign.broker_kills + campaign.worker_kills >= KILLS
    assert campaign.verdict.published == TASKS
    assert campaign.verdict.holds, campaign


def test_the_judge_sees_each_fault() -> None:
    """Lost, run after the acknowledgement, run twice before it, run without having been published."""
    records = [
        (PUBLISHED, 0, 1.0),
        *((PUBLISHED, 1, 1.0), (RAN, 1, 2.0), (ACKNOWLEDGED, 1, 3.0), (RAN, 1, 4.0)),
        *((PUBLISHED, 2, 1.0), (RAN, 2, 2.0), (RAN, 2, 2.5), (ACKNOWLEDGED, 2, 3.0)),
        (RAN, 3, 1.0),
    ]
    verdict = judge(b"".join(RECORD.pack(*record) for record in records))
    assert (verdict.lost, verdict.again, verdict.twice, verdict.unasked) == (1, 1, 1, 1)
    assert not verdict.holds
    assert judge(b"".join(RECORD.pack(*record) for record in records[5:9])).holds
    assert not judge(b"", left=1).holds
