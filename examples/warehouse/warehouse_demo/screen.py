"""What the demo shows while it runs: a table that is drawn over itself, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.load import Outcome
from shoal.api.views import AgentView, StatusView

PLAIN_EVERY_S = 5.0
_COLOURS = {"ok": "green", "asleep": "blue", "progressing": "cyan", "degraded": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is shown at one time. `at_s` counts from the beginning of the load."""

    at_s: float
    seconds: float
    view: StatusView | None
    outcomes: Sequence[Outcome]
    tasks_done: int
    note: str


class Screen:
    """Use it as a context manager."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._next_plain_s = 0.0

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        """Draw this moment, or now and then say it in a line."""
        if self._live:
            self._live.update(Group(Text(render_load(moment)), render_table(moment), Text(moment.note)), refresh=True)
        elif moment.at_s >= self._next_plain_s:
            self._next_plain_s = moment.at_s + PLAIN_EVERY_S
            self._console.print(render_line(moment), soft_wrap=True)


def render_load(moment: Moment) -> str:
    """The load in one line."""
    failed = sum(outcome.outcome != "ok" for outcome in moment.outcomes)
    recent = sum(outcome.at_s > moment.at_s - 2 for outcome in moment.outcomes) / 2
    return (
        f"{moment.at_s:3.0f} of {moment.seconds:.0f} s, {recent:.0f} requests/s; "
        f"{len(moment.outcomes)} answered, {failed} failed, {moment.tasks_done} tasks done"
    )


def render_line(moment: Moment) -> str:
    """Everything in one line, for where there is no terminal."""
    agents = moment.view.agents if moment.view else ()
    counts = ", ".join(f"{agent.name} {agent.ready}/{agent.desired}" for agent in agents if agent.kind != "job")
    return f"{render_load(moment)}; {counts}" + (f"; {moment.note}" if moment.note else "")


def render_table(moment: Moment) -> Table:
    """One row an agent."""
    table = Table(box=None, pad_edge=False, expand=True)
    for name in ("agent", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("ready", "starting", "load", "cpu"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    for agent in moment.view.agents if moment.view else ():
        table.add_row(
            agent.name,
            Text(agent.state, _COLOURS.get(agent.state, "")),
            *(("", "") if agent.kind == "job" else (f"{agent.ready} of {agent.desired}", f"{agent.starting or ''}")),
            _load(agent),
            "" if agent.cpu_cores is None else f"{agent.cpu_cores:.2f}",
            _why(agent),
        )
    return table


def _load(agent: AgentView) -> str:
    """What waits for the agent: requests in flight, or tasks."""
    if agent.queue_depth is not None:
        return f"{agent.queue_depth:.0f} tasks"
    return "" if agent.concurrency is None else f"{agent.concurrency:.0f} requests"


def _why(agent: AgentView) -> str:
    return agent.decision.reason if agent.decision is not None else agent.reason
