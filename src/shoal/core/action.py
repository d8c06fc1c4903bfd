"""What control asks of an engine. Each is idempotent: said twice, it is done once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.core.observed import CountOwner
from shoal.core.template import Template
from shoal.spec.scaling import Scale as ScaleSpec


@dataclass(frozen=True, slots=True)
class EnsureRevision:
    """Make the revision known, with no replica yet if it is new.

    `environment` is what Shoal adds for this engine (SHOAL_URL_*, SHOAL_QUEUE_*): not part of the revision, so a
    replica that runs keeps what it was started with.
    """

    agent: str
    revision: str
    template: Template
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Scale:
    """Set how many replicas a revision has. `victims` are the ids to stop, drained already, where the engine lets us
    choose; elsewhere it is empty. `taken_from` is who had the count when this was decided, and loses it: from nobody
    else it is taken."""

    agent: str
    revision: str
    count: int
    victims: tuple[str, ...] = ()
    taken_from: CountOwner | None = None


@dataclass(frozen=True, slots=True)
class Autoscale:
    """Hand the count of a revision over to the engine's own autoscaler, with these bounds, targets and behaviour;
    without a revision take it back, so that it sets no count any more."""

    agent: str
    revision: str | None = None
    rules: ScaleSpec = field(default_factory=ScaleSpec)


@dataclass(frozen=True, slots=True)
class RunJob:
    """Run a job once under this id, repeating up to `retries` failed attempts; an id that ran does not run again."""

    agent: str
    revision: str
    run_id: str
    timeout_s: float | None = None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a revision, or with `None` the agent, stopping what is left of it."""

    agent: str
    revision: str | None = None


Action = EnsureRevision | Scale | Autoscale | RunJob | Remove


@dataclass(frozen=True, slots=True)
class ActionFailure:
    """One action that did not work; the others of the same call were still tried. Without a reason it was decided on
    what does not hold any more: it is decided again, and nobody is told."""

    action: Action
    reason: str
