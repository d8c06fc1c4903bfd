"""The pure parts of the command line."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest

from shoal.api.client import socket_path
from shoal.cli.explain import render_explanation
from shoal.cli.home import fleet_directory
from shoal.cli.local.health_checks import (
    Finding,
    check_controller,
    check_directory,
    check_metrics_port,
    check_open_files,
    check_port,
    check_python,
    check_socket,
)
from shoal.cli.output import (
    Cell,
    Column,
    agent_colour,
    format_ago,
    format_number,
    format_seconds,
    format_span,
    render_table,
)
from shoal.cli.part_of_fleet import take_agents
from shoal.cli.reference import render_reference
from shoal.cli.settling import Settling, Verdict
from shoal.cli.since import Since
from shoal.cli.up import describe_failure
from shoal.errors import PlanError
from shoal.proxy.sockets import reachable_socket, remove_stand_in
from shoal.spec.model import Fleet
from shoal.spec.starter import fleet_name
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import INGEST, STATUS

FLEET = Fleet.from_document(
    {
        "fleet": "f",
        "agents": {
            "a": {"command": ["a"], "port": 1, "calls": ["b", "outside"], "publishes": ["q"]},
            "b": {"command": ["b"], "port": 2, "calls": ["a"]},
            "c": {"command": ["c"], "queue": "q"},
        },
        "queues": {"q": {}},
        "brokers": {"main": {}},
        "external": {"outside": {"url": "http://x"}},
    }
)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SHOAL_HOME": "/s", "XDG_STATE_HOME": "/x"}, "/s/f"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/shoal/f"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/shoal/f"),
        ({"HOME": "/h"}, "/h/.local/state/shoal/f"),
    ],
)
def test_where_a_fleet_keeps_its_state(environ: dict[str, str], expected: str) -> None:
    """SHOAL_HOME, then XDG's state directory; relative paths in XDG's variable are ignored, as it says itself."""
    assert fleet_directory(environ, "f") == Path(expected)


def test_the_reference_is_not_stale() -> None:
    """`python -m shoal.cli.reference > docs/cli.md` makes it anew."""
    assert (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8") == render_reference()


def test_tables_align() -> None:
    """Numbers to the right, the last column wrapped under itself, or put below where there is no room."""
    columns = (Column("NAME"), Column("N", right=True), Column("WHY"))
    rows: list[list[Cell | str]] = [["a", "1", "because it was told to"], [Cell("bbbb", "red"), "200", "-"]]
    plain = click.unstyle(render_table(columns, rows)).splitlines()
    assert plain == ["NAME    N  WHY", "a       1  because it was told to", "bbbb  200  -"]
    wrapped = click.unstyle(render_table(columns, [["a", "1", "word " * 12]], 40)).splitlines()
    assert all(len(line) <= 40 for line in wrapped)
    assert wrapped[2].startswith("         word")
    below = click.unstyle(render_table(columns, rows, 30)).splitlines()
    assert below == ["NAME    N", "a       1", "    because it was told to", "bbbb  200"]


def test_quantities_are_short() -> None:
    """Three digits that matter, milliseconds below a second, spans to a precision that is of use."""
    assert [format_number(value) for value in (None, 0.123456, 12.345, 1234.5)] == ["-", "0.123", "12.3", "1234"]
    assert [format_seconds(value) for value in (None, 0.0012, 0.25, 1.5)] == ["-", "1.2ms", "250ms", "1.50s"]
    spans = [format_span(value) for value in (0, 59.9, 299, 301, 4000, 86400 * 3 + 5000)]
    assert spans == ["0s", "59s", "4m59s", "5m", "1h6m", "3d1h"]
    assert format_ago(None, 5) == "-"
    assert format_ago(1, 5) == "4s ago"


def test_an_agent_keeps_its_colour() -> None:
    """The same in every process: no seeded hash."""
    assert (agent_colour("ingest"), agent_colour("stock")) == (agent_colour("ingest"), agent_colour("stock"))
    assert len({agent_colour(f"agent-{number}") for number in range(100)}) == 10


def test_since() -> None:
    """A span back from now, a moment, or seconds of the epoch."""
    since = Since()
    assert since.convert("90", None, None) == pytest.approx(time.time() - 90, abs=2)
    assert since.convert("1h", None, None) == pytest.approx(time.time() - 3600, abs=2)
    assert since.convert("1750000000", None, None) == 1750000000
    assert since.convert("2025-06-15T02:00:00+00:00", None, None) == 1749952800


def test_it_is_settled_when_its_generation_is() -> None:
    """An older generation says nothing; agents that count may be named."""
    settling = Settling(4)
    assert settling.judge(replace(STATUS, generation=3, observed_generation=3), 0) is Verdict.WAITING
    behind = replace(STATUS, generation=4, settled=False)
    assert settling.judge(behind, 1) is Verdict.WAITING
    assert settling.judge(replace(behind, settled=True), 1) is Verdict.WAITING
    assert settling.judge(replace(behind, settled=True, observed_generation=4), 1) is Verdict.SETTLED
    some = Settling(4, ["ingest"])
    assert some.judge(behind, 1) is Verdict.WAITING
    taken_up = replace(behind, observed_generation=4)
    assert some.judge(replace(taken_up, agents=(replace(INGEST, settled=False),)), 1) is Verdict.WAITING
    assert some.judge(taken_up, 1) is Verdict.SETTLED


def test_what_keeps_failing_is_a_failure() -> None:
    """A failure that is over in a moment is none; one that comes back at each restart is."""

    def look(state: str) -> object:
        return replace(STATUS, settled=False, agents=(replace(INGEST, state=state),))

    settling = Settling(3)
    looks = [("failed", 0.0), ("progressing", 1.0), ("failed", 1.9), ("progressing", 2.5), ("failed", 2.6)]
    verdicts = [settling.judge(look(state), now) for state, now in looks]  # type: ignore[arg-type]
    assert verdicts == [Verdict.WAITING] * 4 + [Verdict.FAILED]
    settling = Settling(3)
    looks = [("failed", 0.0), ("ok", 1.0), ("failed", 2.5)]
    assert [settling.judge(look(state), now) for state, now in looks] == [Verdict.WAITING] * 3  # type: ignore[arg-type]


def test_while_the_engine_is_away_nothing_is_a_failure() -> None:
    """What failed before is looked at anew once it is back; one that stays away is told."""
    failed = replace(STATUS, settled=False, agents=(replace(INGEST, state="failed"),))
    away = replace(failed, problems=("Docker can't be reached",), engine_away=True)
    settling = Settling(3)
    looks = [(failed, 0.0), (away, 1.0), (away, 30.0), (failed, 30.5), (failed, 32.0), (failed, 32.5)]
    assert [settling.judge(view, now) for view, now in looks] == [Verdict.WAITING] * 5 + [Verdict.FAILED]
    settling = Settling(3)
    assert [settling.judge(away, now) for now in (1.0, 30.9, 31.0)] == [Verdict.WAITING] * 2 + [Verdict.FAILED]
    assert "It goes on as soon as that is back" in describe_failure(settling, away)


def test_a_gateway_that_does_not_start_is_a_failure() -> None:
    """Once it was tried for a while; what is not routed yet without a problem is waited for."""
    waits = replace(STATUS, settled=False, routed=False)
    stuck = replace(waits, problems=("the gateway on n1 does not run: port 80 is in use",))
    settling = Settling(3)
    looks = [(stuck, 0.0), (waits, 5.0), (stuck, 9.0), (stuck, 43.9), (stuck, 44.0)]
    assert [settling.judge(view, now) for view, now in looks] == [Verdict.WAITING] * 4 + [Verdict.FAILED]


def test_a_problem_that_stays_keeps_a_generation_from_being_taken_up() -> None:
    """One that is over within seconds doesn't, and what is a problem afterwards is no matter of this."""
    behind = replace(STATUS, generation=4, problems=("local.port: 80 is used by nginx (pid 7)",))
    mended = replace(behind, problems=())
    settling = Settling(4)
    looks = [(behind, 0.0), (behind, 2.9), (mended, 3.0), (behind, 4.0), (behind, 6.9), (behind, 7.0)]
    assert [settling.judge(view, now) for view, now in looks] == [Verdict.WAITING] * 5 + [Verdict.FAILED]
    settling = Settling(3)
    running = replace(STATUS, problems=("the engine can't say",))
    assert [settling.judge(running, now) for now in (0.0, 9.0)] == [Verdict.SETTLED] * 2


