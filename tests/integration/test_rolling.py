"""The rolling campaign in small: a replacement and its undo under load. `make soak` has fifty of each."""

from __future__ import annotations

import asyncio

from bench.rolling import run


async def test_a_replacement_and_its_undo_fail_nothing() -> None:
    """Every request is answered and every stream goes on to its end, while all replicas change twice."""
    campaign = await asyncio.to_thread(run, 1, 100.0, 10, 2, lambda line: None)
    assert campaign.requests["ok"] > 500 and campaign.streams["whole"] >= 10
    assert campaign.failed == 0, (campaign.requests, campaign.streams, campaign.seen)
