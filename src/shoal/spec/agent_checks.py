"""What the values of one agent may be together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shoal.spec.model import Agent
from shoal.spec.nodes import Key, Loc
from shoal.spec.scaling import CronWindow
from shoal.spec.suggestions import did_you_mean
from shoal.spec.times import check_cron, check_time_zone
from shoal.spec.tmpfs import Tmpfs, parse_tmpfs
from shoal.spec.validation import Finding
from shoal.spec.values import shown
from shoal.spec.volumes import Volume, parse_volume

NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
NAME_RULE = "expected small letters, digits and hyphens, a letter first, at most 40"
QUEUE = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
QUEUE_RULE = "expected small letters, digits, hyphens and underscores, at most 40"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
SECRET_RULE = "expected letters, digits, `_`, `-` and `.`, at most 64"
_PORT_IN_COMMAND = re.compile(r"\$(?:PORT\b|\{PORT\})")
_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH")

# By attribute: the key that people write.
OF_SERVICES = {
    "public": "public",
    "health": "health",
    "sticky": "sticky",
    "protocol": "protocol",
    "idempotent": "idempotent",
    "max_requests": "max_requests",
    "request_timeout_s": "request_timeout",
}
OF_JOBS = {"timeout_s": "timeout", "retries": "retries"}
NOT_OF_JOBS = ("scale", "stateful", "update", "depends_on")
_KINDS = {"port": "service", "queue": "worker", "schedule": "job"}


@dataclass(frozen=True, slots=True)
class Known:
    """The names of the fleet: all agents, those that can be called (or are too wrong to tell), the jobs, and the
    externals."""

    agents: frozenset[str]
    callable: frozenset[str]
    jobs: frozenset[str]
    external: frozenset[str]


def check_agent(name: str, agent: Agent, known: Known) -> Iterator[Finding]:
    """What is wrong with one agent whose values are right one by one."""
    at: Loc = ("agents", name)
    if not NAME.fullmatch(name):
        yield Finding(at, f"{shown(name)} can't be the name of an agent", NAME_RULE, key=True)
    for check in _CHECKS:
        yield from check(agent, at)
    yield from _calls(agent, at, known)
    yield from _dependencies(agent, at, known)


def warn_of_agent(name: str, agent: Agent) -> Iterator[Finding]:
    """What is not wrong, but hardly meant."""
    at: Loc = ("agents", name, "scale")
    scale = agent.scale
    targets = scale.target.model_dump(exclude_none=True)
    if scale.max > scale.min and not targets and not scale.cron:
        yield Finding(at, f"nothing changes the count between {scale.min} and {scale.max}", "give a target or cron")
    if scale.min == 0 and agent.queue and targets and scale.target.queue_depth is None:
        yield Finding(at, "with no replica left nothing wakes the worker", "give target.queue_depth, or a min of 1")


def _kind(agent: Agent, at: Loc) -> Iterator[Finding]:
    given = [key for key in _KINDS if getattr(agent, key) is not None]
    about = tuple(_KINDS)
    if not given:
        message = "found neither `port`, `queue` nor `schedule`; expected one of them"
        remedy = "a port makes a service, a queue a worker, a schedule a job"
        yield Finding(at, message, remedy, key=True, about=about)
    for extra in given[1:]:
        message = f"found `{given[0]}` and `{extra}`; expected one of them"
        remedy = f"`{given[0]}` makes a {_KINDS[given[0]]}, `{extra}` a {_KINDS[extra]}"
        yield Finding((*at, extra), message, remedy, key=True, about=about)


def _keys_of_kinds(agent: Agent, at: Loc) -> Iterator[Finding]:
    given = {name for name in agent.model_fields_set if getattr(agent, name) not in (None, ())}
    if agent.port is None:
        for name in sorted(given & set(OF_SERVICES)):
            key = OF_SERVICES[name]
            yield Finding((*at, key), "only an agent with a `port` has this", key=True, about=("port", key))
    if agent.schedule is None:
        for name in sorted(given & set(OF_JOBS)):
            key = OF_JOBS[name]
            yield Finding((*at, key), "only an agent with a `schedule` has this", key=True, about=("schedule", key))
    else:
        for key in sorted(given & set(NOT_OF_JOBS)):
            if getattr(agent, key) is not False:
                yield Finding((*at, key), "a job can't have this: it runs and ends", key=True, about=("schedule", key))


def _program(agent: Agent, at: Loc) -> Iterator[Finding]:
    if agent.image is None and agent.command is None:
        message = "found neither `command` nor `image`; expected what to run"
        yield Finding(at, message, key=True, about=("image", "command"))
    for index, part in enumerate(agent.command or ()):
        if agent.port is None and _PORT_IN_COMMAND.search(part):
            message = "$PORT is set only for an agent with a `port`"
            yield Finding(
                (*at, "command", index), message, "give it a `port`, or choose another name", about=("command", "port")
            )


def _environment(agent: Agent, at: Loc) -> Iterator[Finding]:
    for name, value in agent.environment.items():
        here = (*at, "environment", name)
        if not _VARIABLE.fullmatch(name):
            message = f"{shown(name)} can't be the name of a variable"
            yield Finding(here, message, "expected letters, digits and underscores, no digit first", key=True)
        elif name.startswith("SHOAL_"):
            yield Finding(here, "names that start with SHOAL_ are Shoal's own", "choose another name", key=True)
        elif name == "PORT" and agent.port is not None:
            yield Finding(here, "PORT is set when a replica starts, from `port`", "leave it out", key=True)
        if "\0" in value:
            yield Finding(here, "there is a NUL character in it, which no variable can hold")


def _methods(agent: Agent, at: Loc) -> Iterator[Finding]:
    for index, method in enumerate(agent.idempotent):
        if method not in _METHODS:
            remedy = did_you_mean(method, _METHODS)
            yield Finding((*at, "idempotent", index), f"found {shown(method)}; expected an HTTP method", remedy)


def _traffic(agent: Agent, at: Loc) -> Iterator[Finding]:
    if agent.public is not None and agent.public.path is None and agent.public.host is None:
        yield Finding((*at, "public"), "found neither `path` nor `host`; expected one of them or both")
    if agent.sticky is not None and (agent.sticky.header is None) == (agent.sticky.cookie is None):
        yield Finding((*at, "sticky"), "expected one of `header` and `cookie`")


def _scale(agent: Agent, at: Loc) -> Iterator[Finding]:
    scale = agent.scale
    targets = scale.target.model_dump(exclude_none=True, by_alias=True)
    explicit = "max" in scale.model_fields_set
    here = (*at, "scale")
    if targets and not explicit and scale.max <= scale.min:
        yield Finding((*here, "target"), "a target needs a `max` to scale to", "give scale.max", key=True)
    elif scale.min > scale.max:
        found = f"min is {scale.min} and max is {scale.max}{'' if explicit else ' by default'}"
        yield Finding((*here, "min"), f"{found}; expected min to be at most max", "" if explicit else "give scale.max")
    for key in ("concurrency", "rps", "p95"):
        if key in targets and agent.port is None:
            message = "only an agent with a `port` has requests to measure"
            yield Finding((*here, "target", key), message, key=True, about=("port", "scale"))
    if "queue_depth" in targets and agent.queue is None:
        message = "only an agent with a `queue` has tasks to count"
        yield Finding((*here, "target", "queue_depth"), message, key=True, about=("queue", "scale"))
    for key, request in (("cpu", agent.resources.cpu), ("memory", agent.resources.memory_bytes)):
        if key in targets and request is None:
            message = f"a percentage of what? expected `resources.{key}` beside it"
            yield Finding((*here, "target", key), message, key=True, about=("resources", "scale"))
    for index, window in enumerate(scale.cron):
        yield from _cron_window(window, scale.max, (*here, "cron", index))


def _cron_window(window: CronWindow, most: int, at: Loc) -> Iterator[Finding]:
    for key, expression in (("start", window.start), ("end", window.end)):
        yield from _time((*at, key), check_cron(expression))
    yield from _time((*at, "time_zone"), check_time_zone(window.time_zone))
    if window.replicas > most:
        yield Finding((*at, "replicas"), f"found {window.replicas}; expected at most the max of {most}")


def _update(agent: Agent, at: Loc) -> Iterator[Finding]:
    here, update = (*at, "update"), agent.update
    if agent.stateful:
        for key in sorted(update.model_fields_set & {"max_surge", "max_unavailable"}):
            message = "a stateful agent is replaced one ordinal after the other, so this means nothing"
            yield Finding((*here, key), message, "leave it out", key=True, about=("stateful", "update"))
    elif update.max_surge in (0, "0%") and update.max_unavailable in (0, "0%"):
        message = "with neither a replica more nor one less nothing could ever be replaced"
        yield Finding(here, message, "give max_surge or max_unavailable")
    if update.progress_deadline_s is not None and update.progress_deadline_s <= update.min_ready_time_s:
        message = "no replica can get ready in time; expected more than min_ready_time"
        yield Finding((*here, "progress_deadline"), message)


def _schedule(agent: Agent, at: Loc) -> Iterator[Finding]:
    if agent.schedule is not None:
        yield from _time((*at, "schedule", "cron"), check_cron(agent.schedule.cron))
        yield from _time((*at, "schedule", "time_zone"), check_time_zone(agent.schedule.time_zone))


def _time(at: Loc, refusal: tuple[str, str] | None) -> Iterator[Finding]:
    if refusal is not None:
        yield Finding(at, *refusal)


def _secrets(agent: Agent, at: Loc) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, secret in enumerate(agent.secrets):
        here = (*at, "secrets", index, "name")
        if not SECRET.fullmatch(secret.name):
            message = f"{shown(secret.name)} can't be the name of a secret"
            yield Finding(here, message, SECRET_RULE)
        elif secret.name in seen:
            yield Finding(here, f"the secret {secret.name} stands here a second time")
        elif secret.as_ == "env" and (not _VARIABLE.fullmatch(secret.name) or secret.name.startswith("SHOAL_")):
            yield Finding(here, f"{shown(secret.name)} can't be the name of a variable", "leave out `as: env`")
        elif secret.as_ == "env" and secret.name in agent.environment:
            message = f"the variable {secret.name} is in `environment` too"
            yield Finding(here, message, "leave out one of them", about=("secrets", "environment"))
        seen.add(secret.name)


def _volumes(agent: Agent, at: Loc) -> Iterator[Finding]:
    variables: dict[str, Volume] = {}
    for index, written in enumerate(agent.volumes):
        here = (*at, "volumes", index)
        try:
            volume = parse_volume(written)
        except ValueError as error:
            yield Finding(here, str(error))
            continue
        if any(volume.path == other.path for other in variables.values()):
            yield Finding(here, f"the path {volume.path} stands here a second time")
        elif (other := variables.setdefault(volume.variable, volume)) is not volume:
            same = other.source == volume.source
            message = f"{other.source} and {volume.source} would share the variable {volume.variable}"
            yield Finding(here, f"the volume {volume.source} stands here a second time" if same else message)


def _tmpfs(agent: Agent, at: Loc) -> Iterator[Finding]:
    names: dict[str, Tmpfs] = {}
    paths = {parse_volume(text).path for text in agent.volumes} if not any(_volumes(agent, at)) else set[str]()
    for index, written in enumerate(agent.tmpfs):
        here = (*at, "tmpfs", index)
        try:
            tmpfs = parse_tmpfs(written)
        except ValueError as error:
            yield Finding(here, str(error))
            continue
        if tmpfs.path in paths:
            yield Finding(here, f"there is a volume at {tmpfs.path} already")
        elif (other := names.setdefault(tmpfs.name, tmpfs)) is not tmpfs:
            same = other.path == tmpfs.path
            message = f"{other.path} and {tmpfs.path} would share the variable {tmpfs.variable}"
            yield Finding(here, f"the path {tmpfs.path} stands here a second time" if same else message)


def _rights(agent: Agent, at: Loc) -> Iterator[Finding]:
    yield from _repeated(agent.cap_add, (*at, "cap_add"))
    user = (agent.user or "").partition(":")[0]
    if agent.cap_add and user not in ("0", "root"):
        yield Finding((*at, "cap_add"), "only root has capabilities", "write `user: root` beside it, or leave it out")


def _queues(agent: Agent, at: Loc) -> Iterator[Finding]:
    named: list[tuple[tuple[Key, ...], str]] = [(("publishes", i), name) for i, name in enumerate(agent.publishes)]
    if agent.queue is not None:
        named.insert(0, (("queue",), agent.queue))
    for loc, name in named:
        if not QUEUE.fullmatch(name):
            yield Finding((*at, *loc), f"{shown(name)} can't be the name of a queue", QUEUE_RULE)
    yield from _repeated(agent.publishes, (*at, "publishes"))


def _calls(agent: Agent, at: Loc, known: Known) -> Iterator[Finding]:
    for index, name in enumerate(agent.calls):
        here = (*at, "calls", index)
        if name in known.external:
            continue
        if name not in known.agents:
            message = f"{shown(name)} is neither an agent nor an external"
            yield Finding(here, message, did_you_mean(name, known.callable | known.external))
        elif name not in known.callable:
            yield Finding(here, f"{name} has no `port`, so nobody can call it")
    yield from _repeated(agent.calls, (*at, "calls"))


def _dependencies(agent: Agent, at: Loc, known: Known) -> Iterator[Finding]:
    for index, name in enumerate(agent.depends_on):
        here = (*at, "depends_on", index)
        if name in known.external:
            yield Finding(here, f"{name} is outside of the fleet, so nobody knows when it is ready", "leave it out")
        elif name not in known.agents:
            remedy = did_you_mean(name, known.agents - known.jobs - {at[1]})
            yield Finding(here, f"there is no agent {shown(name)}", remedy)
        elif name in known.jobs:
            yield Finding(here, f"{name} is a job, which is never ready: it runs and ends", "leave it out")
    yield from _repeated(agent.depends_on, (*at, "depends_on"))


def _repeated(names: tuple[str, ...], at: Loc) -> Iterator[Finding]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Finding((*at, index), f"{name} stands here a second time")


_CHECKS: tuple[Callable[[Agent, Loc], Iterator[Finding]], ...] = (
    _kind,
    _keys_of_kinds,
    _program,
    _environment,
    _methods,
    _traffic,
    _scale,
    _update,
    _schedule,
    _secrets,
    _volumes,
    _tmpfs,
    _rights,
    _queues,
)
