"""What a test needs and this machine may not have: it is skipped, or fails where SHOAL_REQUIRE names it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_without(need: str, reason: str) -> NoReturn:
    """A test can't run for want of a `swarm`, a `kubernetes`, a `rabbitmq`."""
    if need in os.environ.get("SHOAL_REQUIRE", "").split(","):
        pytest.fail(f"SHOAL_REQUIRE={need}, but {reason}", pytrace=False)
    pytest.skip(reason)
