"""The commands that ask the controller: what they send, and how they show what comes back."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.api.views import RunView
from shoal.cli.main import main
from shoal.cli.run import describe_end
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import FORECASTING, INGEST, NOW, STATUS, FakeController


def test_logs_name_their_replica(fake: FakeController, run: Run) -> None:
    """Each line says where it is from, and stderr is marked."""
    lines = run("logs").out.splitlines()
    assert lines == ["ingest-r1-0 | hello", "image-processing-r2-0 ! KeyError: 'MODEL'"]
    assert run("logs", "ingest").out == "ingest-r1-0 | hello\n"


def test_logs_pass_on_what_is_asked(fake: FakeController, run: Run) -> None:
    """`-f` follows here, so the file is `--file`."""
    run("logs", "-f", "--since", "10m", "--tail", "3", "ingest", "--file", "shoal.yaml")
    query = dict(fake.calls[0][1])
    assert float(query.pop("since")) == pytest.approx(time.time() - 600, abs=5)
    assert query == {"agent": "ingest", "follow": "1", "tail": "3"}
    assert json.loads(run("logs", "-o", "json").out.splitlines()[1])["stream"] == "stderr"
    assert run("logs", "--since", "soon").code == 2


def test_a_form_that_a_command_has_not(fake: FakeController, run: Run) -> None:
    """`wide` shows all there is; a form that a program would read is refused rather than ignored."""
    assert run("-o", "wide", "queue", "ls").out.startswith("QUEUE")
    done = run("-o", "yaml", "logs")
    assert (done.code, done.out) == (2, "")
    assert "'yaml' is not one of text, json" in done.err


def test_events(fake: FakeController, run: Run) -> None:
    """One line an event, the oldest first; the fleet's own have no agent."""
    first, second = run("events", "--since", "2025-06-15T02:00").out.splitlines()
    assert "ingest           scaled           1 -> 2: concurrency 31 of 20 a replica" in first
    assert "-                gateway          the gateway was started again" in second
    assert json.loads(run("events", "-o", "json").out.splitlines()[0])["kind"] == "scaled"


def test_scale_pins_and_releases(fake: FakeController, run: Run) -> None:
    """A count for a time, and back to the autoscaler."""
    assert run("scale", "ingest", "4", "--for", "1h").out == "ingest: pinned to 4 for 1h (2 ready now)\n"
    assert "above its max of 8, which does not hold for a pin" in run("scale", "ingest", "9").out
    assert run("scale", "ingest", "auto").out == "ingest: released, between 1 and 8 again\n"
    assert fake.calls == [
        ("scale", {"agent": "ingest", "count": 4, "for_s": 3600.0}),
        ("scale", {"agent": "ingest", "count": 9, "for_s": None}),
        ("scale", {"agent": "ingest", "count": None, "for_s": None}),
    ]
    for wrong in (["1000001"], ["many"], ["-1"], ["auto", "--for", "1h"], ["2", "--for", "long"]):
        assert run("scale", "ingest", *wrong).code == 2
    done = run("scale", "busy", "1")
    assert (done.code, done.err) == (1, "error: somebody else scales it\n")


def test_run_gives_the_run(fake: FakeController, run: Run) -> None:
    """The id on stdout, fit for a script."""
    assert run("run", "forecasting").out == "forecasting-1\n"
    assert json.loads(run("run", "forecasting", "-o", "json").out) == {"run_id": "forecasting-1"}


@pytest.mark.parametrize(("phase", "exit_code", "code"), [("succeeded", 0, 0), ("failed", 3, 1)])
def test_run_waits_for_the_end(fake: FakeController, run: Run, phase: str, exit_code: int, code: int) -> None:
    """`--wait` shows each phase, and fails as the run does."""

    def look(*runs: RunView) -> object:
        return replace(STATUS, agents=(replace(FORECASTING, runs=runs),))

    running = RunView("forecasting-1", "running", 1, NOW, None, None, "")
    ended = RunView("forecasting-1", phase, 2, NOW, NOW + 100, exit_code, "")
    fake.watched = [look(), look(running), look(running), look(ended)]  # type: ignore[list-item]
    done = run("run", "forecasting", "--wait")
    assert done.code == code
    assert done.out.startswith(f"forecasting-1: {phase} after 1m40s, attempt 2")
    assert done.err.count("running") == 1
    fake.watched = []
    assert run("run", "forecasting", "--wait").code == 1


def test_the_end_of_a_run_is_said_once() -> None:
    """Its exit code is not repeated where the reason is just that."""
    ended = RunView("report-1", "failed", 2, NOW, NOW + 3, 4, "exit code 4")
    assert describe_end(ended) == "report-1: failed after 3s, attempt 2: exit code 4"
    late = replace(ended, exit_code=143, reason="timed out after 3s")
    assert describe_end(late) == "report-1: failed after 3s, attempt 2, exit code 143: timed out after 3s"


