"""What replicas wrote: whose lines, each once, and what is told of those that can't be read; what they use, and how
commands in them end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.engines.kubernetes.exec import read_end
from shoal.engines.kubernetes.logs import Logs, parse_line
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.read import epoch_s
from shoal.engines.kubernetes.usage import parse_quantity, parse_window
from shoal.errors import EngineError, EngineUnavailable
from tests.fake_kubernetes import FakeKubernetes
from tests.simulation.virtual_time import run_virtually

NEW_YEAR = 1767225600.0


class Kubelets(FakeKubernetes):
    """Pods with what they wrote; a pod's `error` is what is said in its stead."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, list[str]] = {}
        self.errors: dict[str, EngineError] = {}
        self.asked: list[Mapping[str, str]] = []

    def add(self, name: str, *lines: str, phase: str = "Running", **labels: str) -> None:
        role = Role.RUN if "run" in labels else Role.REVISION
        about = {"name": name, "uid": name, "labels": fleet_labels("shop", role, agent="web", **labels)}
        self.of(POD)[name] = {"metadata": about, "status": {"phase": phase}}
        self.lines[name] = list(lines)

    async def pods(self) -> list[dict[str, Any]]:
        return (await self.list(POD))[0]

    async def logs(self, pod: str, *, params: Mapping[str, str], follow: bool = False) -> AsyncGenerator[str, None]:
        self.asked.append(params)
        if pod in self.errors:
            raise self.errors[pod]
        for line in self.lines[pod]:
            yield line


def stamped(second: int, text: str) -> str:
    return f"2026-01-01T00:00:{second:02}.000000000Z {text}"


@pytest.mark.parametrize(
    ("line", "at", "text"),
    [
        ("2026-01-01T00:00:00.250000000Z hello  there", NEW_YEAR + 0.25, "hello  there"),
        ("2026-01-01T02:00:00.250000000+02:00 hello", NEW_YEAR + 0.25, "hello"),
        ("2026-01-01T00:00:00Z ", NEW_YEAR, ""),
        ("no time", None, "no time"),
    ],
)
def test_a_line_has_its_time(line: str, at: float | None, text: str) -> None:
    """By the clock of the node, wherever that is."""
    assert parse_line(line) == (at, text)


async def test_lines_of_all_are_in_their_order() -> None:
    """Of the agent's container, if others are beside it; a run's by its name."""
    kubelets = Kubelets()
    kubelets.add("a", stamped(1, "one"), stamped(3, "three"))
    kubelets.add("b", stamped(2, "two"), run="web-1")
    lines = await Logs(kubelets, kubelets.pods).read(["web"], None, 5)
    assert [(line.replica, line.text) for line in lines] == [("a", "one"), ("web-1", "two"), ("a", "three")]
    assert {each["container"] for each in kubelets.asked} == {"agent"}
    assert await Logs(kubelets, kubelets.pods).read(["other"], None, None) == []


async def test_one_that_can_not_be_read_says_so() -> None:
    """The others are read all the same; one that has not started has nothing to say."""
    kubelets = Kubelets()
    for name in ("a", "lost", "new"):
        kubelets.add(name, stamped(1, "one"))
    kubelets.errors["lost"] = EngineUnavailable("no answer in time")
    kubelets.errors["new"] = KubernetesError("waits", status=400, reason="BadRequest", said="waiting to start")
    lines = await Logs(kubelets, kubelets.pods).read(["web"], None, None)
    assert sorted((line.replica, line.text, line.stream) for line in lines) == [
        ("a", "one", "stdout"), ("lost", "not read: no answer in time", "stderr"),
    ]  # fmt: skip


async def test_a_server_that_is_away_is_one_error() -> None:
    """Not a group of them, which nobody expects."""
    kubelets = Kubelets()
    kubelets.away = EngineUnavailable("no route")
    with pytest.raises(EngineUnavailable, match="no route"):
        await Logs(kubelets, kubelets.pods).read(["web"], None, None)


async def test_what_is_read_before_it_is_followed_ends_there() -> None:
    """A line is given by the one or by the other."""
    kubelets = Kubelets()
    kubelets.add("a", stamped(1, "before"), stamped(2, "after"))
    logs = Logs(kubelets, kubelets.pods)
    before = await logs.read(["web"], None, None, until=NEW_YEAR + 2)
    async with aclosing(logs.follow(["web"], NEW_YEAR + 2)) as lines:
        after = await anext(lines)
    assert ([line.text for line in before], after.text) == (["before"], "after")


