"""`shoal render`: what is written, that it is always the same, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shoal.cli.kubernetes.manifest import format_manifest
from tests.unit.cli.conftest import Run

FILE = """
fleet: shop
image: acme/shop:1
agents:
  web: {port: 80, calls: [stock], scale: {min: 2, max: 4, target: {concurrency: 5}}, secrets: [KEY, B, A]}
  stock: {port: 80, stateful: true, volumes: ["stock:/data"], publishes: [later]}
  fit: {schedule: "0 2 * * *", volumes: ["models:/m"], environment: {Z: "y", A: "1e3"}}
environments:
  prod: {engine: kubernetes, namespace: shop-prod}
  far: {engine: swarm}
"""


@pytest.fixture
def file(home: Path) -> Path:
    (home / "shoal.yaml").write_text(FILE)
    return home / "shoal.yaml"


def test_the_same_bytes(file: Path, run: Run) -> None:
    """Each time, in whatever order Python has its sets; and the variables of secrets are not looked at."""
    first = run("render", "-e", "prod").out
    command = [sys.executable, "-m", "shoal.cli", "render", "-e", "prod"]
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "KEY": "hunter2"}
        assert subprocess.run(command, env=environ, capture_output=True, check=True).stdout.decode() == first
    assert first.endswith("\n") and not any(line != line.rstrip() for line in first.splitlines())


def test_the_engine_is_said(file: Path, run: Run) -> None:
    """By the file, or by who asks."""
    for arguments in ((), ("-e", "far")):
        done = run("render", *arguments)
        assert (done.code, done.out) == (1, "")
        assert "only a fleet on kubernetes can be rendered; name an environment of that engine by -e" in done.err
    assert "namespace: shop-prod" in run("render", "-e", "prod").out
    assert "namespace: shop\n" in run("render", "--engine", "kubernetes").out
    assert run("render", "--engine", "swarm").code == 2


def test_what_is_left_out_is_said(file: Path, run: Run) -> None:
    """By the names that the objects have for it; a Secret there is none."""
    out = run("render", "-e", "prod").out
    comment, _, documents = out.partition("---\n")
    assert all(line.startswith("#") for line in comment.splitlines())
    named = [line.split()[1].rstrip(":") for line in comment.splitlines() if line.startswith("#   ")]
    assert {"shoal-keys", "shoal-join", "shoal-admin"} < set(named)
    for name in named:
        assert name == "shoal-admin" or name in documents
    assert all(item["kind"] != "Secret" for item in yaml.safe_load_all(documents))


def test_an_agent_that_cannot_be_there(file: Path, run: Run) -> None:
    """Is told before anything is written."""
    done = run("render", "-e", "prod", "--set", "agents.web.user=root")
    assert (done.code, done.out) == (1, "")
    assert "agents.web.user: found root" in done.err


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["y", "N", "on", "Yes", "true", "null", "~", "", "1e3", "0o7", "0x1", "1_0", "12:30", ".inf", "=", "<<", "- a",
     "a: b", "#", "a #b", "2026-01-01", "1234567890", "12345e6789", "\x85", "\u2028", "\ufeff", "a\nb", "'", '"', "\\",
     "😀"]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    """Whatever the text looks like."""
    assert yaml.safe_load(format_manifest(value)) == value


@given(TEXTS)
def test_text_is_text_for_whatever_reads_it(text: str) -> None:
    """What other readers could take for a number or a truth value is within quotes."""
    written = format_manifest({"key": text}).removeprefix("key: ").rstrip("\n")
    begins_as_word = text[:1].isascii() and (text[:1].isalpha() or text[:1] == "/")
    assert written.startswith('"') or (begins_as_word and len(text) > 1)
