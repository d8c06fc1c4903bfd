"""What is known of a kind of objects stays right when watches end, fail or tell of something late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.informer import Informer
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.errors import EngineUnavailable
from tests.fake_kubernetes import FakeKubernetes

Object = dict[str, Any]
LABELS = {"shoal.dev/fleet": "f"}


def item(name: str, version: int, **more: Any) -> Object:
    about = {"name": name, "labels": LABELS, "resourceVersion": str(version)}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": about, **more}


def noted(name: str, version: int) -> Object:
    """With what the API server notes of its fields."""
    found = item(name, version)
    found["metadata"]["managedFields"] = [{"manager": "shoal"}]
    return found


class Script(FakeKubernetes):
    """Watches tell what a test wrote, one list for each watch; an error ends one. Then nothing happens any more."""

    def __init__(self, *watches: Sequence[tuple[str, Object] | Exception]) -> None:
        super().__init__()
        self.watches = list(watches)
        self.begun: list[str] = []
        self.lists = 0
        self.quiet = asyncio.Event()

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = LABELS, *, fields: str = ""
    ) -> tuple[list[Object], str]:
        self.lists += 1
        found, _ = await super().list(kind, labels, fields=fields)
        return found, "100"

    async def watch(
        self, kind: Kind, labels: Mapping[str, str], version: str, *, fields: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]:
        self.begun.append(version)
        if not self.watches:
            self.quiet.set()
            await asyncio.Event().wait()
        for told in self.watches.pop(0):
            if isinstance(told, Exception):
                raise told
            yield told


async def play(script: Script, monkeypatch: pytest.MonkeyPatch) -> tuple[Informer, list[str | None]]:
    """The informer after all watches, and the names of what it told of."""
    told: list[str | None] = []
    informer = Informer(script, POD, LABELS, lambda i: told.append(i["metadata"]["name"] if i is not None else None))
    real = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: real(0))
    await until_quiet(informer, script)
    return informer, told


async def until_quiet(informer: Informer, script: Script) -> None:
    """Lets it run through the script."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(informer.run())
        await script.quiet.wait()
        running.cancel()


GONE = KubernetesError("too old", status=410, reason="Expired", said="too old")


async def test_what_happens_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([("ADDED", item("a", 101)), ("ADDED", item("b", 102)), ("DELETED", item("a", 103))])
    informer, told = await play(script, monkeypatch)
    assert (set(informer.items), told) == ({"b"}, [None, "a", "b", "a"])


async def test_who_set_which_field_of_a_pod_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is half of what thousands of pods take, whether they are listed, watched or written; of others it is read."""
    script = Script([("ADDED", noted("b", 101))])
    script.of(POD)["a"] = noted("a", 90)
    informer, _ = await play(script, monkeypatch)
    informer.put(noted("c", 102))
    assert informer.items == {name: item(name, version) for name, version in (("a", 90), ("b", 101), ("c", 102))}
    deployments = Informer(FakeKubernetes(), DEPLOYMENT, LABELS, lambda _: None)
    deployments.put(noted("web", 1))
    assert deployments.items["web"] == noted("web", 1)


async def test_a_watch_that_ends_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last version, which a bookmark tells too; nothing is listed again."""
    script = Script([("ADDED", item("a", 101))], [("BOOKMARK", item("", 150))])
    informer, _ = await play(script, monkeypatch)
    assert (script.begun, script.lists, set(informer.items)) == (["100", "101", "150"], 1, {"a"})


async def test_a_version_that_is_too_old_is_listed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no news of the server."""
    script = Script([("ADDED", item("a", 101)), GONE])
    script.of(POD)["b"] = item("b", 90)
    informer, told = await play(script, monkeypatch)
    assert (script.lists, set(informer.items), told) == (2, {"b"}, [None, "a", None])
    assert informer.away is None


async def test_versions_that_go_on_expiring_are_listed_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first, which is listed at once; and so again once they lasted for a while."""
    waits: list[float] = []
    script = Script(*[[GONE]] * 7)
    informer, passed_s, real = Informer(script, POD, LABELS, lambda _: None), 0.0, asyncio.sleep
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: passed_s)

    async def sleep(seconds: float) -> None:
        nonlocal passed_s
        waits.append(seconds)
        passed_s += 100 if len(waits) == 5 else seconds
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await until_quiet(informer, script)
    assert (script.lists, informer.away, len(waits)) == (8, None, 5)  # 7 expired, two of them after a while
    assert 0.2 <= waits[0] <= 0.4 and 2 <= waits[4] <= 4


async def test_a_server_that_was_away_is_back_although_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known stays meanwhile; then all is listed, as a watch on which nothing happens says nothing."""
    away = EngineUnavailable("no route")
    script = Script([("ADDED", item("a", 101)), away])
    script.of(POD)["a"] = item("a", 101)
    informer, told = await play(script, monkeypatch)
    assert (script.lists, set(informer.items), informer.away) == (2, {"a"}, None)
    assert told == [None, "a", None, None]


@pytest.mark.parametrize("asked", [6, 1200])
async def test_the_longer_it_is_away_the_rarer_it_is_asked(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    """For more than an hour too."""
    waits: list[float] = []
    script = Script()
    script.away = EngineUnavailable("no route")
    informer = Informer(script, POD, LABELS, lambda _: None)
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        script.away = None if len(waits) == asked else script.away
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await until_quiet(informer, script)
    assert 0.2 <= waits[0] <= 0.4 and 2 <= waits[5] <= 4 and max(waits) <= 4 and informer.away is None


async def test_watches_that_go_on_failing_are_listed_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each list in between is answered, as without the right to watch; one that lasted is forgiven."""
    waits: list[float] = []
    script = Script(*[[EngineUnavailable("may not watch")]] * 7)
    informer, passed_s, real = Informer(script, POD, LABELS, lambda _: None), 0.0, asyncio.sleep
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: passed_s)
    listed = script.list

    async def list_later(
        kind: Kind, labels: Mapping[str, str] = LABELS, *, fields: str = ""
    ) -> tuple[list[Object], str]:
        nonlocal passed_s
        passed_s += 100 if script.lists == 6 else 0  # the seventh list and its watch take long
        return await listed(kind, labels, fields=fields)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr(script, "list", list_later)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await until_quiet(informer, script)
    assert (script.lists, informer.away, len(waits)) == (8, None, 7)
    assert 0.2 <= waits[0] <= 0.4 and 2 <= waits[5] <= 4 and 0.2 <= waits[6] <= 0.4


def test_what_is_later_holds() -> None:
    """Whichever of a write and its watch is heard first."""
    informer = Informer(FakeKubernetes(), POD, LABELS, lambda _: None)
    assert informer.put(item("a", 9, spec="old"))
    assert informer.put(item("a", 10, spec="new"))
    assert not informer.put(item("a", 9, spec="old")) and informer.items["a"]["spec"] == "new"
