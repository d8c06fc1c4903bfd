"""One error tree, so that a caller catches what it can handle and prints the rest as it stands.

    ShoalError
    ├── SpecError              the file can't be used: every problem at once
    ├── PlanError              the file is fine, but this engine can't do it
    ├── EngineError            the engine refused or failed
    │   ├── EngineUnavailable  the engine can't be reached at all
    │   └── Outdated           what was to be done was decided on what does not hold any more
    ├── GatewayError           Envoy or the gateway process refused or failed
    ├── BrokerError            a queue's broker refused or failed
    ├── StoreError             the state can't be read or written
    │   ├── Conflict           somebody else changed it first
    │   └── NewerState         written by a newer Shoal
    ├── IdentityError          a key, certificate or token that can't be used, or is not let in
    ├── ControllerUnavailable  no controller answers
    └── NotFound               no such agent, job, queue or task

A message says where, what was found, what was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class ShoalError(Exception):
    """The root. `str(error)` is fit to be shown to a person as it stands."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file: 1-based line and column, as editors count."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a spec.

    `path` is the dotted key (`agents.ingest.port`), `remedy` says what to do (may be empty).
    """

    place: Place | None
    path: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        path = f"{self.path}: " if self.path else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{path}{self.message}{remedy}"


class SpecError(ShoalError):
    """The spec can't be used; `problems` holds every reason, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PlanError(ShoalError):
    """The spec is valid, but can't be carried out on this engine."""


class EngineError(ShoalError):
    """The engine refused or failed."""


class EngineUnavailable(EngineError):
    """The engine can't be reached."""


class Outdated(EngineError):
    """What was to be done was decided on what does not hold any more: it is nobody's failure, and decided again."""


class GatewayError(ShoalError):
    """Envoy or the gateway process refused or failed."""


class BrokerError(ShoalError):
    """A queue's broker refused or failed."""


class StoreError(ShoalError):
    """The state can't be read or written."""


class Conflict(StoreError):
    """Somebody else changed the state first."""


class NewerState(StoreError):
    """The state was written by a newer Shoal."""


class IdentityError(ShoalError):
    """A key, certificate or token can't be used, or its holder may not do this."""


class ControllerUnavailable(ShoalError):
    """No controller answers."""


class NotFound(ShoalError):
    """No such agent, job, queue or task."""


def error_of_kind(kind: str, message: str) -> ShoalError:
    """The error that another process told of by its class's name; a ShoalError where this version has no such class."""
    if kind == SpecError.__name__:
        return SpecError([Problem(None, "", message)])
    return _kinds(ShoalError).get(kind, ShoalError)(message)


def _kinds(root: type[ShoalError]) -> dict[str, type[ShoalError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _kinds(child)
    return found


def no_such_agent(name: str, known: Iterable[str]) -> NotFound:
    """The error for a name that no agent of the fleet has."""
    return NotFound(f"no agent {name!r} in this fleet; {likely_meant(name, known)}")


def no_such_queue(name: str, known: Iterable[str]) -> NotFound:
    """The error for a name that no queue of the fleet has."""
    there = sorted(known)
    makes = "an agent with `queue` or `publishes` makes one"
    return NotFound(f"no queue {name!r} in this fleet; {likely_meant(name, there) if there else makes}")


def likely_meant(name: str, known: Iterable[str]) -> str:
    """What is close to a name that is not there, else all that are."""
    from difflib import get_close_matches  # noqa: PLC0415 - for the rare case

    there = sorted(known)
    near = get_close_matches(name, there, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there) or 'none'}"
