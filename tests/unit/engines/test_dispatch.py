"""Who carries out an action."""

from __future__ import annotations

from typing import NoReturn

import pytest

from shoal.core.action import Autoscale
from shoal.engines.dispatch import carry_out
from shoal.errors import EngineError


def test_an_engine_without_an_autoscaler_takes_no_count_over() -> None:
    """It says so, and makes no agent for it."""

    def make(name: str) -> NoReturn:
        raise AssertionError(name)

    with pytest.raises(EngineError, match="no autoscaler"):
        carry_out(Autoscale("web", "r1"), {}, make)