def test_a_later_generation_supersedes() -> None:
    """Whether it was taken up already or is only stored."""
    assert Settling(2).judge(replace(STATUS, generation=3, observed_generation=2), 0) is Verdict.SUPERSEDED
    assert Settling(2).judge(replace(STATUS, generation=3, observed_generation=3), 0) is Verdict.SUPERSEDED


def test_who_is_waited_for_counts_too() -> None:
    """`up AGENT` tells that what it waits for has failed, however far off that is, and of no other failure."""
    named = replace(INGEST, name="web", state="progressing", settled=False, waits_on=("api",))
    between = replace(named, name="api", waits_on=("db",))
    failed = replace(named, name="db", state="failed", waits_on=())
    view = replace(STATUS, generation=1, observed_generation=1, settled=False, agents=(named, between, failed))
    settling = Settling(1, ["web"])
    assert settling.judge(view, 0) is Verdict.WAITING and settling.judge(view, 9) is Verdict.FAILED
    assert settling.in_the_way(view) == [named, between, failed]
    started = replace(view, agents=(replace(named, state="ok", settled=True, waits_on=()), between, failed))
    assert Settling(1, ["web"]).judge(started, 0) is Verdict.SETTLED


def test_explain_says_what_an_agent_waits_for() -> None:
    """Its count alone does not tell why none of it runs."""
    waiting = replace(INGEST, state="progressing", reason="waits for stock to be ready", pin=None)
    assert "progressing: waits for stock to be ready" in render_explanation(waiting, (), 0.0).splitlines()
    assert "ok: " not in render_explanation(replace(INGEST, state="ok", reason="at its target"), (), 0.0)


