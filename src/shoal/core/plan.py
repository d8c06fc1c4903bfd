"""What putting a new fleet in the place of the old one would do, before anything is done. Pure.

A change of an agent is *live* (nothing restarts), *rolling* (new replicas take over from old ones) or *recreate* (old
replicas go before new ones come, because what they keep or what they are changes).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

from shoal.core.drift import Drift
from shoal.core.ownership import is_native, scaled_by_shoal
from shoal.core.rabbitmq import RabbitMqQueue, rabbitmq_queues, used_outside
from shoal.errors import PlanError
from shoal.spec.model import Agent, Broker, Fleet, Kind
from shoal.spec.volumes import parse_volume

ChangeClass = Literal["create", "recreate", "rolling", "live", "remove"]
FieldChange = tuple[str, Any, Any]  # the dotted path below the agent, the old value, the new one

HIDDEN = "(hidden)"
SECRET_CONTENT = "(content)"
RESTART = "restart"
_LIVE = frozenset(
    (
        "scale", "update", "public", "idempotent", "max_requests", "request_timeout", "sticky", "schedule", "timeout",
        "retries", "depends_on",
    )
)  # fmt: skip
_IDENTITY = frozenset(("stateful", "volumes"))
_SENSITIVE = re.compile(r"SECRET|TOKEN|PASSW|PRIVATE|CREDENTIAL|API_?KEY|ACCESS_?KEY|(?:^|_)KEY$|AUTH", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_OF_FLEET = (
    "queues", "brokers", "external", "registries", "secrets", "local", "swarm", "kubernetes", "gateway", "metrics",
    "docker_context", "context", "namespace",
)  # fmt: skip
# A capability's key, where it is shorter than the way to the value in the spec.
_FEATURES: Mapping[str, str] = {"gpu": "resources.gpu", "memory": "resources.memory", "cpu": "resources.cpu"}


class Ability(Protocol):
    """How an engine supports one feature: `support` is `native`, `by Shoal`, `advisory` or `impossible`."""

    @property
    def support(self) -> str: ...

    @property
    def note(self) -> str: ...


class Capabilities(Protocol):
    """What an engine can do; `table` is by dotted keys of the spec (`agents.calls`, `agents.gpu`)."""

    @property
    def engine(self) -> str: ...

    @property
    def runs_images(self) -> bool: ...

    @property
    def table(self) -> Mapping[str, Ability]: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One agent's change; `agent` None is the fleet itself. `kind` is the inferred kind, empty for the fleet.
    `one_by_one`: replicas are replaced in the order of their ordinals, each stopped before its successor starts;
    `returns`: it goes back to a version that still serves, because the one after it was given up."""

    agent: str | None
    class_: ChangeClass
    fields: tuple[FieldChange, ...] = ()
    kind: str = ""
    one_by_one: bool = False
    returns: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes by agent, the fleet's own first; `drift` is what somebody else changed where the fleet runs, which `up`
    puts back; `notes` say what the engine can't do, or does not enforce."""

    fleet: str
    engine: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything would change."""
        return bool(self.changes or self.drift)


def make_plan(
    old: Fleet | None,
    new: Fleet,
    capabilities: Capabilities,
    changed_secrets: Collection[str] = (),
    restarted: Collection[str] = (),
    messages: Mapping[str, int] | None = None,
    returning: Collection[str] = (),
    mask: Callable[[str], str] = str,
) -> Plan:
    """What would change from `old` (None: nothing runs) to `new` on the engine with these `capabilities`.

    `changed_secrets` are names of secrets whose content differs from what runs, `restarted` those of agents that get
    new replicas though nothing of them differs; `messages` is how many tasks and dead letters the broker has, by queue,
    as far as that is known; `returning` names those that go back to a version that still serves. `mask` takes what
    secrets hold out of a text: it is never in a plan, nor are the values of variables that look like one. Raises
    PlanError if the engine can't run the fleet.
    """
    _refuse_impossible(old, new, capabilities)
    changes = [*_fleet_changes(old, new)]
    before: Mapping[str, Agent] = old.agents if old is not None else {}
    for name in sorted({*before, *new.agents}):
        moved = tuple(_moved_queues(old, new, name))
        change = _agent_change(name, before.get(name), new.agents.get(name), changed_secrets, name in restarted, moved)
        if change is not None:
            changes.append(_returned(change) if name in returning else change)
    return Plan(
        new.fleet,
        new.engine,
        tuple(replace(change, fields=_masked_fields(change.fields, mask)) for change in changes),
        (
            *_first_starts(before, new.agents),
            *_notes(new, capabilities),
            *_scaling(new),
            *_outside_brokers(new),
            *_kept_queues(old, new, messages or {}),
            *_kept_volumes(old, new),
        ),
    )


def _refuse_impossible(old: Fleet | None, new: Fleet, capabilities: Capabilities) -> None:
    if old is not None and old.fleet != new.fleet:
        raise PlanError(f"fleet: found {new.fleet}, but {old.fleet} runs here (end it first: shoal down)")
    if old is not None and old.engine != new.engine:
        raise PlanError(
            f"engine: found {new.engine}, but {old.fleet} runs on {old.engine}; a fleet doesn't move between engines "
            "(end it there first: shoal down)"
        )
    reasons: list[str] = []
    for name, agent in new.agents.items():
        if not capabilities.runs_images and agent.command is None:
            reasons.append(
                f"agents.{name}: found the image {agent.image} and no command; on the {capabilities.engine} engine "
                "agents are started by their command (give it a `command`, or choose an engine that runs images: "
                "swarm, kubernetes)"
            )
        elif new.engine != "local" and agent.image is None:
            reasons.append(
                f"agents.{name}: found no image; the {new.engine} engine runs agents in containers (give it an `image`,"
                " or give one for the whole fleet)"
            )
    if reasons:
        raise PlanError("\n".join(reasons))


def _fleet_changes(old: Fleet | None, new: Fleet) -> Iterator[Change]:
    if old is None:
        return
    before, after = (fleet.model_dump(mode="json", by_alias=True, include=set(_OF_FLEET)) for fleet in (old, new))
    fields = tuple(_differences(before, after))
    shown = tuple(each for each in fields if not _is_implicit(each[0], old, new))
    if fields:
        yield Change(None, "live", shown or fields)


def _is_implicit(path: str, old: Fleet, new: Fleet) -> bool:
    """Whether it is of the broker that comes and goes with queues, and that nobody wrote."""
    section, _, below = path.partition(".")
    name = below.partition(".")[0]
    return section == "brokers" and all(fleet.brokers.get(name, Broker()) == Broker() for fleet in (old, new))


def changed_paths(old: Agent, new: Agent) -> tuple[str, ...]:
    """The dotted keys in which two versions of an agent differ, but for those that restart nothing."""
    return tuple(
        path for path, _, _ in _differences(_document(old), _document(new)) if path.partition(".")[0] not in _LIVE
    )


def keep_live(old: Agent, now: Agent) -> Agent:
    """The old version of an agent with what restarts nothing (scale, routes, limits) as it is now."""
    live = {key: value for key, value in now.model_dump(mode="json", by_alias=True).items() if key in _LIVE}
    return Agent.model_validate({**old.model_dump(mode="json", by_alias=True), **live})


def _agent_change(
    name: str,
    old: Agent | None,
    new: Agent | None,
    changed_secrets: Collection[str],
    restarts: bool,
    moved: tuple[FieldChange, ...],
) -> Change | None:
    if new is None:
        return Change(name, "remove", (), old.kind.value if old else "")
    if old is None:
        written = new.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return Change(name, "create", tuple(_differences({}, written)), new.kind.value)
    fields: list[FieldChange] = []
    if old != new:
        fields += _differences(_document(old), _document(new))
    renewed = sorted({secret.name for secret in new.secrets} & {secret.name for secret in old.secrets})
    fields += ((f"secrets.{secret}", SECRET_CONTENT, SECRET_CONTENT) for secret in renewed if secret in changed_secrets)
    fields += moved
    if restarts:
        fields.append((RESTART, RESTART, RESTART))
    if not fields:
        return None
    class_ = _class_of(old, new, fields)
    return Change(name, class_, tuple(fields), new.kind.value, new.stateful and class_ in ("rolling", "recreate"))


def _returned(change: Change) -> Change:
    """What a failed version left as it was needs no new replicas."""
    return change if change.class_ == "live" else replace(change, class_="live", one_by_one=False, returns=True)


def _masked_fields(fields: tuple[FieldChange, ...], mask: Callable[[str], str]) -> tuple[FieldChange, ...]:
    return tuple((path, _mask_texts(old, mask), _mask_texts(new, mask)) for path, old, new in fields)


def _mask_texts(value: object, mask: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _mask_texts(inner, mask) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_mask_texts(inner, mask) for inner in cast("list[object]", value)]
    return value


def _document(agent: Agent) -> dict[str, Any]:
    """What counts of an agent: what has no order to a replica is sorted, as it is for the revision."""
    document = agent.model_dump(mode="json", by_alias=True)
    for key in ("calls", "publishes", "idempotent", "depends_on"):
        document[key] = sorted(document[key])
    document["secrets"] = {secret["name"]: secret["as"] for secret in document["secrets"]}
    return document


def _class_of(old: Agent, new: Agent, fields: list[FieldChange]) -> ChangeClass:
    keys = {path.partition(".")[0] for path, _, _ in fields}
    if (keys & _IDENTITY and new.stateful) or (old.kind != new.kind and Kind.JOB in (old.kind, new.kind)):
        return "recreate"
    return "live" if keys <= _LIVE else "rolling"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> Iterator[FieldChange]:
    """Where two documents differ, by dotted path: maps by their keys, lists as a whole."""
    for key in (*old, *(key for key in new if key not in old)):
        before, after = cast("object", old.get(key)), cast("object", new.get(key))
        if before == after:
            continue
        path = f"{above}{key}"
        if isinstance(after, dict) and (isinstance(before, dict) or (after and before is None)):
            yield from _differences(cast("dict[str, Any]", before or {}), cast("dict[str, Any]", after), f"{path}.")
        elif above == "environment.":
            yield path, _masked(key, before), _masked(key, cast("object", after))
        else:
            yield path, before, after


def _masked(name: str, value: object) -> object:
    """A variable's value, unless it looks like a secret that should not have been a variable."""
    if isinstance(value, str) and (_SENSITIVE.search(name) or _URL_PASSWORD.search(value)):
        return HIDDEN
    return value


