"""Where each value of a resolved fleet came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from shoal.errors import Place
from shoal.spec.nodes import Block, Items, Loc, Node, dotted, nearest


@dataclass(frozen=True, slots=True)
class Origin:
    """`place` None: nobody wrote it, it is the default. `layer` says what brought the file in (`environment prod`,
    `env_file`), `variables` which variables were put in: pairs of a name and of where its value came from."""

    place: Place | None
    layer: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.place is None:
            return "default"
        notes = [self.layer] if self.layer else []
        notes += [f"{name} from {source}" for name, source in self.variables]
        return f"{self.place} ({', '.join(notes)})" if notes else str(self.place)


DEFAULT = Origin(None)


@dataclass(frozen=True, slots=True)
class Origins:
    """Asked by the way to a value: `("agents", "ingest", "scale", "max")`, with indexes for lists."""

    tree: Node

    def of(self, loc: Loc) -> Origin:
        """Where the value at `loc` of the resolved document came from."""
        node, found = nearest(self.tree, loc)
        # What stands in a list that was written as one text (`command: a b`) is from that text.
        if not found and isinstance(node, (Block, Items)):
            return DEFAULT
        return Origin(node.spot.place, node.spot.layer, node.spot.variables)

    def items(self, document: Mapping[str, object]) -> Iterator[tuple[str, object, Origin]]:
        """Every single value of a resolved document (`Fleet.to_document()`): its dotted path, itself, its origin."""
        yield from self._below(document, ())

    def _below(self, value: object, loc: Loc) -> Iterator[tuple[str, object, Origin]]:
        if isinstance(value, Mapping) and value:
            for key, inner in cast("Mapping[str, object]", value).items():
                yield from self._below(inner, (*loc, key))
        elif isinstance(value, (list, tuple)) and value:
            for index, inner in enumerate(cast("list[object]", value)):
                yield from self._below(inner, (*loc, index))
        else:
            yield dotted(loc), value, self.of(loc)
