"""`shoal plan` says what this machine can never give."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run


def notes(project: Path, run: Run, resources: str) -> list[str]:
    agent = f"{{command: [x], port: 1, resources: {resources}}}"
    (project / "shoal.yaml").write_text(f"fleet: f\nlocal: {{gpus: 1}}\nagents: {{a: {agent}}}\n")
    done = run("plan")
    assert done.code == 0, done.err
    return [line.removeprefix("note: ") for line in done.out.splitlines() if line.startswith("note: a ")]


def test_more_gpus_than_there_are(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its replicas would ever start."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert notes(home, run, "{gpu: 2}") == [
        "a can't start: a replica needs 2 GPUs, this machine has 1 (see local.gpus)"
    ]
    assert notes(home, run, "{gpu: 1}") == []


def test_more_memory_than_there_is(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is of no use."""
    (said,) = notes(home, run, "{memory: 100Ti}")
    assert said.startswith("a may use 100Ti of memory, this machine has ")
    assert said.endswith(": the limit keeps nobody from using it up")
    assert notes(home, run, "{memory: 64Mi}") == []
