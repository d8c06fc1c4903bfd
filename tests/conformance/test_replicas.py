"""What a replica has and what it may do: an identity, volumes, secrets, limits, others that it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from typing import Any

import pytest

from shoal.errors import ControllerUnavailable
from tests.conformance.bed import DEADLINE_S, FleetBed
from tests.conformance.load import load


def stock(bed: FleetBed, version: str, count: int = 3) -> dict[str, Any]:
    scale = {"min": count, "max": count}
    agent = bed.http_agent(
        public={"path": "/stock"}, stateful=True, volumes=["stock:/data"], scale=scale,
        update={"min_ready_time": "500ms"}, environment={"VERSION": version},
    )  # fmt: skip
    return {"agents": {"stock": agent}}


async def starts(bed: FleetBed, count: int) -> dict[int, list[str]]:
    """What each identity's volume says of all who had it."""
    found: dict[int, list[str]] = {}
    for _ in range(200):
        _, body = await bed.get("/stock/kept")
        found[body["ordinal"]] = body["starts"]
        if len(found) == count:
            break
    return found


async def test_stateful(bed: FleetBed) -> None:
    """An identity keeps its volume through a change, which takes the highest ordinal first and never makes a second
    holder, and through scaling down and up; no request fails."""
    await bed.up(stock(bed, "1"))
    assert await starts(bed, 3) == {0: ["1"], 1: ["1"], 2: ["1"]}
    async with load(f"{await bed.url()}/stock/", 30) as seen:
        status = await bed.up(stock(bed, "2"))
        assert await starts(bed, 3) == {0: ["1", "2"], 1: ["1", "2"], 2: ["1", "2"]}
        await bed.up(stock(bed, "2", count=1))
        assert await starts(bed, 1) == {0: ["1", "2"]}
        await bed.up(stock(bed, "2"))
    assert await starts(bed, 3) == {0: ["1", "2"], 1: ["1", "2", "2"], 2: ["1", "2", "2"]}
    assert seen.failed == {}
    began = {replica.id.partition(".")[0]: replica.started_at or 0 for replica in status.agents[0].replicas}
    assert began["stock-2"] < began["stock-1"] < began["stock-0"]
    assert [event.message async for event in bed.api.events() if event.kind == "crashed"] == []


@pytest.mark.enforces("agents.volumes")
async def test_a_volume_is_at_its_path(bed: FleetBed) -> None:
    """What `volumes` says is the path in the replica, too."""
    volume = {"volumes": ["models:/data"]}  # which the image has, its user's
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, **volume)}})
    assert (await bed.get("/web/write?path=/data/shoal-conformance"))[1]["read"] == "written"


@pytest.mark.enforces("agents.volumes.ro")
async def test_a_read_only_volume(bed: FleetBed) -> None:
    """A replica can't write to a volume that it has for reading."""
    volume = {"volumes": ["models:/models:ro"]}
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, **volume)}})
    place = (await bed.get("/web/env"))[1]["SHOAL_VOLUME_MODELS"]
    assert (await bed.get(f"/web/write?path={place}/file"))[1]["read"] is None


@pytest.mark.enforces("agents.user", "agents.cap_add", "agents.read_only")
async def test_rights(bed: FleetBed) -> None:
    """A replica is not root and writes nowhere but where it may, unless the file says otherwise; then as root it may
    only what `cap_add` says."""
    trying = ["sh", "-c", "id -u; touch /usr/it && chown 7:8 /usr/it && stat -c %u:%g /usr/it"]
    allowed = {"user": 0, "read_only": False, "cap_add": ["CHOWN"]}
    agents = {"plain": {}, "root": {**allowed, "cap_add": []}, "both": allowed, "other": {"user": "4321:8765"}}
    await bed.up({"agents": {name: bed.http_agent(**more) for name, more in agents.items()}})
    # Output and errors are two streams, which may come in either order.
    codes, said = {}, {}
    for name in agents:
        codes[name], text = await bed.shoal("exec", name, *trying)
        said[name] = text.splitlines()
    assert codes["plain"] != 0 and "0" not in said["plain"] and any("Read-only" in line for line in said["plain"])
    assert codes["root"] != 0 and "0" in said["root"] and any("chown" in line for line in said["root"])
    assert (codes["both"], said["both"]) == (0, ["0", "7:8"])
    assert "4321" in said["other"]


