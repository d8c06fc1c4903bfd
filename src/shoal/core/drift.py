"""What somebody else changed of a fleet where it runs, as values: what an engine found, for a plan to say, and for `up`
to put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Drift:
    """One field of one object. `path` is empty where the object itself is gone; `wanted` is None where Shoal says
    nothing of it; `by` is who, as far as the engine knows it, and `at` when (epoch seconds). `agent` is whose replicas
    are made from it: a change there is put back by new ones."""

    where: str
    path: str
    found: Any = None
    wanted: Any = None
    by: str = ""
    at: float | None = None
    agent: str | None = None
