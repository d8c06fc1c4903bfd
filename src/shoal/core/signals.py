"""What is known of an agent's demand at one instant: the autoscaler's input, made of samples by the sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reading:
    """A value over the whole agent and the epoch second it was true at."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Usage:
    """One replica's use: cores (mean over `window_s`) and resident bytes; of its GPUs, where it has some that tell, how
    many are busy (1.5: one and a half) and the memory used."""

    cpu_cores: float
    memory_bytes: int
    at: float
    window_s: float = 1.0
    gpus_busy: float | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Signals:
    """`None` means that nothing is known, which is not the same as zero.

    `concurrency` counts requests in flight and held, over all replicas; `rps` requests a second over all replicas;
    `p95_s` seconds; `queue_depth` tasks waiting or unacknowledged; `held` requests that wait for a first replica.
    `usage` is by replica id.
    """

    concurrency: Reading | None = None
    rps: Reading | None = None
    p95_s: Reading | None = None
    queue_depth: Reading | None = None
    held: int = 0
    usage: Mapping[str, Usage] = field(default_factory=dict[str, Usage])