def _notes(fleet: Fleet, capabilities: Capabilities) -> Iterator[str]:
    written = fleet.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for key, ability in sorted(capabilities.table.items()):
        if key == "agents.image" or ability.support not in ("advisory", "impossible"):
            continue  # an image beside a command is no loss: the note below says what becomes of it
        users = _users(written, key)
        if users:
            said = "not enforced" if ability.support == "advisory" else "impossible"
            reason = f": {ability.note}" if ability.note else ""
            yield f"{key} is {said} on the {capabilities.engine} engine{reason} ({_listed(users)})"
    if not capabilities.runs_images and any(agent.image for agent in fleet.agents.values()):
        yield f"images are not used on the {capabilities.engine} engine: commands run as they are"


def _scaling(new: Fleet) -> Iterator[str]:
    """Who scales, where the file asks for the engine's own autoscaler."""
    native = sorted(name for name, agent in new.agents.items() if is_native(new, agent))
    if native:
        yield (
            f"{_listed(native)}: scaled by a HorizontalPodAutoscaler; at its scale-down Kubernetes chooses who leaves, "
            "and nobody is drained before"
        )
    for name, reason in sorted(scaled_by_shoal(new).items()):
        yield f"{name} stays with Shoal's autoscaler: a HorizontalPodAutoscaler has no {reason}"


