"""What Shoal needs of the Docker Engine API, on a real Swarm."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
from swarm_things import PATIENCE_S, Things, eventually

from shoal.engines.swarm.docker import Docker, DockerError, DockerUnavailable, Endpoint, RawLine, remedy_for
from tests.swarm_bed import Swarm

TALKS = """
import sys, time
print("out", flush=True)
print("err", file=sys.stderr, flush=True)
print("x" * 40000, flush=True)
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
async def things(swarm: Swarm) -> AsyncIterator[Things]:
    async with Docker(swarm.endpoint) as docker:
        things = Things(docker, swarm.agents_image)
        try:
            yield things
        finally:
            await things.remove()


async def lines_of(logs: AsyncGenerator[RawLine], count: int) -> list[RawLine]:
    """The first ones; then it lets go."""
    lines: list[RawLine] = []
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(logs):
        async for line in logs:
            lines.append(line)
            if len(lines) == count:
                break
    return lines


async def test_a_version_is_agreed_on(things: Things):
    assert (1, 41) <= tuple(map(int, (await things.docker.api_version()).split("."))) <= (1, 47)
    assert (await things.docker.info())["Swarm"]["LocalNodeState"] == "active"
    assert (await things.docker.swarm())["JoinTokens"]["Worker"].startswith("SWMTKN-")
    assert "Version" in await things.docker.version()


async def test_a_service_from_its_creation_to_its_end(things: Things):
    docker, spec = things.docker, things.spec("web", replicas=2)
    service = await docker.create_service(spec)
    tasks = await things.running(spec["Name"], 2)
    assert {task["ServiceID"] for task in tasks} == {service}
    (listed,) = await docker.services(things.labels, status=True)
    assert listed["ServiceStatus"]["RunningTasks"] == 2

    def scale(spec: dict[str, Any]) -> dict[str, Any]:
        spec["Mode"]["Replicated"]["Replicas"] = 1
        return spec

    assert await docker.update_service(spec["Name"], scale)
    assert not await docker.update_service(service, scale)
    await things.running(service, 1)
    await docker.remove_service(service)
    await docker.remove_service(service)
    assert await docker.services(things.labels) == []


async def test_tasks_are_found_by_the_labels_of_their_service(things: Things):
    """Those of its containers don't count; and a stopping task of a service that is gone is found by them still."""
    await things.docker.create_service(things.spec("a"))
    await things.docker.create_service({**things.spec("b"), "Labels": {}})
    (task,) = await things.running(things.name("a"))
    await things.running(things.name("b"))
    found = await things.docker.tasks(things.labels)
    assert {one["ID"] for one in found} == {task["ID"]}
    await things.docker.remove_service(things.name("b"))
    await things.docker.remove_service(things.name("a"))

    async def to_be_removed() -> bool:
        """Swarm itself hears of it a moment later."""
        stopping = await things.docker.tasks(things.labels)
        assert [one["ID"] for one in stopping] in ([], [task["ID"]])
        return all(one["DesiredState"] == "remove" for one in stopping)

    assert await eventually(to_be_removed)


