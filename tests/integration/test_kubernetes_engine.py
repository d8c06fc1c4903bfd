"""The engine on a real Kubernetes, without a controller: stateless agents, what is read of them, and looking in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from kubernetes_rig import PATIENCE_S, SERVICE, Rig, a_rig, run_engine

from shoal.core.action import EnsureRevision, Remove, Scale
from shoal.core.observed import Phase
from shoal.engines.kubernetes.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    NODE,
    POD,
    SECRET,
    STATEFUL_SET,
)
from shoal.engines.kubernetes.api.kinds import (
    SERVICE as SERVICES,
)
from shoal.errors import NotFound
from tests.kubernetes_cluster import Cluster, ClusterImages

WAITS = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); {}; time.sleep(600)"


def worker(program: str, **agent: Any) -> dict[str, Any]:
    """One that does something, then waits."""
    return {"command": ["python3", "-c", WAITS.format(program)], "queue": "tasks", "stop_grace_period": "1s", **agent}


@pytest.fixture
async def rig(kubernetes_images: ClusterImages) -> AsyncIterator[Rig]:
    async with a_rig(kubernetes_images.agents) as rig:
        yield rig


async def test_replicas_come_serve_and_go(rig: Rig) -> None:
    """Known with none; as many as told, each of its own id, ready; those that are named leave; unchanged, the same
    object; removed, nothing is left."""
    web = rig.ensure("web", SERVICE)
    await rig.act(web)
    assert (await rig.engine.observe()).agents["web"].counts == {web.revision: 0}
    await rig.act(web, Scale("web", web.revision, 4))
    replicas = await rig.ready("web", 4)
    for each in replicas:
        assert (each.phase, each.port, each.source, each.restarts) == (Phase.RUNNING, 8000, each.host, 0)
        assert each.host is not None and each.node is not None and each.started_at is not None
        assert each.ready_at is not None and each.created_at <= each.started_at <= each.ready_at
    before = (await rig.engine.observe()).agents["web"]
    await rig.act(web, Scale("web", web.revision, 4))
    assert (await rig.engine.observe()).agents["web"] is before
    victims = (replicas[0].id, replicas[2].id)  # not those that Kubernetes itself would take
    await rig.act(Scale("web", web.revision, 2, victims))
    left = await rig.ready("web", 2)
    assert {each.id for each in left} == {replicas[1].id, replicas[3].id}
    await rig.act(Scale("web", web.revision, 0))
    await rig.until("web", lambda agent: True if not agent.replicas else None)
    await rig.act(Remove("web"))
    await rig.until("web", lambda agent: True if not agent.counts else None)
    assert "web" not in (await rig.engine.observe()).agents


async def test_who_was_spared_is_not_the_next_to_go(rig: Rig) -> None:
    """One that was to go stays as another went in its place; then the named one goes."""
    web = rig.ensure("web", SERVICE)
    await rig.act(web, Scale("web", web.revision, 3))
    first, second, third = await rig.ready("web", 3)
    cost = {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-2147483648"}}}
    await rig.kubernetes.patch(POD, first.id, cost)
    await rig.until("web", lambda agent: True if _condemned(rig) == {first.id} else None)
    await rig.act(Scale("web", web.revision, 2, (second.id,)))
    assert {each.id for each in await rig.ready("web", 2)} == {first.id, third.id}
    assert _condemned(rig) == set()


def _condemned(rig: Rig) -> set[str]:
    """Those that are to go first, and do not yet."""
    pods = rig.engine._inventory.items(POD)  # pyright: ignore[reportPrivateUsage]
    pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    cost = "controller.kubernetes.io/pod-deletion-cost"
    return {pod["metadata"]["name"] for pod in pods if cost in pod["metadata"].get("annotations", {})}


async def test_a_node_takes_as_many_as_it_may(rig: Rig, kubernetes: Cluster) -> None:
    """Of one version; those that find no place say why."""
    nodes = len(kubernetes.addresses) or len((await rig.kubernetes.list(NODE))[0])
    web = rig.ensure("web", {**SERVICE, "placement": {"max_per_node": 2}})
    await rig.act(web, Scale("web", web.revision, 2 * nodes + 1))
    full = await rig.until(
        "web", lambda agent: agent if sum(r.ready for r in agent.replicas) == 2 * nodes else None
    )  # fmt: skip
    assert set(Counter(r.node for r in full.replicas if r.node is not None).values()) == {2}
    (unplaced,) = [each for each in full.replicas if not each.ready]
    assert unplaced.phase is Phase.PENDING and "didn't match pod topology spread constraints" in unplaced.reason


async def test_a_crash_loop_says_what_it_said(rig: Rig) -> None:
    """Its exit code and last words, each time it is started again; its id stays."""
    dies = rig.ensure("web", {**SERVICE, "command": ["sh", "-c", "echo no such table >&2; exit 3"]})
    await rig.act(dies, Scale("web", dies.revision, 1))
    first = await rig.until("web", lambda agent: next((r for r in agent.replicas if r.last_log), None))
    assert (first.reason, first.last_log) == ("exit code 3", ("no such table",))
    again = await rig.until(
        "web", lambda agent: next((r for r in agent.replicas if r.restarts and r.last_log), None)
    )  # fmt: skip
    assert (again.id, again.exit_code, again.last_log) == (first.id, 3, ("no such table",))
    lines = [line async for line in rig.engine.logs("web")]
    assert [(line.replica, line.text) for line in lines] == [(first.id, "no such table")]


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ({"image": "localhost:1/nothing:1"}, "push the image to a registry"),
        ({"command": ["/no/such/program"]}, "it can't be started"),
        ({"resources": {"memory": "4Ti"}}, "Insufficient memory"),
        ({"placement": {"require": {"shoal.test/none": "1"}}}, "didn't match Pod's node affinity/selector"),
        ({"command": ["python3", "-c", "b = bytearray(1 << 30)"], "resources": {"memory": "32Mi"}}, "limit 32 MiB"),
        ({"cap_add": ["CHOWN"]}, "violates PodSecurity"),
    ],
)
async def test_why_a_replica_does_not_come(rig: Rig, agent: dict[str, Any], reason: str) -> None:
    """Said in the words of Kubernetes, with what to do."""
    web = rig.ensure("web", {**SERVICE, **agent})
    await rig.act(web, Scale("web", web.revision, 1))
    phases = (Phase.PENDING, Phase.BACKOFF)
    assert await rig.until(
        "web",
        lambda agent: next(
            (each for each in agent.replicas if reason in each.reason and each.phase in phases), None
        ),
    )  # fmt: skip


async def test_a_program_is_given_what_the_file_says(rig: Rig) -> None:
    """Its command, variables, directory and rights, as they are written; credentials are in no object but a Secret."""
    asks = 'import os,sys;print(sys.argv[1:],os.environ["A"],os.environ["URL"],os.getuid(),os.getcwd(),flush=True)'
    url = "nats://me:pass@broker:4222"
    agent = worker("pass") | {
        "command": ["python3", "-c", f"{asks};import time;time.sleep(600)", "$$", "$(A)", "$SHOAL_REPLICA"],
        "environment": {"A": "$(PORT) $$"}, "working_dir": "/tmp",
    }  # fmt: skip
    made = rig.ensure("web", agent, {"URL": url})
    await rig.act(made, Scale("web", made.revision, 1))
    (replica,) = await rig.ready("web", 1)
    said: list[str] = []
    while not said:
        said = [line.text async for line in rig.engine.logs("web")]
    assert said == [f"['$$', '$(A)', '{replica.id}'] $(PORT) $$ {url} 65534 /tmp"]
    pods, _ = await rig.kubernetes.list(POD)
    assert url not in str(pods)
    await rig.act(Remove("web"))
    assert await rig.names(SECRET) == set()


async def test_logs_are_followed(rig: Rig) -> None:
    """What was written before, then what is, each line once, of replicas too that come later; long ones are whole."""
    program = "import time\nfor n in range(600): print(n, 'x' * 40000 * (n == 1), flush=True); time.sleep(0.5)"
    web = rig.ensure("web", {**worker("pass"), "command": ["python3", "-c", program]})
    await rig.act(web, Scale("web", web.revision, 1))
    await rig.ready("web", 1)
    by_replica: dict[str, list[str]] = {}
    async with asyncio.timeout(60), aclosing(rig.engine.logs("web", follow=True)) as lines:
        async for line in lines:
            by_replica.setdefault(line.replica, []).append(line.text)
            assert line.agent == "web" and line.at is not None
            if len(by_replica) == 1 and len(next(iter(by_replica.values()))) == 3:
                await rig.act(Scale("web", web.revision, 2))
            if len(by_replica) == 2 and min(map(len, by_replica.values())) >= 5:
                break
    for texts in by_replica.values():
        assert texts[1] == "1 " + "x" * 40000
        assert [text.split()[0] for text in texts] == [str(n) for n in range(len(texts))]
    tail = [line async for line in rig.engine.logs("web", tail=1)]
    assert len(tail) == 2


async def test_a_command_in_a_replica(rig: Rig) -> None:
    """Its words, its input, its outputs apart, its exit code; with a terminal it has its size."""
    web = rig.ensure("web", worker("pass"))
    await rig.act(web, Scale("web", web.revision, 1))
    (replica,) = await rig.ready("web", 1)
    script = "read a; echo got $a; echo bad >&2; cat | wc -c; exit 7"
    async with rig.engine.exec(replica.id, ["sh", "-c", script], tty=False) as command:
        await command.write(b"hello\n")
        await command.write(b"y" * 300_000)
        await command.end_input()
        out: dict[str, bytes] = {}
        async for stream, piece in command.output():
            out[stream] = out.get(stream, b"") + piece
        assert (out["stdout"].split(), out["stderr"]) == ([b"got", b"hello", b"300000"], b"bad\n")
        assert await command.exit_code() == 7
    # The size and the input come by ways of their own: the size may be there after the first line.
    asks = "read x; for i in $(seq 100); do stty size 2>/dev/null | grep '33 111' && exit 0; sleep 0.1; done; exit 1"
    async with rig.engine.exec(replica.id, ["sh", "-c", asks], tty=True) as command:
        await command.resize(33, 111)
        await command.write(b"\n")
        said = b"".join([piece async for _, piece in command.output()])
        assert b"33 111" in said and await command.exit_code() == 0
    for word, code in (("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126)):
        async with rig.engine.exec(replica.id, [word], tty=False) as command:
            ((stream, said),) = [each async for each in command.output()]
            assert (stream, await command.exit_code()) == ("stderr", code) and word.encode() in said
    with pytest.raises(NotFound):
        async with rig.engine.exec("web-none", ["true"], tty=False):
            pass


async def test_what_is_used(rig: Rig) -> None:
    """As the cluster's metrics-server measured it, where there is one."""
    web = rig.ensure("web", worker("[0 for _ in iter(int, 1)]"))
    await rig.act(web, Scale("web", web.revision, 1))
    (replica,) = await rig.ready("web", 1)
    async with asyncio.timeout(240):  # until metrics-server has looked at a pod that is new to it
        while not (usage := await rig.engine.usage()) or usage[replica.id].cpu_cores < 0.05:
            await asyncio.sleep(1)
    assert usage[replica.id].memory_bytes > 2**20 and usage[replica.id].window_s > 0


