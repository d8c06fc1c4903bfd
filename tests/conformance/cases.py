"""The cases of this suite as values: which there are, and which an engine says that it can't pass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shoal.engines.protocol import Ability, Capabilities, Support

_NOT_ENFORCED = (Support.ADVISORY, Support.IMPOSSIBLE)
_SENTENCE = re.compile(r"\.(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: its name in words, the sentence that it holds, and the features that an engine has to enforce."""

    name: str
    rule: str
    features: tuple[str, ...]


def why_impossible(features: Iterable[str], capabilities: Capabilities) -> str | None:
    """The reason why a case that needs these features can't pass on an engine; `None` where it has to."""
    for feature in features:
        ability = capabilities.table.get(feature, Ability(Support.IMPOSSIBLE, "not among its capabilities"))
        if ability.support in _NOT_ENFORCED:
            return f"{feature} is {ability.support}: {ability.note}"
    return None


def enforced(marks: Iterable[pytest.Mark]) -> tuple[str, ...]:
    """The features that marks `enforces` name."""
    return tuple(feature for mark in marks if mark.name == "enforces" for feature in mark.args)


def modules() -> Iterator[ModuleType]:
    """The files of cases, by name."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        yield import_module(f"{__package__}.{path.stem}")


def cases(module: ModuleType) -> Iterator[Case]:
    """The cases of one file, in their order there. Raises ValueError for one that does not say what it holds."""
    for name, function in vars(module).items():
        if name.startswith("test_") and "bed" in inspect.signature(function).parameters:
            yield Case(name.removeprefix("test_").replace("_", " "), _rule(function), enforced(_marks(function)))


def _rule(function: Callable[..., Any]) -> str:
    words = inspect.getdoc(function)
    if not words:
        raise ValueError(f"{function.__module__}.{function.__name__} has no docstring; expected the rule that it holds")
    return _SENTENCE.split(" ".join(words.split()))[0]


def _marks(function: Callable[..., Any]) -> Iterable[pytest.Mark]:
    return getattr(function, "pytestmark", ())
