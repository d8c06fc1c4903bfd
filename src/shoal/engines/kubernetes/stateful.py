"""How the replicas of a stateful agent are shared out among its revisions, when one of these gets another count. Pure.

One StatefulSet holds all ordinals from 0 on without a gap: the lowest are of the one revision, those above of the
other, which is rolled out. An ordinal in the middle is never empty: where the first gives one up, the second has it
at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.action import Scale
from shoal.errors import EngineError


def next_counts(there: Mapping[str, int], action: Scale) -> list[tuple[str, int]]:
    """By revision, the lowest ordinals first: at least one, at most two. `there` is in the same order. Raises
    EngineError where three revisions would have replicas."""
    counts = dict(there)
    others = [revision for revision, count in counts.items() if count and revision != action.revision]
    if len(others) > 1:
        raise EngineError(
            f"agents.{action.agent}: {' and '.join(others)} have replicas, so that {action.revision} has to wait until "
            "one of them has none"
        )
    if not others:
        return [(action.revision, action.count)]
    other = others[0]
    order = list(counts)
    lower = action.revision in order and order.index(action.revision) < order.index(other)
    if action.count == 0:
        return [(other, counts[other])]
    if not lower:
        return [(other, counts[other]), (action.revision, action.count)]
    given_up = max(0, counts[action.revision] - action.count)
    return [(action.revision, action.count), (other, counts[other] + given_up)]