async def test_whoever_comes_next_finds_the_same(rig: Rig) -> None:
    """Another engine sees what this one made."""
    web = rig.ensure("web", SERVICE)
    await rig.act(web, Scale("web", web.revision, 1))
    await rig.ready("web", 1)
    mine = (await rig.engine.observe()).agents["web"]
    async with run_engine(rig.kubernetes) as other:
        assert (await other.observe()).agents["web"] == mine
        await other.act([web, Scale("web", web.revision, 1)])
        assert (await other.observe()).agents["web"] == mine


async def test_a_removed_agent_leaves_nothing(rig: Rig) -> None:
    """But its volumes; and may come back at once."""
    web = rig.ensure("web", {**SERVICE, "stateful": True, "volumes": ["stock:/data"]})
    url = {"SHOAL_QUEUE_TASKS_URL": "nats://me:pass@broker:4222"}
    again = EnsureRevision("web", web.revision, web.template, url)
    for _ in range(2):
        await rig.act(again, Scale("web", web.revision, 1))
        await rig.ready("web", 1)
        await rig.act(Remove("web"))
    await rig.until("web", lambda agent: True if not agent.replicas and not agent.counts else None)
    async with asyncio.timeout(PATIENCE_S):
        while await rig.names(POD):  # one that has ended stays for a moment
            await asyncio.sleep(0.2)
    for kind in (DEPLOYMENT, STATEFUL_SET, JOB, CONFIG_MAP, SECRET, SERVICES):
        assert await rig.names(kind) == set(), kind.name
