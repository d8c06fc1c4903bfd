"""Judges the values of a merged document, each on its own, and says what is wrong as people would.

Agents are judged one by one, so that what is wrong in one keeps nothing of the others from being judged. An agent that
is partly wrong is kept without its wrong keys: what can still be said of it is said at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shoal.spec.block import Model
from shoal.spec.model import Agent, Broker, External, Fleet, Queue, Registry, SecretSource
from shoal.spec.nodes import Key, Loc
from shoal.spec.suggestions import close_name
from shoal.spec.values import shown

M = TypeVar("M", bound=Model)

_PATTERNS: Mapping[tuple[str, str], str] = {
    ("health", "path"): "a path that starts with /, such as /healthz",
    ("public", "path"): "a path that starts with /, such as /ingest",
    ("public", "host"): "a host name in lower case, such as api.example.com",
    ("sticky", "header"): "the name of a header, such as x-session",
    ("sticky", "cookie"): "the name of a cookie",
    ("*", "image"): "the name of an image, such as acme/warehouse:1.4",
    ("*", "url"): "an address such as https://api.example.com",
    ("*", "namespace"): "small letters, digits and hyphens",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at `loc`. `key`: its key is what is wrong, not its value. `about`: the keys of the agent that it
    rests on; if one of them is wrong in itself, this says nothing new."""

    loc: Loc
    message: str
    remedy: str = ""
    key: bool = False
    about: tuple[str, ...] = ()


@dataclass(slots=True)
class Draft:
    """What could be made of a document. `names` are all names, `broken` the wrong keys by agent."""

    agents: dict[str, Agent] = field(default_factory=dict[str, Agent])
    queues: dict[str, Queue] = field(default_factory=dict[str, Queue])
    brokers: dict[str, Broker] = field(default_factory=dict[str, Broker])
    external: dict[str, External] = field(default_factory=dict[str, External])
    registries: dict[str, Registry] = field(default_factory=dict[str, Registry])
    secrets: dict[str, SecretSource] = field(default_factory=dict[str, SecretSource])
    rest: dict[str, Any] = field(default_factory=dict[str, Any])
    broken: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    names: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    findings: list[Finding] = field(default_factory=list[Finding])


def validate_values(data: Mapping[str, Any]) -> Draft:
    """Everything of `data` that holds, and everything that does not. `data` has the keys of `Fleet` alone."""
    draft = Draft()
    rest = dict(data)
    _part(draft, rest, "agents", Agent, draft.agents)
    _part(draft, rest, "queues", Queue, draft.queues)
    _part(draft, rest, "brokers", Broker, draft.brokers)
    _part(draft, rest, "external", External, draft.external)
    _part(draft, rest, "registries", Registry, draft.registries)
    _part(draft, rest, "secrets", SecretSource, draft.secrets)
    if not draft.names["agents"] and "agents" not in {finding.loc[0] for finding in draft.findings}:
        draft.findings.append(Finding(("agents",), "there are no agents; expected at least one", key=True))
    try:
        Fleet.model_validate({**rest, "agents": {}})
    except ValidationError as error:
        wrong = list(_translated(error, ()))
        draft.findings += wrong
        rest = {key: value for key, value in rest.items() if key not in {finding.loc[0] for finding in wrong}}
    draft.rest = rest
    return draft


def _part(draft: Draft, rest: dict[str, Any], name: str, model: type[M], into: dict[str, M]) -> None:
    """Judges the blocks of one of the fleet's maps."""
    blocks = rest.pop(name, {})
    if not isinstance(blocks, dict):
        draft.findings.append(Finding((name,), f"found {shown(blocks)}; expected a mapping of names to blocks"))
        blocks = {}
    entries = cast("dict[str, Any]", blocks)
    draft.names[name] = frozenset(entries)
    for key, block in entries.items():
        value, findings = _judged(model, block, (name, key))
        draft.findings += findings
        if value is not None:
            into[key] = value
        if findings and name == "agents":
            draft.broken[key] = frozenset(str(finding.loc[2]) for finding in findings if len(finding.loc) > 2)


def _judged(model: type[M], block: Any, loc: Loc) -> tuple[M | None, list[Finding]]:
    """The value, without its wrong keys if there are any; None if nothing is left that makes sense."""
    try:
        return model.model_validate(block), []
    except ValidationError as error:
        findings = list(_translated(error, loc))
    wrong = {finding.loc[len(loc)] for finding in findings if len(finding.loc) > len(loc)}
    if not isinstance(block, dict) or len(wrong) < len({finding.loc for finding in findings if finding.loc == loc}):
        return None, findings
    kept = {key: value for key, value in cast("dict[str, Any]", block).items() if key not in wrong}
    try:
        return model.model_validate(kept), findings
    except ValidationError:
        return None, findings


def _translated(error: ValidationError, above: Loc) -> Iterator[Finding]:
    """The findings in an error, one a place."""
    seen: set[Loc] = set()
    for detail in error.errors(include_url=False):
        loc = (*above, *_keys(detail["loc"]))
        if loc not in seen:
            seen.add(loc)
            yield _finding(detail, loc)


def _keys(loc: tuple[int | str, ...]) -> Iterator[Key]:
    """The way without what pydantic adds for its own use: the tags of unions, and a map's key as its own value."""
    for step in loc:
        if isinstance(step, int) or not (step.startswith(("function-", "tuple[", "constrained-")) or step == "[key]"):
            yield step


def _finding(detail: ErrorDetails, loc: Loc) -> Finding:
    kind, context, found = detail["type"], detail.get("ctx", {}), shown(detail["input"])
    remedy = ""
    if kind == "missing":
        return Finding(loc, f"the key `{loc[-1]}` is missing")
    if kind in _BOUNDS:
        bound, spoken = _BOUNDS[kind]
        expected = f"{spoken} {_spoken(loc, context[bound])}"
    elif kind == "literal_error":
        expected = f"one of {context['expected'].replace(' or ', ', ')}".replace("'", "")
        choices = [choice.strip() for choice in expected.removeprefix("one of ").split(",")]
        close = close_name(str(detail["input"]), choices)
        expected = f"`{choices[0]}`" if len(choices) == 1 else expected
        remedy = f"did you mean {close}?" if close else ""
    elif kind == "value_error":
        return Finding(loc, str(context["error"]))
    elif kind == "string_pattern_mismatch":
        name = str(loc[-1])
        expected = _PATTERNS.get((str(loc[-2]) if len(loc) > 1 else "", name)) or _PATTERNS.get(("*", name), "")
    else:
        expected = _wanted(kind, context)
    return Finding(loc, f"found {found}; expected {expected}", remedy)


def _wanted(kind: str, context: Mapping[str, Any]) -> str:
    if kind in ("model_type", "dict_type", "mapping_type", "model_attributes_type"):
        return "a mapping of keys to values"
    if kind in ("tuple_type", "list_type"):
        return "a list"
    if kind in ("string_type", "string_too_short"):
        return "text"
    if kind in ("too_short", "too_long"):
        return f"at {'least' if kind == 'too_short' else 'most'} {context.get('min_length', context.get('max_length'))}"
    if kind == "string_too_long":
        return f"at most {context.get('max_length')} characters"
    return kind.replace("_", " ")


def _spoken(loc: Loc, bound: float) -> str:
    """A bound in the unit that people write it in."""
    return "4Mi" if loc[-1] == "memory" and bound == 4 * 2**20 else f"{bound:g}"
