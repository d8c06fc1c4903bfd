"""Which agents a change brings back to the version that serves anyway, as the one after it was given up. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.record import AgentRecord
from shoal.core.revision import revision_of, template_of
from shoal.core.rollout import RolloutPhase
from shoal.spec.model import Fleet


def find_returning(
    fleet: Fleet, digests: Mapping[str, str], nonces: Mapping[str, str], records: Mapping[str, AgentRecord]
) -> frozenset[str]:
    """The agents of the new `fleet` whose revision is the one that a failed rollout left serving. `digests` are those
    of its secrets, by name."""
    return frozenset(
        name
        for name in fleet.agents
        if (stable := _left_serving(records.get(name))) is not None
        and stable == revision_of(template_of(fleet, name, digests, nonces.get(name, "")))
    )


def _left_serving(record: AgentRecord | None) -> str | None:
    rollout = record.rollout if record is not None else None
    return rollout.stable if rollout is not None and rollout.phase is RolloutPhase.FAILED else None
