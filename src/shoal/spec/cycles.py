"""Names that wait for each other in a circle. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def find_cycles(depends_on: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Each circle that is closed on the way through all names, as `a, b, a`: none means that there is no circle.
    Names that are no key depend on nobody. The answer follows the order of the mapping."""
    done: set[str] = set()
    for start in depends_on:
        way: dict[str, Iterator[str]] = {} if start in done else {start: iter(depends_on[start])}
        while way:
            last = next(reversed(way))
            following = next(way[last], None)
            if following is None:
                del way[last]
                done.add(last)
            elif following in way:
                steps = list(way)
                yield (*steps[steps.index(following) :], following)
            elif following not in done:
                way[following] = iter(depends_on.get(following, ()))
