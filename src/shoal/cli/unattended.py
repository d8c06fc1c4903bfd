"""What nobody does for an agent while no controller is there, in words: the same on every engine."""

from __future__ import annotations

from collections.abc import Iterator


def unattended(kind: str, wanted: int, work: str, *, routed: bool) -> Iterator[str]:
    """Of an agent of this kind with so many replicas. `work` is what only a controller does for those on this engine,
    `routed` whether a gateway runs."""
    if kind == "service" and not routed:
        yield "nothing routes requests to it"
    if kind == "job":
        yield "nobody runs it on schedule"
    elif kind == "removed":
        yield "nobody stops it"
    else:
        yield f"nobody {work} it" if wanted else "nobody wakes it"
