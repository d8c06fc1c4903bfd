"""What a seed draws: a fleet, and what happens to it when. Values only; the world carries them out."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

FAULTS_END_S = 60.0
KINDS = (
    "crash", "lose", "unready", "slow_start", "never_ready", "refuse", "fail_after_effect", "fail_before_effect",
    "away", "stale", "reordered", "incomplete", "deaf", "slow_calls", "store_fails", "platform_fails", "kill",
    "kill_at_call", "two_controllers", "gateway_gone", "gateway_joins", "late_acknowledgement", "refusal",
    "clock_forward", "clock_back", "clock_step",
)  # fmt: skip
WISHES = ("new_revision", "bad_version", "bounds", "target", "add", "remove", "schedule", "pin", "unpin", "load")


@dataclass(frozen=True, slots=True)
class Happening:
    """Something at an instant. `number` in [0, 1) is what its details are made from."""

    at_s: float
    kind: str
    number: float
    lasts_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """All of one seed. `agents` are as written in a file; `spare` come with `add`."""

    seed: int
    gateways: int
    agents: dict[str, Any]
    spare: dict[str, Any]
    happenings: tuple[Happening, ...]
    restless: frozenset[str] = field(default_factory=frozenset[str])  # kinds of behaviour that are drawn for replicas


def write_script(seed: int) -> Script:
    """The script of a seed: always the same."""
    rng = random.Random(f"script {seed}")
    agents = _draw_agents(rng)
    _draw_dependencies(agents, random.Random(f"depends {seed}"))
    names = sorted(agents)
    spare = {name: agents.pop(name) for name in rng.sample(names, rng.randrange(0, max(1, len(names) - 1)))}
    enabled = [kind for kind in KINDS if rng.random() < 0.4]
    happenings: list[Happening] = []
    for kind in enabled:
        if kind in {"slow_start", "never_ready"}:
            continue
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            lasts_s = rng.choice((0.1, 0.5, 2.0, 4.0, 8.0)) * (0.5 + rng.random())
            happenings.append(Happening(rng.uniform(2.0, FAULTS_END_S), kind, rng.random(), lasts_s))
    for kind in WISHES:
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3)) + (4 if kind == "load" else 0)):
            happenings.append(Happening(rng.uniform(1.0, FAULTS_END_S), kind, rng.random()))
    happenings.sort(key=lambda happening: (happening.at_s, happening.kind))
    return Script(seed, rng.choice((1, 1, 2, 3)), agents, spare, tuple(happenings), frozenset(enabled))


def changed(agents: dict[str, Any], spare: dict[str, Any], happening: Happening) -> str | None:
    """Changes the fleet as the wish says, in place; returns the agent, or `None` where there is nothing to change."""
    rng = random.Random(f"wish {happening.number}")
    if happening.kind == "add":
        return _moved(spare, agents, rng) if spare else None
    if happening.kind == "remove":
        return _moved(agents, spare, rng) if len(agents) > 1 else None
    of_kind = [name for name in sorted(agents) if _concerns(happening.kind, agents[name])]
    if not of_kind:
        return None
    name = rng.choice(of_kind)
    agent = agents[name] = copy.deepcopy(agents[name])
    if happening.kind == "new_revision":
        agent["environment"] = {"VERSION": str(rng.randrange(10**6))}
    elif happening.kind == "bad_version":
        agent["environment"] = {"VERSION": str(rng.randrange(10**6)), "BAD": rng.choice(("never_ready", "crash"))}
    elif happening.kind == "bounds":
        least = rng.choice((0, 1, 2, 3)) if agent["scale"].get("target") and not agent.get("stateful") else 1
        agent["scale"] = {**agent["scale"], "min": least, "max": max(1, least) + rng.randrange(0, 5)}
    elif happening.kind == "target":
        (key,) = agent["scale"]["target"]
        agent["scale"] = {**agent["scale"], "target": {key: rng.choice((3, 5, 10, 20))}}
    elif happening.kind == "schedule":
        agent["schedule"] = _draw_schedule(rng)
    return name


def _concerns(kind: str, agent: dict[str, Any]) -> bool:
    if kind == "schedule":
        return "schedule" in agent
    if kind == "target":
        return bool(agent.get("scale", {}).get("target"))
    if kind == "bounds":
        return "scale" in agent
    return True


def _moved(source: dict[str, Any], to: dict[str, Any], rng: random.Random) -> str:
    name = rng.choice(sorted(source))
    to[name] = source.pop(name)
    return name


def _draw_agents(rng: random.Random) -> dict[str, Any]:
    least = rng.choice((1, 1, 2, 3))
    web = {
        "command": "serve", "port": 80, "public": {"path": "/web"},
        "scale": {"min": least, "max": least + rng.randrange(0, 5), "target": {"concurrency": 10},
                  "behavior": _draw_behavior(rng)},
    }  # fmt: skip
    wakes = {
        "command": "serve", "port": 81, "calls": ["web"],
        "scale": {"min": 0, "max": 3, "target": {"concurrency": 10}, "behavior": _draw_behavior(rng)},
    }  # fmt: skip
    fixed = {"command": "serve", "port": 82, "scale": rng.choice((1, 2, 4))}
    stock = {
        "command": "keep", "port": 83, "stateful": True, "volumes": ["stock:/data"],
        "scale": rng.choice((1, 2, 3)),
    }  # fmt: skip
    if not isinstance(stock["scale"], dict):
        stock["scale"] = {"min": stock["scale"], "max": stock["scale"]}
    fixed["scale"] = {"min": fixed["scale"], "max": fixed["scale"]}
    work = {
        "command": "work", "queue": "tasks",
        "scale": {"min": rng.choice((0, 1)), "max": 4, "target": {"queue_depth": 10}, "behavior": _draw_behavior(rng)},
    }  # fmt: skip
    job = {"command": "do", "schedule": _draw_schedule(rng), "retries": rng.choice((0, 2))}
    every = {"web": web, "wakes": wakes, "fixed": fixed, "stock": stock, "work": work, "job": job}
    return {name: every[name] for name in rng.sample(sorted(every), rng.randrange(2, 6))}


def _draw_dependencies(agents: dict[str, Any], rng: random.Random) -> None:
    """Who waits for whom, never in a circle; an agent that is named may leave the fleet and come back."""
    lasting = [name for name in sorted(agents) if name != "job"]
    rng.shuffle(lasting)
    for index, name in enumerate(lasting):
        if index and rng.random() < 0.75:
            agents[name]["depends_on"] = rng.sample(lasting[:index], rng.randrange(1, min(index, 2) + 1))


def _draw_behavior(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.1:
        return {}  # Kubernetes' windows: 300 s
    window = rng.choice((0, 1, 3, 10))
    policies = [{"type": "percent", "value": rng.choice((50, 100)), "period": rng.choice(("1s", "5s"))}]
    return {"scale_down": {"stabilization_window": f"{window}s", "policies": policies}}


def _draw_schedule(rng: random.Random) -> dict[str, Any]:
    cron = rng.choice(("* * * * *", "*/20 * * * * *", "*/2 * * * *", "*/7 * * * * *"))
    return {"cron": cron, "catch_up": rng.choice(("none", "one", "all"))}
