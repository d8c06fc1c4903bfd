"""What all replicas of one local engine share: the directory, what the machine offers, and how patient we are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shoal.core.template import SecretUse
from shoal.engines.local.census import Census
from shoal.engines.local.gpus import Gpus
from shoal.engines.local.instant import Instant
from shoal.engines.local.layout import Layout
from shoal.engines.local.ports import Ports
from shoal.engines.local.process import boot_id


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, bytes and counts that tests make smaller.

    `probe_s`: between two probes of a replica that has just started; `settled_s`: until a replica without a port is
    taken for ready; `well_s`: a replica that ran so long starts its back-off anew, as in Docker; `wrong_port_s`: how
    long an unready replica is left alone before Shoal looks where it listens; `housekeeping_s`: between two looks at
    the logs' sizes, `lively_s` at those that have just grown; `follow_s`: between two looks of who follows a log;
    `limits_s`: between two looks at memory and processes; `most_tasks`: processes and threads that a replica may
    have.
    """

    probe_s: float = 0.01
    settled_s: float = 1.0
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    well_s: float = 10.0
    wrong_port_s: float = 3.0
    housekeeping_s: float = 1.0
    lively_s: float = 0.2
    follow_s: float = 0.1
    limits_s: float = 0.25
    most_tasks: int = 4096
    log_bytes: int = 10 * 1024 * 1024
    logs_kept: int = 3


@dataclass(slots=True)
class Machine:
    """Where and with what replicas run. `base` is the environment that every replica begins with; it, `labels` and
    `project_directory` may change with the fleet, for what starts later. `secrets` gives the content that a template
    names, `mask` takes secrets out of what a replica wrote; `memory` is where `in_memory` puts what a replica has
    there."""

    fleet: str
    layout: Layout
    project_directory: Path
    base: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Callable[[SecretUse], bytes]
    mask: Callable[[str], str]
    memory: Path | None
    ports: Ports
    gpus: Gpus
    timing: Timing
    clock: Callable[[], float]
    census: Census = field(default_factory=Census)

    @property
    def now(self) -> Instant:
        """What deadlines are counted by; `clock` is for people."""
        return Instant(time.monotonic(), boot_id())

    def backoff_after(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 and up)."""
        return min(self.timing.backoff_max_s, self.timing.backoff_s * 2.0 ** min(failures - 1, 20))