async def test_who_follows_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a pod had not started, or its kubelet or the server was away for a while; each line comes once, those
    too of a pod that has ended by the next look."""
    kubelets = Kubelets()
    kubelets.add("a", stamped(1, "one"), phase="Pending")
    kubelets.errors["a"] = KubernetesError("waits", status=400, reason="BadRequest", said="waiting to start")
    kubelets.add("b", stamped(1, "two"))
    looks = 0
    real = asyncio.sleep

    async def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            kubelets.away = EngineUnavailable("no route")
        elif looks == 10:
            kubelets.away = None
            kubelets.errors.clear()
            kubelets.of(POD)["a"]["status"]["phase"] = "Succeeded"
        for _ in range(10):
            await real(0)
        if looks == 20:
            kubelets.add("end", stamped(9, "end"))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    heard: list[str] = []
    async with aclosing(Logs(kubelets, kubelets.pods).follow(["web"], NEW_YEAR)) as lines:
        async for line in lines:
            heard.append(line.text)
            if line.text == "end":
                break
    assert heard == ["two", "one", "end"]


class Writing(Kubelets):
    """One whose pods go on writing until they are in `ended`."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, asyncio.Event] = {}

    async def logs(self, pod: str, *, params: Mapping[str, str], follow: bool = False) -> AsyncGenerator[str, None]:
        async with aclosing(super().logs(pod, params=params, follow=follow)) as lines:
            async for line in lines:
                yield line
        await self.ended.setdefault(pod, asyncio.Event()).wait()


def test_more_pods_than_can_be_followed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and followed when another one ends. Those that have ended take nobody's place, nor do those that have not
    started; who comes next is told by how many all others follow."""
    monkeypatch.setattr("shoal.engines.kubernetes.logs.MOST_FOLLOWED", 2)

    async def run() -> None:
        kubelets, heard = Writing(), list[tuple[str, str]]()
        kubelets.add("new", phase="Pending")
        kubelets.add("over", stamped(1, "rest"), phase="Succeeded", run="web-1")
        kubelets.ended["over"] = asyncio.Event()
        kubelets.ended["over"].set()
        for name in ("a", "b", "c", "d"):
            kubelets.add(name, stamped(2, f"of {name}"))
        logs = Logs(kubelets, kubelets.pods)

        async def follow() -> None:
            async with aclosing(logs.follow(["web"], NEW_YEAR)) as lines:
                async for line in lines:
                    heard.append((line.replica, line.text.partition(":")[0]))

        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(follow())
            await asyncio.sleep(5.5)
            assert sorted(heard) == [
                ("a", "of a"), ("b", "of b"), ("c", "not followed, nor 1 more"), ("web-1", "rest")
            ]  # fmt: skip
            heard.clear()
            kubelets.of(POD).pop("a")
            kubelets.ended["a"].set()
            await asyncio.sleep(5.0)
            assert heard == [("c", "of c")]
            heard.clear()
            another = tasks.create_task(follow())
            await asyncio.sleep(5.0)
            assert sorted(heard) == [("b", "not followed, nor 2 more"), ("web-1", "rest")]
            one.cancel()
            await asyncio.sleep(2.0)
            assert logs.followed == 2
            another.cancel()
        assert logs.followed == 0

    run_virtually(run())


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("12Ki", 12288.0), ("3", 3.0), ("1500000n", 0.0015), ("2e3", 2000.0)]
)
def test_quantities(text: str, number: float) -> None:
    assert parse_quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "m", "1Qi", "-"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(("text", "seconds"), [("15.5s", 15.5), ("1m30s", 90.0), ("250ms", 0.25), ("", 15.0)])
def test_windows(text: str, seconds: float) -> None:
    assert parse_window(text) == pytest.approx(seconds)


CODE = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}
OCI = 'OCI runtime exec failed: exec failed: unable to start container process: exec: "x": '


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        ({"status": "Success"}, 0, ""),
        (CODE, 7, ""),
        ({"status": "Failure", "message": f"{OCI}executable file not found in $PATH"}, 127, 'exec: "x": executable'),
        ({"status": "Failure", "message": f"{OCI}permission denied"}, 126, 'exec: "x": permission denied'),
    ],
)
def test_how_a_command_ended(status: dict[str, Any], code: int, why: str) -> None:
    """As a shell has it."""
    found, said = read_end(status)
    assert found == code and said.startswith(why)


def test_a_command_that_nobody_tried() -> None:
    with pytest.raises(KubernetesError, match="the command was not started: container not found"):
        read_end({"status": "Failure", "message": "container not found"})


def test_times() -> None:
    assert epoch_s("2026-01-01T00:00:00Z") == NEW_YEAR and epoch_s(None) is None
