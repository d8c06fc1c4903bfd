"""Specs as text, read from files of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import SpecError
from shoal.spec import Loaded, load

Read = Callable[..., Loaded]
Refuse = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Loads `text` as shoal.yaml, beside `files` by name."""

    def read(text: str, files: Mapping[str, str] | None = None, **options: Any) -> Loaded:
        monkeypatch.chdir(tmp_path)
        for name, content in {"shoal.yaml": text, **(files or {})}.items():
            Path(name).write_text(content, encoding="utf-8")
        return load(options.pop("paths", ["shoal.yaml"]), **options)

    return read


@pytest.fixture
def refuse(read: Read) -> Refuse:
    """The problems of a spec that can't be used, as text."""

    def refuse(*arguments: Any, **options: Any) -> list[str]:
        with pytest.raises(SpecError) as caught:
            read(*arguments, **options)
        assert all(problem.place is not None for problem in caught.value.problems)
        return [str(problem) for problem in caught.value.problems]

    return refuse


@pytest.fixture
def agent_of(read: Read) -> Callable[..., Any]:
    """The agent `a` of a fleet whose only agent has these lines."""

    def agent_of(lines: str, **options: Any) -> Any:
        return read(f"fleet: f\nagents:\n  a: {{{lines}}}\n", **options).fleet.agents["a"]

    return agent_of


@pytest.fixture
def refused_agent(refuse: Refuse) -> Refuse:
    """The problems of a fleet whose only agent has these lines, without their places."""

    def refused_agent(lines: str, **options: Any) -> list[str]:
        problems = refuse(f"fleet: f\nagents:\n  a: {{{lines}}}\n", **options)
        return [problem.partition(": ")[2] for problem in problems]

    return refused_agent
