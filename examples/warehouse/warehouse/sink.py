"""Effects, written down by the agents themselves and apart from Shoal, so that losses and repeats can be counted.

One JSON object a line, appended by a single write (atomic on a local file system), so many replicas share one file.
Without `WAREHOUSE_SINK` nothing is recorded: the agents don't depend on it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that was done: `kind` and `id` say what, `replica` by which replica, `at` (epoch seconds) when."""

    kind: str
    id: str
    replica: str
    at: float


def record(kind: str, identity: str) -> None:
    """Say that the effect is there. Call it last, when nothing can go wrong any more."""
    path = os.environ.get("WAREHOUSE_SINK")
    if not path:
        return
    replica = os.environ.get("SHOAL_REPLICA", str(os.getpid()))
    effect = Effect(kind, identity, replica, time.time())
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(asdict(effect)).encode() + b"\n")
    finally:
        os.close(file)


def read_effects(path: Path) -> Iterator[Effect]:
    """Everything recorded so far, in the order of writing; a line that is just being written is left for later."""
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield Effect(**json.loads(line))