def _first_starts(before: Mapping[str, Agent], after: Mapping[str, Agent]) -> Iterator[str]:
    """In which order agents start that are new."""
    for name, agent in sorted(after.items()):
        if agent.depends_on and name not in before:
            are = "are" if len(agent.depends_on) > 1 else "is"
            yield f"{name} starts once {_listed(sorted(agent.depends_on))} {are} ready"


def _outside_brokers(new: Fleet) -> Iterator[str]:
    """What a broker that Shoal does not run can't do, and the embedded one can."""
    for broker in sorted({queue.broker for queue in rabbitmq_queues(new).values()}):
        yield (
            f"brokers.{broker}: RabbitMQ drops no second task of the same id; all agents use the same user, who "
            "reaches every queue of the fleet; a task may take no longer than its consumer_timeout before 3.12"
        )


def _moved_queues(old: Fleet | None, new: Fleet, name: str) -> Iterator[FieldChange]:
    """What replicas of an agent are told of queues outside at their start, where that is another thing than before."""
    if old is None or name not in old.agents or name not in new.agents:
        return
    before, after = used_outside(old, old.agents[name]), used_outside(new, new.agents[name])
    for queue in sorted({*before, *after}):
        if queue not in old.queues or queue not in new.queues:
            continue
        was, will = before.get(queue), after.get(queue)
        yield from _differences(_told(was), _told(will), f"queues.{queue}.")


