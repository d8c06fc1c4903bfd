"""What Shoal tells an agent about its queues, read from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.sdk.task import QueueError

GRACE_PERIOD_S = 10.0  # as the spec's default, for a worker that runs without Shoal


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """One queue's address: `url` with the agent's credentials, and JetStream's names for the queue."""

    queue: str
    url: str
    stream: str
    consumer: str
    subject: str

    @property
    def dead_subject(self) -> str:
        return f"{self.subject}.dead"


def read_queue_settings(environment: Mapping[str, str], queue: str | None) -> QueueSettings:
    """The settings of `queue`, or of the queue that the agent consumes. Raises QueueError when it is not declared."""
    name = queue or environment.get("SHOAL_QUEUE")
    if not name:
        raise QueueError("this agent has no queue: SHOAL_QUEUE is not set; add `queue: NAME` to the agent")
    prefix = "SHOAL_QUEUE_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    values = {key: environment.get(f"{prefix}_{key}", "") for key in ("URL", "STREAM", "CONSUMER", "SUBJECT")}
    missing = [f"{prefix}_{key}" for key, value in values.items() if not value]
    if missing:
        raise QueueError(
            f"queue {name!r} is not declared by this agent: {', '.join(missing)} not set; "
            f"add `queue: {name}` to consume it or `publishes: [{name}]` to send to it"
        )
    return QueueSettings(name, values["URL"], values["STREAM"], values["CONSUMER"], values["SUBJECT"])


def read_grace_period_s(environment: Mapping[str, str]) -> float:
    """Seconds from SIGTERM until running tasks are given up: a little before the engine kills the process."""
    text = environment.get("SHOAL_STOP_GRACE_PERIOD_S", "")
    try:
        period_s = float(text) if text else GRACE_PERIOD_S
    except ValueError:
        raise QueueError(f"SHOAL_STOP_GRACE_PERIOD_S is {text!r}; expected a number of seconds") from None
    return max(0.0, period_s - min(2.0, period_s * 0.2))
