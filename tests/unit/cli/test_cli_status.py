"""`shoal status` shows the truth in 80 columns, unhealthy agents first, and to programs as data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import yaml

from shoal.cli.status_text import describe_changes, render_agent, render_status
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import IMAGES, INGEST, NOW, STATUS, FakeController


def test_desired_ready_and_starting_stand_apart(fake: FakeController, run: Run) -> None:
    """One row an agent; what is unwell comes first, with its reason."""
    done = run("status")
    assert done.code == 0
    head, _, titles, *rows = done.out.splitlines()
    assert head == "warehouse on local, settled, http://127.0.0.1:8080"
    assert titles.split() == ["AGENT", "KIND", "STATE", "DESIRED", "READY", "STARTING", "REASON"]
    assert [row.split()[:6] for row in rows] == [
        ["image-processing", "worker", "degraded", "1", "0", "0"],
        ["forecasting", "job", "ok", "-", "0", "0"],
        ["ingest", "service", "ok", "2", "2", "0"],
    ]
    assert "ended with exit code 3" in rows[0]
    assert "next run at" in rows[1]


def test_it_fits_80_columns() -> None:
    """Reasons are wrapped, or put below their row; nothing is cut off and no line is longer than the terminal."""
    for wide in (False, True):
        text = click.unstyle(render_status(STATUS, 80, wide=wide))
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "ended with exit code 3 and waits 8s to be started again" in " ".join(text.split())
    detail = click.unstyle(render_agent(IMAGES, NOW, 80))
    assert max(len(line) for line in detail.splitlines() if "reason:" not in line) <= 80


def test_wide_adds_the_figures(fake: FakeController, run: Run) -> None:
    """CPU, memory, requests a second, p95, depth and restarts."""
    out = run("status", "-o", "wide").out
    assert out.splitlines()[2].split()[-7:] == ["CPU", "MEMORY", "RPS", "P95", "DEPTH", "RESTARTS", "REASON"]
    row = next(line for line in out.splitlines() if line.startswith("ingest"))
    assert row.split()[6:12] == ["0.42", "120Mi", "12.5", "83ms", "-", "1"]


def test_one_agent_in_full(fake: FakeController, run: Run) -> None:
    """Its replicas, its last decision, and the last lines of those that are not ready."""
    out = run("status", "image-processing").out
    assert "image-processing-r2-0" in out
    assert "backoff" in out
    assert "KeyError: 'MODEL'" in out
    out = run("status", "ingest").out
    assert "last decision:" in out
    assert "concurrency 31 of 20 a replica" in out
    assert "2 desired, 2 ready, 0 starting, 0 stopping (between 1 and 8)" in out
    out = run("status", "forecasting").out
    assert "forecasting-20250615T020000" in out
    assert "1m40s" in out


def test_programs_get_data(fake: FakeController, run: Run) -> None:
    """JSON and YAML of the same view; `-o` may stand before the command too."""
    as_json = json.loads(run("status", "-o", "json").out)
    assert as_json["agents"][1]["desired"] == 2
    assert yaml.safe_load(run("-o", "yaml", "status").out) == as_json
    assert json.loads(run("status", "ingest", "-o", "json").out)["name"] == "ingest"


def test_an_unknown_agent_names_the_nearest(fake: FakeController, run: Run) -> None:
    """A slip is told with what was meant."""
    done = run("status", "ingst")
    assert done.code == 1
    assert "did you mean 'ingest'?" in done.err


def test_without_anything_it_says_what_to_do(directory: Path, run: Run) -> None:
    """No controller and no state: `shoal up` is the answer."""
    done = run("status")
    assert (done.code, done.out) == (1, "")
    assert "shoal up" in done.err


def test_a_reason_that_comes_and_goes_at_rest_is_no_change() -> None:
    """Under traffic it does with each look; of one that is not at rest it is what is waited for."""
    one = replace(INGEST, reason="kept at 1 by min")
    for changed, told in (
        (replace(one, reason="there is no target, as there are no replicas"), 0),
        (replace(one, reason="pinned to 2 by hand", pin=2), 1),
        (replace(one, desired=3, reason="concurrency"), 1),
        (replace(one, state="progressing", reason="its container is being made"), 1),
    ):
        before, after = replace(STATUS, agents=(one,)), replace(STATUS, agents=(changed,))
        lines = describe_changes(before, after)
        assert len(lines) == told and all(changed.reason in line for line in lines)
        assert len(describe_changes(after, before)) == told
    starting = replace(one, state="progressing", reason="not placed on a node yet")
    pulled = replace(starting, reason="its container is being made")
    assert describe_changes(replace(STATUS, agents=(starting,)), replace(STATUS, agents=(pulled,)))


def test_watching_without_a_terminal_gives_a_line_a_change(fake: FakeController, run: Run) -> None:
    """What did not change is not said again."""
    grown = replace(INGEST, desired=3, starting=1, state="progressing", reason="1 replica is not ready yet")
    fake.watched = [STATUS, STATUS, replace(STATUS, agents=(*STATUS.agents[:1], grown))]
    lines = run("status", "--watch").out.splitlines()
    assert len(lines) == 5
    assert lines[3].endswith("ingest: progressing, 3 desired, 2 ready, 1 starting: 1 replica is not ready yet")
    assert lines[4].endswith("image-processing: gone")


def test_problems_of_the_fleet_are_told(fake: FakeController, run: Run) -> None:
    """What no agent is to blame for stands above the table, and a fleet that is behind says so."""
    fake.status = replace(STATUS, problems=("the broker does not answer",), observed_generation=2, settled=False)
    lines = run("status").out.splitlines()
    assert lines[0].startswith("warehouse on local, changing (generation 2 of 3)")
    assert lines[1] == "problem: the broker does not answer"


def test_pins_and_stopping_replicas_show(fake: FakeController, run: Run) -> None:
    """A person's count is visible, and for how long it holds."""
    fake.status = replace(STATUS, agents=(replace(INGEST, pin=2, pin_until=NOW + 3600, stopping=1),))
    assert "pinned to 2; for 1h more; 1 stopping" in run("status").out


def test_the_name_of_the_fleet_is_enough(fake: FakeController, run: Run, tmp_path: Path) -> None:
    """`--fleet` works from anywhere; a name that could lead elsewhere is refused."""
    (Path.cwd() / "shoal.yaml").unlink()
    assert run("status", "--fleet", "warehouse").code == 0
    assert run("status").code == 1
    assert run("status", "--fleet", "../x").code == 2


def test_a_file_above_is_found(fake: FakeController, run: Run, home: Path) -> None:
    """As with Compose, from any directory below."""
    deep = home / "a" / "b"
    deep.mkdir(parents=True)
    import os

    os.chdir(deep)
    assert run("status").code == 0


def test_a_fleet_without_agents_says_why() -> None:
    """One that is taken down, one that is read, and one that has none."""
    empty = replace(STATUS, agents=())
    assert "It has no agents." in render_status(empty)
    assert "the gateway is ending" in render_status(replace(empty, settled=False))
    assert "reads what the fleet is" in render_status(replace(empty, settled=False, observed_generation=0))


def test_a_job_has_runs_instead_of_replicas() -> None:
    """No bounds, as nothing scales it; who always has one replica is told so."""
    job = next(agent for agent in STATUS.agents if agent.kind == "job")
    assert "between" not in render_agent(job, NOW)
    assert "(always 1)" in render_agent(replace(INGEST, min=1, max=1), NOW)
