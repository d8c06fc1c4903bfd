"""The values of secrets on their way from their sources into the fleet's state, and nowhere else.

Which one counts: a value given by `shoal secret set` stands until its source says something else than it said when it
was last looked at; any other is what its source says now. Where the source says nothing, what is stored stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shoal.cli.secret_sources import Sources, Unusable, refuse_content
from shoal.control.store import SecretRecord
from shoal.core.masking import Mask
from shoal.errors import Problem, SpecError

if TYPE_CHECKING:
    from shoal.cli.place import Contents, Place
    from shoal.spec import Loaded
    from shoal.spec.model import Fleet


@dataclass(frozen=True, slots=True)
class Choice:
    """What one secret is to hold: `content`, or with `None` what `kept` names. `source` is what its source says."""

    content: bytes | None = field(default=None, repr=False)
    kept: SecretRecord | None = None
    source: bytes | None = field(default=None, repr=False)
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """All that a fleet needs. `changed` are the names of those that get another content than they had."""

    by_name: Mapping[str, Choice] = field(default_factory=dict[str, Choice])
    changed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def choose_secrets(
    loaded: Loaded,
    fleet: Fleet,
    asked: Collection[str],
    stored: Mapping[str, SecretRecord],
    contents: Contents,
    sources: Sources,
) -> Choices:
    """What the secrets of `fleet` are to hold. Sources are looked at for the agents in `asked` alone, where there are
    any. Raises SpecError naming every secret that has no value, where the file asks for it, and how to give it one."""
    chosen: dict[str, Choice] = {}
    changed: set[str] = set()
    notes: list[str] = []
    problems: list[Problem] = []
    for name, users in _users(fleet).items():
        record = stored.get(name)
        if record is not None and not contents.has(name, record.digest):
            record = None  # its content is lost
        looked_at = not asked or not users.isdisjoint(asked) or record is None
        found = sources.read(name) if looked_at and name in _users(loaded.fleet) else None
        wrong = found if isinstance(found, Unusable) else None
        if isinstance(found, bytes):
            wrong = refuse_content(found, as_variable=_is_variable(fleet, name))
        if wrong is not None or (found is None and record is None):
            problems.append(_problem(loaded, fleet, name, wrong))
            continue
        assert not isinstance(found, Unusable)
        choice = _choose(found, record, contents, looked_at=looked_at)
        chosen[name] = choice
        if choice.content is not None and record is not None and contents.digest(choice.content) != record.digest:
            changed.add(name)
        notes += _notes(name, fleet, choice)
    if problems:
        raise SpecError(problems)
    unused = {name: Choice(kept=record) for name, record in stored.items() if name not in chosen and record.by_hand}
    return Choices({**chosen, **unused}, frozenset(changed), tuple(notes))


async def store_choices(contents: Contents, choices: Choices, by: str) -> dict[str, SecretRecord]:
    """Puts the contents where the controller finds them, and gives the records that name them."""
    records: dict[str, SecretRecord] = {}
    for name, choice in choices.by_name.items():
        source = "" if choice.source is None else contents.digest(choice.source)
        if choice.content is None:
            assert choice.kept is not None
            records[name] = choice.kept
            continue
        digest = await contents.put(name, choice.content)
        if choice.kept is not None and choice.kept.digest == digest:
            records[name] = replace(choice.kept, by_hand=choice.by_hand, source_digest=source)
        else:
            given = choice.kept.source_digest if choice.by_hand and choice.kept is not None else None
            records[name] = SecretRecord(digest, time.time(), by, choice.by_hand, given if choice.by_hand else source)
    return records


def digests_of(contents: Contents, choices: Choices) -> dict[str, str]:
    """The HMACs of what the secrets are to hold, by name."""
    kept = {name: choice.kept.digest for name, choice in choices.by_name.items() if choice.kept is not None}
    new = {name: choice.content for name, choice in choices.by_name.items() if choice.content is not None}
    return kept | {name: contents.digest(content) for name, content in new.items()}


def known_contents(choices: Choices) -> dict[str, bytes]:
    """What the secrets are to hold, by name, of those of which that is not only stored."""
    return {name: choice.content for name, choice in choices.by_name.items() if choice.content is not None}


def mask_for(contents: Contents, choices: Choices) -> Callable[[str], str]:
    """Takes out of a text what the secrets are to hold, what their sources do, and what is kept of what they held."""
    found = [each for choice in choices.by_name.values() for each in (choice.content, choice.source)]
    mask = Mask(content for content in found if content is not None)
    return lambda text: contents.mask(mask.apply(text))


async def forget_secrets(place: Place, *, all_of_them: bool = False) -> None:
    """After `down` nothing needs them, unless somebody was quick to start the fleet again. What was given by `shoal
    secret set` has no other home, and stays unless `all_of_them`."""
    from shoal.cli.stored_fleet import generation_of, read_with_secrets, write_secrets

    stored, records = await read_with_secrets(place)
    if stored is not None and stored.fleet is not None:
        return
    kept = {name: record for name, record in records.items() if record.by_hand and not all_of_them}
    await write_secrets(place, kept, generation_of(stored), records)
    contents = await place.contents()
    await contents.prune({record.digest for record in kept.values()})


def _choose(found: bytes | None, record: SecretRecord | None, contents: Contents, *, looked_at: bool) -> Choice:
    if record is None:
        return Choice(found, source=found)
    if not looked_at:
        return Choice(kept=record)
    if found is None:  # a variable that somebody has not set says nothing of the value that others have set
        return Choice(kept=replace(record, source_digest=record.source_digest or ""))
    source = contents.digest(found)
    if record.by_hand and record.source_digest in (None, source) and source != record.digest:
        return Choice(kept=replace(record, source_digest=source), source=found)
    return Choice(found, kept=record, source=found)


def _notes(name: str, fleet: Fleet, choice: Choice) -> Iterator[str]:
    if choice.content is None and choice.source is not None and choice.kept is not None and choice.kept.by_hand:
        yield (
            f"the secret {name} keeps what `shoal secret set` gave it; its source holds something else, and has not "
            "changed since"
        )
    if choice.content is not None and choice.content.endswith(b"\n") and _is_variable(fleet, name):
        yield f"the secret {name} ends with a newline, which its variable has too"


def _users(fleet: Fleet) -> dict[str, frozenset[str]]:
    users: dict[str, frozenset[str]] = {}
    for agent, spec in fleet.agents.items():
        for secret in spec.secrets:
            users[secret.name] = users.get(secret.name, frozenset()) | {agent}
    for broker in fleet.brokers.values():
        if broker.secret is not None:
            users.setdefault(broker.secret, frozenset())  # Shoal itself needs it
    for registry in fleet.registries.values():
        users.setdefault(registry.secret, frozenset())
    return users


def _is_variable(fleet: Fleet, name: str) -> bool:
    return any(
        secret.name == name and secret.as_ == "env" for agent in fleet.agents.values() for secret in agent.secrets
    )


def _problem(loaded: Loaded, fleet: Fleet, name: str, wrong: Unusable | None) -> Problem:
    """Where the file says the source, else where it first asks for the secret."""
    loc: tuple[str | int, ...] = ("secrets", name)
    brokers = [key for key, broker in {**fleet.brokers, **loaded.fleet.brokers}.items() if broker.secret == name]
    registries = [key for key, each in {**fleet.registries, **loaded.fleet.registries}.items() if each.secret == name]
    if name not in loaded.fleet.secrets and brokers:
        loc = ("brokers", brokers[0], "secret")
    elif name not in loaded.fleet.secrets and registries:
        loc = ("registries", registries[0], "secret")
    elif name not in loaded.fleet.secrets:
        loc = next(
            ("agents", agent, "secrets", index)
            for agent, spec in {**fleet.agents, **loaded.fleet.agents}.items()
            for index, secret in enumerate(spec.secrets)
            if secret.name == name
        )
    place = loaded.origins.of(loc).place
    path = ".".join(str(step) for step in loc if not isinstance(step, int))
    if wrong is not None:
        return Problem(place, path, f"the secret {name} can't be had: {wrong.why}", wrong.remedy)
    remedy = (
        f"set the variable {name}, or write it into .env beside the file; or say under `secrets` which file, variable "
        f"or command has it; or give it by `shoal secret set {name}`"
    )
    return Problem(place, path, f"the secret {name} has no value", remedy)
