"""What somebody meant who wrote a key or a name that does not exist: close spellings, and other tools' names for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# By model, then by the other tool's name in snake_case. A value in backquotes is a key; anything else is said as it is.
_AGENT: Mapping[str, str] = {
    "replicas": "`scale`",
    "deploy": "`scale`, `resources` and `placement`",
    "autoscaling": "`scale`",
    "hpa": "`scale`",
    "strategy": "`update`",
    "update_config": "`update`",
    "rolling_update": "`update`",
    "rollout": "`update`",
    "max_surge": "`update.max_surge`",
    "max_unavailable": "`update.max_unavailable`",
    "min_ready_seconds": "`update.min_ready_time`",
    "progress_deadline_seconds": "`update.progress_deadline`",
    "min_replicas": "`scale.min`",
    "max_replicas": "`scale.max`",
    "cron": "`schedule`",
    "cronjob": "`schedule`",
    "ports": "`port`",
    "container_port": "`port`",
    "target_port": "`port`",
    "expose": "`port`",
    "ingress": "`public`",
    "route": "`public`",
    "path": "`public.path`",
    "host": "`public.host`",
    "env": "`environment`",
    "variables": "`environment`",
    "env_from": "`env_file`",
    "args": "`command`",
    "cmd": "`command`",
    "run": "`command`",
    "entrypoint": "`command`",
    "healthcheck": "`health`",
    "health_check": "`health`",
    "liveness_probe": "`health`",
    "readiness_probe": "`health`",
    "startup_probe": "`health.start_period`",
    "links": "`calls`",
    "termination_grace_period_seconds": "`stop_grace_period`",
    "grace_period": "`stop_grace_period`",
    "workdir": "`working_dir`",
    "cwd": "`working_dir`",
    "queues": "`queue`, and `publishes` for those it only puts tasks into",
    "consumes": "`queue`",
    "subscribes": "`queue`",
    "produces": "`publishes`",
    "node_selector": "`placement.require`",
    "affinity": "`placement`",
    "constraints": "`placement.require`",
    "mem_limit": "`resources.memory`",
    "memory": "`resources.memory`",
    "cpus": "`resources.cpu`",
    "cpu": "`resources.cpu`",
    "gpu": "`resources.gpu`",
    "gpus": "`resources.gpu`",
    "target": "`scale.target`",
    "concurrency": "`scale.target.concurrency`",
    "active_deadline_seconds": "`timeout`",
    "backoff_limit": "`retries`",
    "session_affinity": "`sticky`",
    "time_zone": "`schedule.time_zone`",
    "build": "build the image first and name it under `image`",
    "restart": "leave it out: replicas that stop are always replaced",
    "networks": "leave it out: `calls` says who may reach whom",
    "container_name": "leave it out: replicas are named after their agent",
}
_FLEET: Mapping[str, str] = {
    "services": "`agents`",
    "deployments": "`agents`",
    "name": "`fleet`",
    "externals": "`external`",
    "profiles": "`environments`",
    "env": "`environment`",
    "env_file": "`env_file` of an agent",
    "version": "leave it out: the newest is meant",
    "volumes": "`volumes` of an agent",
    "networks": "leave it out: `calls` says who may reach whom",
    "include": "`files` of an environment, or -f several times",
    "spec_version": "leave it out: the newest is meant",
}
_ELSEWHERE: Mapping[str, str] = {
    "cpus": "`cpu`",
    "mem": "`memory`",
    "gpus": "`gpu`",
    "limits": "`cpu` and `memory` stand here by themselves: memory is also the limit",
    "requests": "`cpu` and `memory` stand here by themselves: memory is also the limit",
    "reservations": "`cpu` and `memory` stand here by themselves: memory is also the limit",
    "min_replicas": "`min`",
    "max_replicas": "`max`",
    "replicas": "`min` and `max`",
    "metrics": "`target`",
    "targets": "`target`",
    "behaviour": "`behavior`",
    "requests_per_second": "`rps`",
    "latency": "`p95`",
    "queue_length": "`queue_depth`",
    "depth": "`queue_depth`",
    "in_flight": "`concurrency`",
    "stabilization_window_seconds": "`stabilization_window`",
    "period_seconds": "`period`",
    "test": "`path`",
    "http_get": "`path`",
    "failure_threshold": "`retries`",
    "initial_delay_seconds": "`start_period`",
    "timeout_seconds": "`timeout`",
    "node_selector": "`require`",
    "constraints": "`require`",
    "preferences": "`prefer`",
    "timezone": "`time_zone`",
    "tz": "`time_zone`",
    "visibility_timeout": "`ack_wait`",
    "max_deliver": "`max_attempts`",
    "retries": "`max_attempts`",
}
_NAMES: Mapping[str, Mapping[str, str]] = {
    "WrittenAgent": _AGENT,
    "Document": _FLEET,
    "Environment": _FLEET,
}


def snake_case(key: str) -> str:
    """`stopGracePeriod` and `stop-grace-period` as `stop_grace_period`."""
    return _HUMP.sub("_", key).replace("-", "_").lower()


def suggest_key(key: str, model: str, known: Iterable[str]) -> str:
    """What to write instead of the unknown `key` of `model`; the keys there are, if nothing is close."""
    keys = sorted(known)
    snake = snake_case(key)
    if snake in keys:
        return f"did you mean `{snake}`?"
    other = _NAMES.get(model, _ELSEWHERE).get(snake)
    if other is not None and (not other.startswith("`") or _first(other) in keys):
        return f"did you mean {other}?" if other.startswith("`") and ":" not in other else other
    close = close_name(snake, keys)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"expected one of {', '.join(keys)}" if len(keys) <= 12 else ""


def close_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is likely a slip of, or None."""
    candidates = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower()[:100], candidates, n=1, cutoff=0.7)
    return candidates[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name, or an empty text."""
    names = sorted(known)
    close = close_name(name, names)
    if close is not None:
        return f"did you mean {close}?"
    return f"there are {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _first(suggestion: str) -> str:
    return re.split(r"[`.]", suggestion)[1]
