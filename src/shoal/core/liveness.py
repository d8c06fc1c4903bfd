"""When a replica that stops answering is started anew: one rule for all engines.

The gateway sends it nothing after `retries` misses in a row, and asks on. A start helps one that hangs, and harms one
that is only slow: where a node is busy, all replicas on it miss their checks at once, and starting all of them takes
away the rest of what served, on a node that has less to give than before. So that takes many more misses.
"""

from __future__ import annotations

_PATIENCE = 5  # at the defaults of `health`: out of traffic after 6 s, started anew after 30 s


def restarts_after(retries: int) -> int:
    """How many misses in a row are the end of a replica that was ready before."""
    return retries * _PATIENCE
