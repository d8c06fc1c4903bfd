"""A resolved fleet as people could have written it: what means nothing for an agent's kind is left out, and each `$` is
written so that it is read as itself. What is made here, read again, is the same fleet. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from shoal.spec.agent_checks import NOT_OF_JOBS, OF_JOBS, OF_SERVICES
from shoal.spec.interpolation import is_runtime_variable
from shoal.spec.model import Agent, Fleet, Kind

# In a command these stand for themselves: `$NAME`, and what only the start of a replica gives its value.
_KEPT_IN_COMMAND = re.compile(r"\$(?:(?P<bare>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\})")


def writable_document(fleet: Fleet) -> dict[str, Any]:
    """The fleet by the keys that people write, defaults spelled out where they mean something; values as they are."""
    document = fleet.to_document()
    del document["spec_version"]
    for name, agent in fleet.agents.items():
        written = document["agents"][name]
        for key in _meaningless(agent):
            del written[key]
        if agent.stateful:
            del written["update"]["max_surge"], written["update"]["max_unavailable"]
    return cast("dict[str, Any]", _without_empty(document))


def escaped(value: Any, *, command: bool = False) -> Any:
    """A document with each `$` written as the reader takes it for itself; `command`: it is the text of a command."""
    if isinstance(value, str):
        return _escaped_command(value) if command else value.replace("$", "$$")
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {
            key: escaped(each, command=key == "command" and isinstance(each, list)) for key, each in entries.items()
        }
    if isinstance(value, list):
        return [escaped(each, command=command) for each in cast("list[Any]", value)]
    return value


def _escaped_command(text: str) -> str:
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        kept = _KEPT_IN_COMMAND.match(text, dollar)
        if kept is not None and (kept["bare"] or is_runtime_variable(kept["braced"])):
            parts += (text[at:dollar], kept[0])
            at = kept.end()
        else:
            parts += (text[at:dollar], "$$")
            at = dollar + 1
    return "".join([*parts, text[at:]])


def _meaningless(agent: Agent) -> frozenset[str]:
    """The keys that an agent of this kind can't have."""
    if agent.kind is Kind.SERVICE:
        return frozenset(OF_JOBS.values())
    if agent.kind is Kind.WORKER:
        return frozenset((*OF_SERVICES.values(), *OF_JOBS.values()))
    return frozenset((*OF_SERVICES.values(), *NOT_OF_JOBS))


def _without_empty(value: object) -> object:
    """Without the keys that hold nothing, or nothing any more."""
    if isinstance(value, Mapping):
        inner = {key: _without_empty(each) for key, each in cast("Mapping[str, object]", value).items()}
        return {key: each for key, each in inner.items() if each is not None and each not in ({}, [])}
    if isinstance(value, (list, tuple)):
        return [_without_empty(each) for each in cast("list[object]", value)]
    return value
