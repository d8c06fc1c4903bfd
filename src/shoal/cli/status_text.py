"""The state of a fleet as text: pure functions from views to lines, used by `status`, `up` and `down`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from shoal.api.views import AgentView, OwnerView, ReplicaView, RolloutView, RunView, StatusView
from shoal.cli.output import (
    NONE,
    STATE_COLOURS,
    Cell,
    Column,
    format_ago,
    format_bytes,
    format_moment,
    format_number,
    format_seconds,
    format_span,
    render_table,
)

_WORST_FIRST = ("failed", "degraded", "progressing", "ok", "asleep")
_COLUMNS = (
    Column("AGENT"),
    Column("KIND"),
    Column("STATE"),
    Column("DESIRED", right=True),
    Column("READY", right=True),
    Column("STARTING", right=True),
    Column("REASON"),
)
_WIDE = (
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("RPS", right=True),
    Column("P95", right=True),
    Column("DEPTH", right=True),
    Column("RESTARTS", right=True),
)
_WIDE_NEEDS = 120  # columns; on a narrower terminal the figures stand on a line of their own


def sort_agents(agents: Sequence[AgentView]) -> list[AgentView]:
    """Unhealthy ones first, then by name."""
    order = {state: index for index, state in enumerate(_WORST_FIRST)}
    return sorted(agents, key=lambda agent: (order.get(agent.state, 0), agent.name))


def render_status(view: StatusView, width: int | None = None, *, wide: bool = False) -> str:
    """The whole fleet: a heading, what is wrong with the fleet itself, one row an agent."""
    lines = [render_heading(view)]
    lines += [f"{click.style('problem:', fg='yellow', bold=True)} {problem}" for problem in view.problems]
    if not view.agents:
        return "\n".join([*lines, _describe_no_agents(view)])
    in_columns = wide and (width is None or width >= _WIDE_NEEDS)
    columns = (*_COLUMNS[:-1], *_WIDE, _COLUMNS[-1]) if in_columns else _COLUMNS
    agents = sort_agents(view.agents)
    rows: list[list[Cell | str]] = [
        _row(agent, _figures(agent) if in_columns else (), view.at, beneath=wide and not in_columns) for agent in agents
    ]
    return "\n".join([*lines, "", render_table(columns, rows, width)])


def render_heading(view: StatusView) -> str:
    """One line: the fleet, its engine, whether it is settled, where it is reached."""
    agreed = view.settled and view.observed_generation >= view.generation
    state = click.style("settled", fg="green") if agreed else click.style("changing", fg="cyan")
    if not view.controller_pid:
        state = click.style("without a controller", fg="yellow")
    elif view.observed_generation < view.generation:
        state += f" (generation {view.observed_generation} of {view.generation})"
    parts = [f"{click.style(view.fleet, bold=True)} on {view.engine}", state]
    if view.gateway_url:
        parts.append(view.gateway_url)
    return ", ".join(parts)


def _describe_no_agents(view: StatusView) -> str:
    if view.settled or not view.controller_pid:
        return "It has no agents."
    if view.problems:
        return "Nothing of it runs."
    if not view.observed_generation:
        return "Its controller has just started, and reads what the fleet is."
    return "All agents are stopped; the gateway is ending, and the broker where there are queues."


def _row(agent: AgentView, figures: Sequence[str], now: float, *, beneath: bool) -> list[Cell | str]:
    reason = describe_reason(agent, now)
    if beneath:
        named = zip(("cpu", "memory", "rps", "p95", "depth", "restarts"), _figures(agent), strict=True)
        reason = "; ".join([*filter(None, [reason]), " ".join(f"{name} {value}" for name, value in named)])
    unready = agent.ready < agent.desired and agent.state in {"failed", "degraded"}
    return [
        Cell(agent.name, bold=True),
        agent.kind,
        Cell(agent.state, STATE_COLOURS.get(agent.state)),
        f"{agent.desired}" if agent.kind != "job" or agent.desired else NONE,
        Cell(f"{agent.ready}", "red" if unready else None),
        f"{agent.starting}",
        *figures,
        reason or NONE,
    ]


def _figures(agent: AgentView) -> tuple[str, ...]:
    return (
        format_number(agent.cpu_cores),
        format_bytes(agent.memory_bytes),
        format_number(agent.rps),
        format_seconds(agent.p95_s),
        format_number(agent.queue_depth),
        f"{sum(replica.restarts for replica in agent.replicas)}",
    )


def describe_reason(agent: AgentView, now: float) -> str:
    """Why the agent is as it is: its state's reason, a pin, the next run of a job."""
    parts = [agent.reason] if agent.reason else []
    if agent.pin is not None:
        if "pinned" not in agent.reason:
            parts.append(f"pinned to {agent.pin}")
        if agent.pin_until is not None:
            parts.append(f"for {format_span(agent.pin_until - now)} more")
    if agent.stopping:
        parts.append(f"{agent.stopping} stopping")
    if agent.next_run_at is not None:
        parts.append(f"next run at {format_moment(agent.next_run_at)}")
    return "; ".join(parts)