def _told(queue: RabbitMqQueue | None) -> dict[str, Any]:
    if queue is None:
        return {"broker": "embedded"}
    return {"broker": queue.url, "max_attempts": queue.max_attempts, "ack_wait": queue.ack_wait_s}


def _kept_queues(old: Fleet | None, new: Fleet, messages: Mapping[str, int]) -> Iterator[str]:
    """What becomes of queues that go: no task is ever thrown away unasked."""
    for name in sorted(set(old.queues if old is not None else ()) - set(new.queues)):
        count = messages.get(name)
        kept = "what is in it" if count is None else f"{count:,} message{'s' if count != 1 else ''}"
        yield f"queue {name} is no longer in the fleet; the broker keeps {kept} (shoal down --volumes deletes it)"


def _kept_volumes(old: Fleet | None, new: Fleet) -> Iterator[str]:
    """What becomes of volumes that no agent has any more: nothing is ever thrown away unasked."""
    before, after = (named_volumes(fleet) if fleet is not None else {} for fleet in (old, new))
    for (name, owner), agents in sorted(before.items(), key=str):
        if (name, owner) in after:
            continue
        whose = f"of each replica of {owner}" if owner else f"of {_listed(agents)}"
        yield f"volume {name} {whose} is no longer in the fleet; it is kept (shoal down --volumes deletes it)"


def named_volumes(fleet: Fleet) -> dict[tuple[str, str | None], list[str]]:
    """Who has each named volume, by its name and by the stateful agent whose replicas have one each."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for name, agent in fleet.agents.items():
        for volume in map(parse_volume, agent.volumes):
            if not volume.bound:
                found.setdefault((volume.source, name if agent.stateful else None), []).append(name)
    return found


def _listed(names: list[str]) -> str:
    """Few names as they are, many cut short."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _users(fleet: Mapping[str, Any], feature: str) -> list[str]:
    """The agents that use a feature, or the fleet's name where it is the fleet's; empty if nobody does.

    `fleet` is a document without what is at its default.
    """
    section, *steps = feature.split(".")
    if section != "agents":
        return [fleet["fleet"]] if _uses(fleet, [section, *steps]) else []
    steps = _FEATURES.get(".".join(steps), ".".join(steps)).split(".") if steps else []
    return [name for name, agent in fleet["agents"].items() if _uses(agent, steps)]


def _uses(value: object, steps: list[str]) -> bool:
    """Whether the document says something at the path; in a list, as a key or a value of a block, or a part of a text
    in Compose's short form."""
    for step in steps:
        if isinstance(value, list):
            blocks = cast("list[object]", value)
            return any(
                step in block.split(":") if isinstance(block, str)
                else isinstance(block, dict) and (step in block or step in block.values())  # pyright: ignore[reportUnknownMemberType] - any document
                for block in blocks
            )  # fmt: skip
        value = cast("dict[str, object]", value).get(step) if isinstance(value, dict) else None
    return value is not None
