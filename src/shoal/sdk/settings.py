"""What Shoal tells an agent about its queues, read from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal.sdk.task import QueueError

GRACE_PERIOD_S = 10.0  # as the spec's default, for a worker that runs without Shoal


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """One queue on JetStream: `url` with the agent's credentials, and JetStream's names for the queue."""

    queue: str
    url: str
    stream: str
    consumer: str
    subject: str

    @property
    def dead_subject(self) -> str:
        return f"{self.subject}.dead"


@dataclass(frozen=True, slots=True)
class RabbitMqSettings:
    """One queue on RabbitMQ: `url` without credentials, which are in the file `credentials` where there is one; `name`
    of the queue, which is its routing key at `exchange` too."""

    queue: str
    url: str
    name: str
    exchange: str
    max_attempts: int
    ack_wait_s: float
    credentials: Path | None = None

    @property
    def dead_name(self) -> str:
        return f"{self.name}.dead"


def read_queue_settings(environment: Mapping[str, str], queue: str | None) -> QueueSettings | RabbitMqSettings:
    """The settings of `queue`, or of the queue that the agent consumes. Raises QueueError when it is not declared."""
    name = queue or environment.get("SHOAL_QUEUE")
    if not name:
        raise QueueError("this agent has no queue: SHOAL_QUEUE is not set; add `queue: NAME` to the agent")
    prefix = "SHOAL_QUEUE_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    if environment.get(f"{prefix}_URL", "").startswith(("amqp:", "amqps:")):
        values = _read(environment, name, prefix, ("URL", "NAME", "EXCHANGE", "MAX_ATTEMPTS", "ACK_WAIT_S"))
        secret = environment.get(f"{prefix}_SECRET")
        return RabbitMqSettings(
            name, values["URL"], values["NAME"], values["EXCHANGE"], int(values["MAX_ATTEMPTS"]),
            float(values["ACK_WAIT_S"]), Path(environment.get("SHOAL_SECRETS", "."), secret) if secret else None,
        )  # fmt: skip
    values = _read(environment, name, prefix, ("URL", "STREAM", "CONSUMER", "SUBJECT"))
    return QueueSettings(name, values["URL"], values["STREAM"], values["CONSUMER"], values["SUBJECT"])


def _read(environment: Mapping[str, str], name: str, prefix: str, keys: Sequence[str]) -> dict[str, str]:
    values = {key: environment.get(f"{prefix}_{key}", "") for key in keys}
    missing = [f"{prefix}_{key}" for key, value in values.items() if not value]
    if missing:
        raise QueueError(
            f"queue {name!r} is not declared by this agent: {', '.join(missing)} not set; "
            f"add `queue: {name}` to consume it or `publishes: [{name}]` to send to it"
        )
    return values


def read_grace_period_s(environment: Mapping[str, str]) -> float:
    """Seconds from SIGTERM until running tasks are given up: a little before the engine kills the process."""
    text = environment.get("SHOAL_STOP_GRACE_PERIOD_S", "")
    try:
        period_s = float(text) if text else GRACE_PERIOD_S
    except ValueError:
        raise QueueError(f"SHOAL_STOP_GRACE_PERIOD_S is {text!r}; expected a number of seconds") from None
    return max(0.0, period_s - min(2.0, period_s * 0.2))
