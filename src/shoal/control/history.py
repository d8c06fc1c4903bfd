"""What the fleet was before: the revisions of each agent and the last generations, so that both can be undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from shoal.core.plan import changed_paths
from shoal.core.revision import revision_of, template_of
from shoal.spec.model import Agent, Fleet

REVISIONS_KEPT = 10  # an agent, and as many generations of the fleet


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """One revision of an agent as it was resolved. `generation` is the last one that brought it; `digests` are the
    HMACs of its secrets' contents by name; `changes` the keys in which it differs from the one before it."""

    agent: str
    revision: str
    generation: int
    at: float
    by: str
    spec: Agent
    nonce: str = ""
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    changes: tuple[str, ...] = ()
    what: str = ""


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """A fleet as it was stored once, with all that makes its revisions."""

    generation: int
    at: float
    by: str
    fleet: Fleet
    nonces: Mapping[str, str] = field(default_factory=dict[str, str])
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    what: str = ""


def new_revisions(before: StoredGeneration | None, after: StoredGeneration) -> Iterator[StoredRevision]:
    """The revisions that a generation brings: those that the one before did not have."""
    for name, spec in after.fleet.agents.items():
        revision = _revision(after, name)
        old = before.fleet.agents.get(name) if before is not None else None
        if before is not None and old is not None and _revision(before, name) == revision:
            continue
        digests = {secret.name: after.digests.get(secret.name, "") for secret in spec.secrets}
        changes = () if before is None or old is None else tuple(_changes(name, old, spec, before, after))
        nonce = after.nonces.get(name, "")
        yield StoredRevision(
            name, revision, after.generation, after.at, after.by, spec, nonce, digests, changes, after.what
        )


def _revision(stored: StoredGeneration, name: str) -> str:
    return revision_of(template_of(stored.fleet, name, stored.digests, stored.nonces.get(name, "")))


def _changes(name: str, old: Agent, new: Agent, before: StoredGeneration, after: StoredGeneration) -> Iterator[str]:
    yield from changed_paths(old, new)
    both = sorted({secret.name for secret in old.secrets} & {secret.name for secret in new.secrets})
    for secret in both:
        if before.digests.get(secret) != after.digests.get(secret):
            yield f"secrets.{secret}"
    if before.nonces.get(name, "") != after.nonces.get(name, ""):
        yield "restart"