def test_part_of_a_fleet() -> None:
    """The named agents change, those that they call come with them, the others stay as they are stored."""
    assert list(take_agents(None, FLEET, ["c"]).agents) == ["c"]
    assert list(take_agents(None, FLEET, ["b"]).agents) == ["a", "b"]
    newer = FLEET.model_copy(
        update={"agents": {name: agent.model_copy(update={"port": 9}) for name, agent in FLEET.agents.items()}}
    )
    only_c = take_agents(None, FLEET, ["c"])
    taken = take_agents(only_c, newer, ["b"])
    assert {name: agent.port for name, agent in taken.agents.items()} == {"c": None, "a": 9, "b": 9}
    taken = take_agents(FLEET, newer, ["a"])
    assert {name: agent.port for name, agent in taken.agents.items()} == {"a": 9, "b": 2, "c": None}
    with pytest.raises(PlanError, match="no agent 'x' in the file; there are: a, b, c"):
        take_agents(FLEET, newer, ["x"])
    named = FLEET.model_copy(update={"agents": {"hello": FLEET.agents["a"]}})
    with pytest.raises(PlanError, match="no agent 'helo' in the file; did you mean 'hello'"):
        take_agents(None, named, ["helo"])


def test_part_of_a_fleet_brings_what_it_waits_for() -> None:
    """And is refused where agents would wait for each other: the file may be right, and the mixture is not."""
    document = {"a": {"command": ["a"], "port": 1, "depends_on": ["b"]}, "b": {"command": ["b"], "port": 2}}
    new = Fleet.from_document({"fleet": "f", "agents": document})
    assert list(take_agents(None, new, ["a"]).agents) == ["a", "b"]
    other_way = {"a": {"command": ["a"], "port": 1}, "b": {"command": ["b"], "port": 2, "depends_on": ["a"]}}
    old = Fleet.from_document({"fleet": "f", "agents": other_way})
    with pytest.raises(PlanError, match="with a alone changed, agents would wait for each other: a -> b -> a"):
        take_agents(old, new, ["a"])