@pytest.mark.parametrize(
    "written",
    [
        ("hello", "sh", "-c", "x"),
        ("hello", "--", "sh", "-c", "x"),
        ("--", "hello", "sh", "-c", "x"),
        ("-it", "hello", "sh", "-c", "x"),
        ("-i", "-t", "hello", "--", "sh", "-c", "x"),
    ],
)
def test_dashes_before_the_command_of_exec(
    directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch, written: tuple[str, ...]
) -> None:
    """End the options, wherever they stand; a second pair is the command's own. Those for a terminal may be given."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    async def note(_: object, target: str, argv: tuple[str, ...], tty: bool) -> int:
        asked.append((target, argv))
        return 0

    monkeypatch.setattr("shoal.cli.exec._run", note)
    assert run("exec", *written).code == 0
    assert run("exec", "hello", "--", "--", "-x").code == 0
    assert asked == [("hello", ("sh", "-c", "x")), ("hello", ("--", "-x"))]
    done = run("exec", "hello", "--")
    assert done.code == 2 and "Missing argument" in done.err
    done = run("exec", "-x", "hello", "sh")
    assert done.code == 2 and "No such option" in done.err


def test_a_number_that_is_none(fake: FakeController, run: Run) -> None:
    """Is refused in plain words."""
    for arguments, expected in (
        (("rollout", "undo", "ingest", "--to", "x"), "found 'x'; expected a whole number from 1 on"),
        (("explain", "ingest", "-n", "0"), "found '0'; expected a whole number from 1 on"),
        (("queue", "peek", "tasks", "-n", "1001"), "found '1001'; expected a whole number from 1 to 1000"),
    ):
        done = run(*arguments)
        assert done.code == 2 and expected in done.err


def test_explain_says_why(fake: FakeController, run: Run) -> None:
    """The change, what each trigger asked for, what capped it, and when the answer could change."""
    decision = INGEST.decision
    assert decision is not None
    silent = {"trigger": "cpu", "count": None, "value": None, "target": None, "error": "no replica was measured"}
    capped = replace(decision, capped_by="max", proposals=(*decision.proposals, silent))
    fake.status = replace(STATUS, agents=(replace(INGEST, decision=capped),))
    out = run("explain", "ingest", "-n", "2").out
    assert fake.calls == [("explain", {"last": "2"})]
    assert out.startswith("ingest: 2 desired, 2 ready, between 1 and 8\n")
    assert "1 -> 2  concurrency 31 of 20 a replica" in out
    assert "concurrency    asks for 2: 31, target 20" in out
    assert "cpu            could not say: no replica was measured" in out
    assert "kept there by max" in out
    assert "looked at again at" in out
    assert json.loads(run("explain", "ingest", "-o", "json").out)["decisions"][0]["capped_by"] == "max"
    assert run("explain", "nobody").code == 1
    fake.status = STATUS
    assert run("explain", "forecasting").out == (
        "forecasting is a job, which has no count; `shoal status forecasting` shows its runs\n"
    )


def test_queues(fake: FakeController, run: Run) -> None:
    """What waits, what is worked on, what failed too often, and why."""
    titles, row = run("queue", "ls").out.splitlines()
    assert titles.split() == ["QUEUE", "BROKER", "WAITING", "IN", "PROGRESS", "DEAD", "CONSUMERS"]
    assert row.split() == ["image_tasks", "main", "40", "2", "3", "image-processing"]
    out = run("queue", "peek", "image_tasks", "--dead").out
    assert "17  5 attempts" in out
    assert "KeyError: 'MODEL'" in out
    assert '  {"image": "a.png"}' in out
    fake.tasks, fake.queues = [], []
    assert run("queue", "peek", "image_tasks").out == "image_tasks has no tasks that wait.\n"
    assert run("queue", "ls").out == "The fleet has no queues.\n"


def test_purge_asks(fake: FakeController, run: Run) -> None:
    """What can't be undone needs a yes; where nobody can be asked, it is refused."""
    done = run("queue", "purge", "image_tasks")
    assert (done.code, fake.calls) == (1, [])
    assert "--yes" in done.err
    assert run("queue", "purge", "image_tasks", "--dead", "-y").out == "image_tasks: 40 dead letters thrown away\n"
    assert run("queue", "redrive", "image_tasks").out == "image_tasks: 3 dead letters put back\n"
    assert json.loads(run("queue", "redrive", "image_tasks", "17", "-o", "json").out)["queue"] == "image_tasks"
    assert fake.calls == [("purge", {"dead": True}), ("redrive", {"ids": None}), ("redrive", {"ids": ["17"]})]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    """Each shell gets its own."""
    assert "_SHOAL_COMPLETE" in run("completion", shell).out


def test_completion_answers(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands by the table, agents by the file; a broken file gives none and no noise."""
    monkeypatch.setenv("_SHOAL_COMPLETE", "bash_complete")

    def complete(words: str) -> tuple[str, str]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", f"{words.count(' ')}")
        with pytest.raises(SystemExit):
            main([])
        captured = capsys.readouterr()
        return captured.out, captured.err

    assert complete("shoal st") == ("plain,status\n", "")
    (home / "shoal.yaml").write_text("fleet: x\nagents: {ingest: {}, images: {}}\nqueues: {tasks: {}}\n")
    assert complete("shoal logs in") == ("plain,ingest\n", "")
    assert complete("shoal queue peek t") == ("plain,tasks\n", "")
    (home / "shoal.yaml").write_text("fleet: [")
    assert complete("shoal logs in") == ("\n", "")