async def test_nobodys_change_is_lost_among_many_writers(things: Things):
    service = await things.docker.create_service(things.spec("busy", replicas=0))

    def writer(number: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def change(spec: dict[str, Any]) -> dict[str, Any]:
            spec["Labels"][f"writer-{number}"] = "1"
            return spec

        return change

    assert all(await asyncio.gather(*(things.docker.update_service(service, writer(n)) for n in range(8))))
    labels = (await things.docker.service(service))["Spec"]["Labels"]
    assert {label for label in labels if label.startswith("writer-")} == {f"writer-{n}" for n in range(8)}


async def test_a_name_is_given_once(things: Things):
    await things.docker.create_service(things.spec("one", replicas=0))
    with pytest.raises(DockerError, match="somebody else made one of this name") as caught:
        await things.docker.create_service(things.spec("one", replicas=0))
    assert caught.value.status == 409


@pytest.mark.parametrize("kind", ["config", "secret"])
async def test_documents_are_created_once_and_kept_while_used(things: Things, kind: str):
    docker, name = things.docker, things.name(kind)
    create = docker.create_config if kind == "config" else docker.create_secret
    remove = docker.remove_config if kind == "config" else docker.remove_secret
    document = await create(name, b"\x00content", things.labels)
    assert await create(name, b"\x00content", things.labels) == document
    reference = {"File": {"Name": "x", "UID": "0", "GID": "0", "Mode": 0o400}}
    spec = things.spec(f"uses-{kind}", replicas=0)
    spec["TaskTemplate"]["ContainerSpec"][f"{kind.capitalize()}s"] = [
        {**reference, f"{kind.capitalize()}ID": document, f"{kind.capitalize()}Name": name}
    ]
    await docker.create_service(spec)
    with pytest.raises(DockerError, match="in use"):
        await remove(name)
    await docker.remove_service(spec["Name"])
    await remove(name)
    await remove(name)


async def test_a_config_can_be_read(things: Things):
    name = things.name("read")
    await things.docker.create_config(name, b"\x00content", things.labels)
    config = await things.docker.config(name)
    assert base64.b64decode(config["Spec"]["Data"]) == b"\x00content"
    (listed,) = await things.docker.configs(things.labels)
    assert listed["ID"] == config["ID"]


async def test_a_network_is_created_once(things: Things):
    network = await things.docker.create_network(things.name("net"), things.labels)
    assert await things.docker.create_network(things.name("net"), things.labels) == network

    async def allocated() -> Any:
        (listed,) = await things.docker.networks(things.labels)
        return listed if listed["Driver"] else None  # Swarm answers before it has allocated the network

    listed = await eventually(allocated)
    assert (listed["Id"], listed["Driver"], listed["Attachable"]) == (network, "overlay", False)
    await things.docker.remove_network(network)
    await things.docker.remove_network(network)


async def test_events_tell_of_a_new_service(things: Things):
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(things.docker.events(type="service")) as events:
        begun = asyncio.get_running_loop().time()

        async def create() -> None:
            while asyncio.get_running_loop().time() < begun + PATIENCE_S:
                await things.docker.create_service(things.spec(uuid4().hex[:6], replicas=0))
                await asyncio.sleep(0.5)

        async with asyncio.TaskGroup() as group:
            creating = group.create_task(create())
            async for event in events:
                if event["Actor"]["Attributes"].get("name", "").startswith(things.name("")):
                    assert event["Action"] == "create"
                    break
            creating.cancel()


async def test_logs_are_lines_with_their_task(things: Things):
    service = await things.docker.create_service(things.spec("talks", program=TALKS))
    (task,) = await things.running(service)
    lines = await lines_of(things.docker.service_logs(service, follow=True), 4)
    assert sorted((line.stream, len(line.text)) for line in lines) == [
        ("stderr", 3), ("stdout", 0), ("stdout", 3), ("stdout", 40000),
    ]  # fmt: skip
    assert {(line.task_id, line.node_id) for line in lines} == {(task["ID"], task["NodeID"])}
    assert all(line.at is not None and abs(line.at - time.time()) < PATIENCE_S for line in lines)
    assert sorted(await lines_of(things.docker.task_logs(task["ID"]), 9), key=str) == sorted(lines, key=str)
    assert len(await lines_of(things.docker.service_logs(service, tail=2), 9)) == 2
    assert await lines_of(things.docker.service_logs(service, since=time.time() + 1), 9) == []


async def test_an_image_that_no_node_has_is_told_with_what_to_do(things: Things):
    service = await things.docker.create_service(things.spec("lost", image=f"sha256:{'ab' * 32}"))

    async def rejected() -> str | None:
        tasks = await things.docker.tasks(service=service)
        return next((task["Status"]["Err"] for task in tasks if task["Status"].get("Err")), None)

    assert "load it on each node" in remedy_for(await eventually(rejected))
    with pytest.raises(DockerError, match="load it on each node") as caught:
        await things.docker.image("sha256:" + "ab" * 32)
    assert caught.value.status == 404
    assert (await things.docker.image(things.image))["Id"] == things.image


@pytest.fixture
async def container(things: Things) -> str:
    """A container that waits, on the node that the tests talk to."""
    spec = things.spec("here")
    node = (await things.docker.info())["Swarm"]["NodeID"]
    spec["TaskTemplate"]["Placement"] = {"Constraints": [f"node.id=={node}"]}
    (task,) = await things.running(await things.docker.create_service(spec))
    return task["Status"]["ContainerStatus"]["ContainerID"]


async def test_containers_of_this_node_are_found_by_label(things: Things, container: str):
    assert [one["Id"] for one in await things.docker.containers(things.labels)] == [container]
    assert (await things.docker.container(container))["State"]["Running"]


async def test_a_command_runs_in_a_container(things: Things, container: str):
    program = "import sys; print(sys.stdin.read().upper()); print('err', file=sys.stderr); sys.exit(7)"
    written = {"stdout": b"", "stderr": b""}
    async with things.docker.exec(container, ["python3", "-c", program], stdin=True) as session:
        await session.write(b"hello")
        await session.end_input()
        async for stream, piece in session.output():
            written[stream] += piece
        assert await session.exit_code() == 7
    assert written == {"stdout": b"HELLO\n", "stderr": b"err\n"}


async def test_a_terminal_is_one_output_and_has_a_size(things: Things, container: str):
    program = "import os, sys; sys.stdin.readline(); print(os.isatty(1), os.get_terminal_size().lines)"
    output = b""
    async with things.docker.exec(container, ["python3", "-c", program], stdin=True, tty=True) as session:
        await session.resize(33, 101)
        await session.write(b"\n")
        async for _, piece in session.output():
            output += piece
    assert b"True 33" in output


async def test_an_unknown_command_is_told(things: Things, container: str):
    with pytest.raises(DockerError, match="no-such-command"):
        async with things.docker.exec(container, ["no-such-command"]) as session:
            output = b"".join([piece async for _, piece in session.output()])
            code = await session.exit_code()
            raise DockerError(output.decode(), status=0, reason=f"{code}")


async def test_one_look_at_use_takes_no_second(things: Things, container: str):
    stats, took = {}, []
    for _ in range(3):
        begun = time.monotonic()
        stats = await things.docker.stats_once(container)
        took.append(time.monotonic() - begun)
    assert min(took) < 0.9
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["memory_stats"]["usage"] > 0


async def test_a_killed_container_is_replaced_by_swarm(things: Things, container: str):
    await things.docker.kill(container)

    async def replaced() -> bool:
        tasks = await things.docker.tasks(service=things.name("here"), desired_state="running")
        found = [task["Status"].get("ContainerStatus", {}).get("ContainerID") for task in tasks]
        return bool(found and found[0] and found[0] != container)

    assert await eventually(replaced)
    await things.docker.kill(container)
    await things.docker.kill("no-such-container")


async def test_a_worker_says_that_it_is_none_of_the_managers(swarm: Swarm):
    if swarm.bed is None:
        pytest.skip("only the bed has a worker that the tests can talk to")
    async with Docker(Endpoint(f"unix://{swarm.bed.node(2).socket}")) as docker:
        with pytest.raises(DockerUnavailable, match="name one of the Swarm's managers"):
            await docker.services()