def test_doctor_says_what_to_do(tmp_path: Path) -> None:
    """A finding that is not fine has a remedy."""
    assert check_python((3, 9, 1)).result == "failure"
    assert check_python().result == "ok"
    low = check_open_files(lambda _: (256, 8192))
    assert (low.result, "ulimit -n 4096" in low.remedy) == ("warning", True)
    assert "limits.conf" in check_open_files(lambda _: (256, 256)).remedy
    assert check_open_files(lambda _: (10**6, 10**6)).result == "ok"
    assert next(check_directory(tmp_path / "not" / "there")).result == "ok"
    assert check_socket(tmp_path / ("x" * 100)).result == "note"
    assert check_socket(Path("/var/s")).result == "ok"


def test_doctor_looks_at_the_port(tmp_path: Path) -> None:
    """In use is a failure that names who has it."""
    import os
    import socket

    import psutil

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = check_port(port, tmp_path)
        assert found.result == "failure"
        assert f"{port} is used by {psutil.Process().name()} (pid {os.getpid()})" in found.found
    assert check_port(port, tmp_path) == Finding("port", "ok", f"{port} is free")
    assert check_port(0, tmp_path) == Finding("port", "ok", "the gateway takes any free one")
    nowhere = check_port(port, tmp_path, "192.0.2.1")
    assert (nowhere.result, nowhere.found) == ("failure", "this machine has no address 192.0.2.1")


def test_doctor_looks_at_the_port_of_the_metrics(home: Path, run: Run) -> None:
    """Where the fleet has one; the controller's own is fine."""
    import os
    import socket

    import psutil

    def look() -> list[tuple[str, str, str]]:
        findings = json.loads(run("doctor", "-o", "json").out)
        return [(each["result"], each["found"], each["remedy"]) for each in findings if each["check"] == "metrics port"]

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (home / "shoal.yaml").write_text(
            f"fleet: f\nmetrics: {{port: {port}}}\nagents: {{a: {{command: [x], port: 1}}}}\n"
        )
        who = f"{psutil.Process().name()} (pid {os.getpid()})"
        assert look() == [("failure", f"{port} is used by {who}", "stop it, or set metrics.port to another one")]
        mine = Path(psutil.Process().cmdline()[-1])  # a process that names the directory works for the fleet
        assert list(check_metrics_port(port, 0, mine)) == [
            Finding("metrics port", "ok", f"{port} is that of the fleet's controller")
        ]
    assert look() == [("ok", f"{port} is free", "")]
    (home / "shoal.yaml").write_text("fleet: f\nmetrics: {port: 8080}\nagents: {a: {command: [x], port: 1}}\n")
    assert look() == [("failure", "8080 is local.port too", "set metrics.port to another one")]
    (home / "shoal.yaml").write_text("fleet: f\nagents: {a: {command: [x], port: 1}}\n")
    assert look() == []


def test_doctor_reports_what_it_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of ending by it; and not what agents keep."""
    (tmp_path / "state.db").write_text("x")
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "theirs").write_text("x")
    assert list(check_controller(tmp_path)) == []
    monkeypatch.setattr("os.access", lambda *_: False)
    assert [finding.found for finding in check_controller(tmp_path)] == [f"{tmp_path / 'state.db'} can't be read"]


def test_stand_ins_of_sockets_go_once_nobody_listens(tmp_path: Path) -> None:
    """Asking where a socket would be makes nothing; the one who listens makes it; the end removes it."""
    directory = tmp_path / ("long" * 30)
    asked = socket_path(directory)
    assert len(str(asked)) < 100
    assert not asked.parent.exists()
    assert reachable_socket(directory / "controller.sock") == asked
    assert asked.parent.is_dir()
    remove_stand_in(directory)
    assert not asked.parent.exists()


@pytest.mark.parametrize(
    ("directory", "name"),
    [("My Shop (2)", "my-shop-2"), ("2025", "fleet-2025"), ("日本", "hello"), ("x" * 60, "x" * 40)],
)
def test_the_first_fleet_is_named_after_its_directory(directory: str, name: str) -> None:
    """As far as a fleet's name may be that."""
    assert fleet_name(directory) == name