def render_agent(agent: AgentView, now: float, width: int | None = None) -> str:
    """One agent in full."""
    facts = [
        ("state", f"{click.style(agent.state, fg=STATE_COLOURS.get(agent.state))}"),
        ("reason", describe_reason(agent, now)),
        ("replicas", _describe_replicas(agent)),
        ("count", describe_owner(agent, now) if agent.owner is not None else ""),
        ("revision", agent.revision),
        ("rollout", describe_rollout(agent.rollout, now) if agent.rollout is not None else ""),
        ("url", agent.url or ""),
        ("load", _describe_load(agent)),
    ]  # fmt: skip
    if agent.decision is not None:
        facts.append(("last decision", f"{agent.decision.count}: {agent.decision.reason}"))
    lines = [f"{click.style(agent.name, bold=True)}, a {agent.kind}"]
    lines += [f"  {name + ':':<15}{value}" for name, value in facts if value]
    if agent.replicas:
        lines += ["", render_table(_REPLICA_COLUMNS, [_replica_row(each, now) for each in agent.replicas], width)]
    if agent.runs:
        lines += ["", render_table(_RUN_COLUMNS, [_run_row(each, now) for each in agent.runs], width)]
    return "\n".join([*lines, *_last_logs(agent)])


def _describe_replicas(agent: AgentView) -> str:
    if agent.kind == "job":
        return ""
    counts = f"{agent.desired} desired, {agent.ready} ready, {agent.starting} starting, {agent.stopping} stopping"
    return f"{counts} ({describe_bounds(agent)})"


def describe_bounds(agent: AgentView) -> str:
    """How many replicas the autoscaler may choose."""
    return f"always {agent.min}" if agent.min == agent.max else f"between {agent.min} and {agent.max}"


def describe_owner(agent: AgentView, now: float) -> str:
    """Who sets the count in place of Shoal, since when, and what makes it Shoal's again."""
    owner = agent.owner
    if owner is None:
        return ""
    since = ""
    if owner.since is not None:
        since = f" for {format_span(now - owner.since)}" if owner.lasting else f", seen {format_ago(owner.since, now)}"
    trouble = f"; it can't tell how many there should be: {owner.trouble}" if owner.trouble else ""
    text = f"{owner.name}: {agent.desired}{since}{trouble}"
    if owner.delegated:
        return text
    remedy = f"remove {owner.name}" if owner.lasting else f"`shoal scale {agent.name} auto`, or a new version"
    return f"{text}; Shoal keeps off until it is taken back ({remedy})"


def describe_rollout(rollout: RolloutView, now: float) -> str:
    """Where a rollout is, in a line."""
    since = format_span((rollout.finished_at or now) - rollout.started_at)
    over = f" from {rollout.stable}" if rollout.stable is not None else ""
    if rollout.phase == "complete":
        return f"complete, {rollout.revision} took over{over} in {since}, {format_ago(rollout.finished_at, now)}"
    if rollout.phase == "failed":
        return f"failed, {rollout.revision}: {rollout.reason}; {rollout.serving} serves"
    return (
        f"progressing for {since}, {rollout.revision} takes over{over}: "
        f"{rollout.new_ready} of {rollout.new} new ready, {rollout.old} old"
    )


def _describe_load(agent: AgentView) -> str:
    named = [
        ("concurrency", None if agent.concurrency is None else format_number(agent.concurrency)),
        ("rps", None if agent.rps is None else format_number(agent.rps)),
        ("p95", None if agent.p95_s is None else format_seconds(agent.p95_s)),
        ("queue depth", None if agent.queue_depth is None else format_number(agent.queue_depth)),
        ("cpu", None if agent.cpu_cores is None else format_number(agent.cpu_cores)),
        ("memory", None if agent.memory_bytes is None else format_bytes(agent.memory_bytes)),
        ("gpus busy", None if agent.gpus_busy is None else format_number(agent.gpus_busy)),
        ("gpu memory", None if agent.gpu_memory_bytes is None else format_bytes(agent.gpu_memory_bytes)),
    ]
    return ", ".join(f"{name} {value}" for name, value in named if value is not None)


