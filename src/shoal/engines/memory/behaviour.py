"""How the replicas of the memory engine behave, as a value that a test or a simulation sets by agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shoal.core.template import Template


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens to a replica or a run that starts under it. Later changes touch only what starts later.

    `start_s`: until its process runs (PENDING before); `ready_s`: from then until it is ready; `stop_s`: how long it
    is STOPPING; `never_ready`: it runs and stays unready; `crash_after_s`: each life ends by itself that long after
    its start, with `exit_code`. `job_s`: how long an attempt of a job lasts, `None`: until `finish_run` says;
    `job_exit_code`: how it ends then.
    """

    start_s: float = 0.0
    ready_s: float = 0.0
    stop_s: float = 0.0
    never_ready: bool = False
    crash_after_s: float | None = None
    exit_code: int = 1
    job_s: float | None = 1.0
    job_exit_code: int = 0


Behaviours = Behaviour | Callable[[Template], Behaviour]  # one for all, or asked for each replica that is made


def behaviour_for(behaviours: Behaviours, template: Template) -> Behaviour:
    """The behaviour of one replica or run of this template."""
    return behaviours if isinstance(behaviours, Behaviour) else behaviours(template)


def backoff_s(restarts: int) -> float:
    """How long a replica that ended by itself waits: 0.5 s, doubled by each restart, at most 60 s."""
    return min(60.0, 0.5 * 2.0 ** min(restarts, 10))