async def test_secret(bed: FleetBed) -> None:
    """A secret is a file that is only read, and a variable where it says so; a new value comes by a change without a
    failed request."""
    agent = bed.http_agent(
        public={"path": "/web"}, scale={"min": 2, "max": 2}, secrets=["PLAIN", {"name": "KEY", "as": "env"}],
        update={"max_surge": "100%", "min_ready_time": "500ms"},
    )  # fmt: skip
    await bed.up({"agents": {"web": agent}}, {"PLAIN": b"a plain one", "KEY": b"the-first-key"})
    _, plain = await bed.get("/web/secret?name=PLAIN")
    assert plain == {"file": "a plain one", "variable": None, "writable": False}
    _, key = await bed.get("/web/secret?name=KEY")
    assert key == {"file": "the-first-key", "variable": "the-first-key", "writable": False}
    async with load(f"{await bed.url()}/web/", 40) as seen:
        exit_code, said = await bed.shoal("secret", "set", "KEY", given=b"the-second-key")
        assert exit_code == 0, said
    assert seen.failed == {}
    for _ in range(4):
        _, key = await bed.get("/web/secret?name=KEY")
        assert key == {"file": "the-second-key", "variable": "the-second-key", "writable": False}


@pytest.mark.enforces("agents.secrets.masked")
async def test_a_secret_in_a_log(bed: FleetBed) -> None:
    """What a replica writes of a secret is not shown."""
    agent = bed.http_agent(public={"path": "/web"}, secrets=["KEY"])
    await bed.up({"agents": {"web": agent}}, {"KEY": b"the-first-key"})
    await bed.get("/web/say?text=my+key+is+the-first-key+indeed")
    shown: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while not any("indeed" in line for line in shown):  # it may be on its way to where the engine reads it
            await asyncio.sleep(0.1)
            shown = [line.text async for line in bed.api.logs(["web"])]
    assert "my key is *** indeed" in shown and "the-first-key" not in " ".join(shown)


async def test_depends_on(bed: FleetBed) -> None:
    """An agent starts for the first time when those that it depends on are ready, and can call them then; later it goes
    on without them. They are stopped in the other order."""
    back = bed.http_agent(environment={"START_S": "1.5"})
    middle = bed.http_agent(calls=["back"], depends_on=["back"], environment={"NEEDS": "back"})
    front = bed.http_agent(
        public={"path": "/front"}, calls=["middle"], depends_on=["middle"], environment={"NEEDS": "middle"}
    )
    fleet = {"front": front, "middle": middle, "back": back}
    await bed.store({"agents": fleet})
    waits = await bed.until_agent("front", lambda a: "middle" in a.reason, "front to say for whom it waits")
    assert waits.replicas == ()
    status = await bed.until(lambda status: status.settled, "the fleet to settle")
    assert [replica.restarts for agent in status.agents for replica in agent.replicas] == [0, 0, 0]
    assert [event.message async for event in bed.api.events() if event.kind == "crashed"] == []
    async with load(f"{await bed.url()}/front/", 20) as seen:
        await bed.get("/front/call?agent=middle&path=/crash")
        await bed.until_agent("middle", lambda a: a.ready == 1 and a.replicas[0].restarts == 1, "middle to come back")
    assert seen.failed == {}
    gone: list[str | None] = []

    async def follow() -> None:
        with contextlib.suppress(ControllerUnavailable):
            async for event in bed.api.events(time.time(), follow=True):
                if event.kind == "gone":
                    gone.append(event.agent)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        await bed.down()
    assert gone == ["front", "middle", "back"]


@pytest.mark.enforces("agents.resources.memory")
async def test_limits(bed: FleetBed) -> None:
    """A replica that takes more memory than it may is ended and started anew, with that as the reason, and the others
    serve on; no process may open files without end."""
    web = bed.http_agent(
        public={"path": "/web"}, scale={"min": 2, "max": 2}, resources={"memory": "150Mi"}, idempotent=["GET"]
    )
    await bed.up({"agents": {"web": web}})
    _, files = await bed.get("/web/files")
    assert files["reason"] == errno.errorcode[errno.EMFILE] and files["files"] < bed.most_files
    async with load(f"{await bed.url()}/web/", 30) as seen:
        await bed.get("/web/eat?mib=300", method="POST")
        agent = await bed.until_agent(
            "web", lambda a: a.ready == 2 and any(r.restarts for r in a.replicas), "the greedy one to come back"
        )
    assert seen.failed == {} and sorted(replica.restarts for replica in agent.replicas) == [0, 1]
    messages = [event.message async for event in bed.api.events() if event.kind == "crashed"]
    assert len(messages) == 1 and "out of memory" in messages[0] and "150 MiB" in messages[0]
