"""What a bed that is up was made of, kept in its directory: there is one of a name at a time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from testbed.commands import BedError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Shape = TypeVar("Shape", bound="DataclassInstance")


@dataclass(frozen=True)
class ShapeFile(Generic[Shape]):
    """One bed's. `module` is whose verbs end it."""

    path: Path
    kind: type[Shape]
    module: str

    def read(self) -> Shape | None:
        """None where the bed is not up."""
        try:
            return self.kind(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None

    def write(self, shape: Shape | None) -> None:
        """Keeps it, or forgets it."""
        if shape is None:
            self.path.unlink(missing_ok=True)
        else:
            self.path.write_text(json.dumps(asdict(shape), indent=1))

    def choose(self, asked: Shape | None) -> Shape:
        """The one that is up, else what was asked for, else the usual one. Raises BedError where another one is up."""
        there = self.read()
        if there is not None and asked is not None and asked != there:
            raise BedError(
                f"one bed of a name at a time: {self.path.parent.name} is up ({there}), and another one was asked for "
                f"({asked}); take it down first: python -m {self.module} down"
            )
        return there or asked or self.kind()