_REPLICA_COLUMNS = (
    Column("REPLICA"),
    Column("REVISION"),
    Column("PHASE"),
    Column("READY"),
    Column("AGE", right=True),
    Column("RESTARTS", right=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("REASON"),
)
_RUN_COLUMNS = (
    Column("RUN"),
    Column("PHASE"),
    Column("ATTEMPT", right=True),
    Column("STARTED", right=True),
    Column("TOOK", right=True),
    Column("EXIT", right=True),
    Column("REASON"),
)


def _replica_row(replica: ReplicaView, now: float) -> list[Cell | str]:
    bad = replica.phase in {"failed", "backoff"}
    return [
        replica.id,
        replica.revision[:8],
        Cell(replica.phase, "red" if bad else None),
        Cell("yes", "green") if replica.ready else Cell("no", "yellow"),
        NONE if replica.started_at is None else format_span(now - replica.started_at),
        f"{replica.restarts}",
        format_number(replica.cpu_cores),
        format_bytes(replica.memory_bytes),
        replica.reason or NONE,
    ]


def _run_row(run: RunView, now: float) -> list[Cell | str]:
    took = NONE
    if run.started_at is not None:
        took = format_span((run.finished_at or now) - run.started_at)
    return [
        run.run_id,
        Cell(run.phase, {"failed": "red", "succeeded": "green"}.get(run.phase)),
        f"{run.attempt}",
        format_ago(run.started_at, now),
        took,
        NONE if run.exit_code is None else f"{run.exit_code}",
        run.reason or NONE,
    ]


def _last_logs(agent: AgentView) -> list[str]:
    lines: list[str] = []
    for replica in agent.replicas:
        if replica.last_log and not replica.ready:
            lines += ["", f"last lines of {replica.id}:", *(f"  {line}" for line in replica.last_log)]
    if not lines and agent.rollout is not None and agent.rollout.last_log:
        lines += ["", f"last lines of {agent.rollout.revision}:", *(f"  {line}" for line in agent.rollout.last_log)]
    return lines


def describe_trouble(view: StatusView, agents: Sequence[AgentView]) -> str:
    """Why agents do not get ready: state, reason, replicas with theirs, and the last lines that they wrote."""
    lines: list[str] = []
    for agent in sort_agents(agents):
        count = f"{agent.ready} of {agent.desired} ready"
        lines.append(f"{agent.name}: {agent.state}, {count}" + (f": {agent.reason}" if agent.reason else ""))
        for replica in agent.replicas:
            if not replica.ready and replica.reason and replica.reason not in agent.reason:
                lines.append(f"  {replica.id}: {replica.phase}: {replica.reason}")
        lines += [f"  {line}" if line else "" for line in _last_logs(agent)]
    if not view.routed and not agents and not view.problems:
        there = ", ".join(view.gateways)
        here = f"there are: {there}" if there else "there is none"
        lines.append(f"all agents are as wished, but not every gateway is there and routes by it ({here})")
    return "\n".join([*lines, *(f"problem: {problem}" for problem in view.problems)])


def describe_changes(previous: StatusView | None, view: StatusView, only: str | None = None) -> list[str]:
    """What differs between two looks, a plain line each, for where there is no terminal."""
    before = {agent.name: _told_of(agent) for agent in previous.agents} if previous else {}
    moment = format_moment(view.at)
    lines: list[str] = []
    for agent in view.agents if previous else sort_agents(view.agents):
        if before.pop(agent.name, None) != _told_of(agent) and only in {None, agent.name}:
            lines.append(f"{moment} {_line_of(agent)}")
    lines += [f"{moment} {name}: gone" for name in before if only in {None, name}]
    known = previous.problems if previous else ()
    lines += [f"{moment} problem: {problem}" for problem in view.problems if problem not in known]
    lines += [f"{moment} no longer: {problem}" for problem in known if problem not in view.problems]
    return lines


def _told_of(agent: AgentView) -> tuple[str, int | None, OwnerView | None]:
    """What a new line is for. Why one at rest has the count that it has may be another with each request."""
    line = _line_of(replace(agent, reason="") if agent.state in {"ok", "asleep"} else agent)
    return line, agent.pin, agent.owner


def _line_of(agent: AgentView) -> str:
    counts = f"{agent.desired} desired, {agent.ready} ready, {agent.starting} starting"
    stopping = f", {agent.stopping} stopping" if agent.stopping else ""
    reason = f": {agent.reason}" if agent.reason else ""
    return f"{agent.name}: {agent.state}, {counts}{stopping}{reason}"
