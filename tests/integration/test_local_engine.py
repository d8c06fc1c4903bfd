"""The local engine with real processes: started, seen ready, scaled, ended, explained."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from local_fleet import (
    PYTHON,
    QUICK,
    SLEEPER,
    collect,
    eventually,
    in_phase,
    local_engine,
    processes_below,
    ready,
    template,
    until,
    wanted,
)

from shoal.core.action import Remove, Scale
from shoal.core.observed import Phase
from shoal.core.template import SecretUse
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.in_memory import find_memory, shared_memory_bytes
from shoal.engines.local.layout import Layout
from shoal.errors import EngineUnavailable
from shoal.spec.engine_options import LocalOptions
from shoal.spec.model import Health, Placement, Resources


@pytest.fixture
async def patient(directory: Path) -> AsyncIterator[LocalEngine]:
    """An engine whose first BACKOFF lasts long enough to be seen."""
    async with local_engine(directory, timing=replace(QUICK, backoff_s=2.0, backoff_max_s=2.0)) as engine:
        yield engine


async def test_a_service_becomes_ready_on_a_port_of_its_own(engine: LocalEngine) -> None:
    """`port` in the spec is the container's; here each replica has $PORT."""
    await engine.act(wanted(template(port=8000, health=Health(path="/healthz", interval=0.1)), 2))
    replicas = await ready(engine, 2)
    assert len({replica.port for replica in replicas}) == 2
    assert {replica.id for replica in replicas} == {"a-1", "a-2"}
    for replica in replicas:
        assert (replica.phase, replica.host, replica.restarts) == (Phase.RUNNING, "127.0.0.1", 0)
        assert replica.started_at is not None
        assert replica.ready_at is not None
        assert replica.ready_at >= replica.started_at >= replica.created_at


async def test_scaling_down_ends_the_victims_and_no_others(engine: LocalEngine) -> None:
    """The others keep their processes."""
    await engine.act(wanted(template(), 3))
    replicas = await ready(engine, 3)
    await engine.act([Scale("a", "r1", 2, (replicas[0].id,))])
    view = await until(engine, "two are left", lambda view: len(view.replicas) == 2)
    assert view.replicas == replicas[1:]


async def test_the_whole_group_ends(engine: LocalEngine, directory: Path) -> None:
    """A child that outlives the main process, and takes no SIGTERM, is killed with it."""
    child = f"trap '' TERM; sleep {LONG} & sleep {LONG} & wait"
    await engine.act(wanted(template(("/bin/sh", "-c", f"({child}) & trap 'exit 0' TERM; wait")), 1))
    await ready(engine, 1)
    await eventually("the children run", lambda: len(processes_below(directory)) >= 1 and len(_sleepers()) == 2)
    await engine.act([Scale("a", "r1", 0)])
    await until(engine, "it is gone", lambda view: not view.replicas)
    assert _sleepers() == []


async def test_sigterm_that_is_ignored_becomes_sigkill(engine: LocalEngine) -> None:
    """After the grace period, not before."""
    ignores = (*PYTHON, "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(600)")
    await engine.act(wanted(template(ignores, stop_grace_period_s=0.5), 1))
    await ready(engine, 1)
    await eventually("it ignores SIGTERM", lambda: _wrote(engine, "deaf"))
    began = _now(engine)
    await engine.act([Scale("a", "r1", 0)])
    stopping = await in_phase(engine, Phase.STOPPING)
    assert not stopping.ready
    await until(engine, "it is gone", lambda view: not view.replicas)
    assert _now(engine) - began >= 0.5


async def test_sigterm_is_enough_for_what_heeds_it(engine: LocalEngine) -> None:
    """And what it writes last is in the logs after it is gone."""
    await engine.act(wanted(template(port=8000, stop_grace_period_s=60), 1))
    await ready(engine, 1)
    await engine.act([Scale("a", "r1", 0)])
    await until(engine, "it is gone", lambda view: not view.replicas)
    assert [line.text for line in await collect(engine.logs("a"))] == ["hello from a-1", "bye"]


async def test_a_crash_loop_is_explained(engine: LocalEngine) -> None:
    """Exit code, how often in a row, and what it wrote last."""
    await engine.act(wanted(template((*PYTHON, "import sys; sys.exit('boom')")), 1))
    view = await until(
        engine,
        "it has failed thrice",
        lambda view: any(r.restarts >= 3 and r.phase is Phase.BACKOFF for r in view.replicas),
    )
    (backoff,) = view.replicas
    assert not backoff.ready
    assert backoff.exit_code == 1
    assert backoff.last_log == ("boom",)
    assert backoff.id == "a-1"
    assert backoff.reason.startswith("exit code 1 (")
    assert "times in a row, next start after 0." in backoff.reason


async def test_a_signal_has_a_name(patient: LocalEngine) -> None:
    """137 is what containers call a SIGKILL, so it is here."""
    await patient.act(wanted(template(("/bin/sh", "-c", "kill -9 $$")), 1))
    replica = await in_phase(patient, Phase.BACKOFF)
    assert (replica.exit_code, replica.reason) == (137, "killed by SIGKILL (exit code 137)")


async def test_a_missing_command_is_named(patient: LocalEngine) -> None:
    """Before anything is started."""
    await patient.act(wanted(template(("no-such-program", "--flag")), 1))
    replica = await in_phase(patient, Phase.BACKOFF)
    assert replica.reason.startswith("agents.a.command: 'no-such-program' was not found")


async def test_a_missing_directory_is_named(patient: LocalEngine) -> None:
    """The same for `working_dir`."""
    await patient.act(wanted(template(working_dir="nowhere"), 1))
    replica = await in_phase(patient, Phase.BACKOFF)
    assert "agents.a.working_dir: " in replica.reason
    assert replica.reason.endswith("nowhere is no directory")


async def test_an_image_alone_is_refused(engine: LocalEngine) -> None:
    """With the ways out."""
    failures = await engine.act(wanted(template((), image="acme/x"), 1))
    assert "give a command, or choose another engine" in failures[0].reason


async def test_the_wrong_port_is_told(engine: LocalEngine) -> None:
    """A server that ignores $PORT is the newcomer's first mistake."""
    await engine.act(wanted(template((*PYTHON, _ELSEWHERE), port=8000), 1))
    view = await until(engine, "it is told", lambda view: any("listens on" in r.reason for r in view.replicas))
    (replica,) = view.replicas
    assert (replica.phase, replica.ready) == (Phase.RUNNING, False)
    assert f"expected {replica.port}: put $PORT into its command" in replica.reason


async def test_a_port_that_is_taken_is_chosen_anew(engine: LocalEngine, directory: Path) -> None:
    """The replica that could not bind starts at once with another port; whoever has the first one keeps it."""
    await engine.act(wanted(template((*PYTHON, _BINDS_WHEN_TOLD, "$PORT"), port=8000), 1))
    view = await until(engine, "it has begun", lambda view: any(r.phase is Phase.RUNNING for r in view.replicas))
    taken = view.replicas[0].port
    assert taken is not None
    with socket.socket() as somebody:  # which does not listen, so that no probe takes it for the replica
        somebody.bind(("127.0.0.1", taken))
        (directory.parent / "go").touch()
        (replica,) = await ready(engine, 1)
        assert replica.port not in {None, taken}
        assert (replica.restarts, replica.exit_code) == (1, 1)
        assert somebody.getsockname()[1] == taken


async def test_what_stops_answering_is_started_anew(patient: LocalEngine, directory: Path) -> None:
    """Liveness: five times as many failures in a row as it takes not to be ready."""
    health = Health(path="/healthz", interval=0.05, retries=2)
    await patient.act(wanted(template(port=8000, health=health), 1))
    (before,) = await ready(patient, 1)
    status = directory.parent / "status"
    status.write_text("500 Oh")
    view = await until(patient, "it is not ready", lambda view: not view.replicas[0].ready)
    assert (view.replicas[0].phase, view.replicas[0].ready_at) == (Phase.RUNNING, before.ready_at)
    assert "health check failed 2 times in a row: /healthz answered 500" in view.replicas[0].reason
    ended = await in_phase(patient, Phase.BACKOFF)
    assert "health check failed 10 times in a row: /healthz answered 500" in ended.reason
    status.unlink()
    (after,) = await ready(patient, 1)
    assert (after.id, after.restarts >= 1, after.reason) == (before.id, True, "")


async def test_what_is_slow_for_a_while_goes_on(engine: LocalEngine, directory: Path) -> None:
    """It is not ready, and ready again with its next answer, in the same life."""
    health = Health(path="/healthz", interval=0.05, retries=2, timeout=0.5)
    await engine.act(wanted(template(port=8000, health=health), 1))
    (before,) = await ready(engine, 1)
    status = directory.parent / "status"
    status.write_text("500 Oh")
    await until(engine, "it is not ready", lambda view: not view.replicas[0].ready)
    status.unlink()
    (after,) = await ready(engine, 1)
    assert (after.id, after.restarts, after.reason, after.started_at) == (before.id, 0, "", before.started_at)


async def test_what_happens_elsewhere_brings_no_check_nearer(engine: LocalEngine, directory: Path) -> None:
    """`interval` lies between two checks, however often something that others wait for is freed meanwhile."""
    await engine.act(wanted(template(port=8000, health=Health(path="/healthz", interval=60, retries=2)), 1))
    (before,) = await ready(engine, 1)
    (directory.parent / "status").write_text("500 Oh")
    for _ in range(20):
        engine.configure(LocalOptions(gpus=0), directory.parent)
        await asyncio.sleep(0.02)
    assert (await engine.observe()).agents["a"].replicas == (before,)


async def test_a_slow_start_has_an_end(engine: LocalEngine) -> None:
    """`start_period` is how long a start may take."""
    health = Health(start_period=0.2)
    await engine.act(wanted(template(SLEEPER, port=8000, health=health), 1))
    view = await until(engine, "it is started anew", lambda view: any(r.restarts for r in view.replicas))
    assert "not ready within 0.2s: nothing listens on port" in view.replicas[0].reason


async def test_gpus_are_exclusive(directory: Path) -> None:
    """Who finds none free waits, with the reason, and gets one that is given back."""
    says = (*PYTHON, "import os, time; print('gpu', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(600)")
    async with local_engine(directory, options=LocalOptions(gpus=1)) as engine:
        await engine.act(wanted(template(says, resources=Resources(gpu=1)), 2))
        waiting = await in_phase(engine, Phase.PENDING)
        holder = next(r for r in (await engine.observe()).agents["a"].replicas if r.id != waiting.id)
        await until(engine, "it says why", lambda view: any("in use by" in r.reason for r in view.replicas))
        await eventually("the holder has said", lambda: _wrote(engine, "gpu 0"))
        await engine.act([Scale("a", "r1", 1, (holder.id,))])
        (left,) = await ready(engine, 1)
        assert left.id == waiting.id
        await eventually("both have said", lambda: _wrote(engine, "gpu 0", times=2))
        await engine.act(wanted(template(agent="b", resources=Resources(gpu=2)), 1))
        greedy = await in_phase(engine, Phase.PENDING, "b")
        assert greedy.reason == "needs 2 GPUs, this machine has 1 (see local.gpus)"


async def test_placement_is_compared_with_labels(engine: LocalEngine, directory: Path) -> None:
    """A label that this machine lacks leaves a replica PENDING, until the fleet says otherwise."""
    await engine.act(wanted(template(placement=Placement(require={"accelerator": "nvidia"})), 1))
    view = await until(engine, "it says why", lambda view: any(r.reason for r in view.replicas))
    assert view.replicas[0].phase is Phase.PENDING
    assert view.replicas[0].reason == (
        "placement.require wants accelerator=nvidia, this machine has no label accelerator (see local.labels)"
    )
    engine.configure(LocalOptions(gpus=0, labels={"accelerator": "nvidia"}), directory.parent)
    await ready(engine, 1)


async def test_volumes_that_are_shared_or_the_hosts(directory: Path) -> None:
    """One directory for all replicas, or the host's; one that is missing is said, and not made."""
    host = directory / "models"
    host.mkdir(parents=True)
    names = ("$SHOAL_REPLICA", "$SHOAL_VOLUME_CACHE", "$SHOAL_VOLUME_MODELS")
    async with local_engine(directory) as engine:
        program = "import sys, time; print(*sys.argv[1:], flush=True); time.sleep(600)"
        shape = template((*PYTHON, program, *names), volumes=("cache:/cache", f"{host}:/models:ro"))
        await engine.act(wanted(shape, 2))
        await ready(engine, 2)
        cache = directory / "volumes" / "shared" / "cache"
        for number in (1, 2):
            await eventually("it has said it", lambda said=f"a-{number} {cache} {host}": _wrote(engine, said))
        await engine.act(wanted(template(("sleep", "600"), agent="b", volumes=("./nowhere:/d",)), 1))
        (replica,) = (await until(engine, "it is refused", lambda view: bool(view.replicas[0].reason), "b")).replicas
        assert "nowhere is not there (make it: mkdir -p " in replica.reason


async def test_tmpfs_is_empty_at_each_start_and_ends_with_its_replica(directory: Path) -> None:
    """Each replica has its own, in memory where the machine has a place there."""
    program = "import os, sys; print(os.listdir(sys.argv[1]), flush=True); open(sys.argv[1] + '/x', 'w')"
    async with local_engine(directory) as engine:
        shape = template((*PYTHON, program, "$SHOAL_TMPFS_VAR_RUN"), tmpfs=("/var/run:size=1Mi",))
        await engine.act(wanted(shape, 1))
        await eventually("it was started again", lambda: _wrote(engine, "[]", 2))
        assert {line.text for line in await collect(engine.logs("a"))} == {"[]"}
        place = (directory / "agents" / "a" / "lives" / "a-1" / "tmpfs").resolve(strict=True)
        memory = find_memory(Layout(directory.absolute()), os.environ)
        assert place.is_relative_to(memory or directory) and (place / "VAR_RUN").is_dir()
        await engine.act([Remove("a")])
        await until(engine, "it is gone", lambda view: not view.replicas)
        assert not place.exists()


async def test_shared_memory_that_is_too_small_is_told(patient: LocalEngine) -> None:
    """Before the start, as nothing would be said in the middle of the work; one that is large enough is no obstacle."""
    await patient.act([*wanted(template(shm_size_bytes=2**59), 1), *wanted(template(agent="b", shm_size_bytes=1), 1)])
    if shared_memory_bytes() is not None:
        replica = await in_phase(patient, Phase.BACKOFF)
        assert "agents.a.shm_size: /dev/shm of this machine holds " in replica.reason
    await ready(patient, 1, "b")


async def test_secrets_volumes_and_variables(directory: Path) -> None:
    """What a replica is given, seen from within."""
    shows = (*PYTHON, _SHOWS, "$SHOAL_REPLICA", "$PORT-${PORT}", "$HOME")
    uses = (SecretUse("KEY", True, ""), SecretUse("FILE_ONLY", False, ""))
    secrets = {"KEY": b"s3cret", "FILE_ONLY": b"\xff"}
    async with local_engine(directory, secrets=lambda use: secrets[use.name]) as engine:
        shape = template(
            shows, port=8000, secrets=uses, volumes=("data:/data",), stateful=True,
            environment={"LEVEL": "debug", "dotted.name": "kept"},
        )  # fmt: skip
        await engine.act(wanted(shape, 1, SHOAL_URL_B="http://b"))
        await eventually("it has said all", lambda: _wrote(engine, "end"))
        said = dict(line.text.split("=", 1) for line in await collect(engine.logs("a")) if "=" in line.text)
        port = (await engine.observe()).agents["a"].replicas[0].port
        assert said["argv"] == f"['a-0', '{port}-{port}', '$HOME']"
        assert said["LEVEL"] == "debug"
        assert said["dotted.name"] == "kept"
        assert said["SHOAL_URL_B"] == "http://b"
        assert said["SHOAL_ORDINAL"] == "0"
        assert said["KEY"] == "s3cret"
        assert said["files"] == "[('FILE_ONLY', '0o400'), ('KEY', '0o400')]"
        assert said["SHOAL_VOLUME_DATA"] == str(directory / "volumes" / "owned" / "a" / "0" / "data")
        assert said["sigint"] == "default_int_handler"
        await engine.act([Remove("a")])
        await until(engine, "it is gone", lambda view: not view.replicas)
        assert not (directory / "agents" / "a").exists()
        assert (directory / "volumes" / "owned" / "a" / "0" / "data").is_dir()


async def test_secrets_without_a_source_are_refused(patient: LocalEngine) -> None:
    """The default says what is missing."""
    await patient.act(wanted(template(secrets=(SecretUse("KEY", True, ""),)), 1))
    replica = await in_phase(patient, Phase.BACKOFF)
    assert "the secret KEY can't be read" in replica.reason


async def test_usage_counts_children(engine: LocalEngine) -> None:
    """CPU is a rate between two calls; memory is there with it."""
    burns = ("/bin/sh", "-c", f"{PYTHON[0]} -I -S -c 'while True: pass' & wait")
    await engine.act(wanted(template(burns), 1))
    await ready(engine, 1)
    assert await engine.usage() == {}

    async def burnt() -> bool:
        usage = (await engine.usage()).get("a-1")
        return usage is not None and usage.cpu_cores > 0.05 and usage.memory_bytes > 2_000_000

    await eventually("the child's use is seen", burnt)


async def test_a_directory_has_one_engine(engine: LocalEngine, directory: Path) -> None:
    """The second is told who has it."""
    with pytest.raises(EngineUnavailable, match=rf"another controller has this fleet \(pid {os.getpid()}\)"):
        await local_engine(directory).__aenter__()


async def test_state_is_private(engine: LocalEngine, directory: Path) -> None:
    """Secrets and credentials lie here."""
    await engine.act(wanted(template(), 1))
    await ready(engine, 1)
    modes = {oct(path.stat().st_mode & 0o077) for path in (directory, *directory.rglob("*"))}
    assert modes == {"0o0"}


LONG = f"600.{os.getpid()}"
_ELSEWHERE = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(600)"
_BINDS_WHEN_TOLD = """
import os, socket, sys, time
while not os.path.exists("go"):
    time.sleep(0.01)
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    s.accept()[0].close()
"""
_SHOWS = """
import os, signal, sys, time
print("argv=" + repr(sys.argv[1:]))
print("sigint=" + signal.getsignal(signal.SIGINT).__name__)
for name in sorted(os.environ):
    print(name + "=" + os.environ[name])
where = os.environ["SHOAL_SECRETS"]
print("files=" + repr([(n, oct(os.stat(where + "/" + n).st_mode & 0o777)) for n in sorted(os.listdir(where))]))
print("end", flush=True)
time.sleep(600)
"""


def _sleepers() -> list[psutil.Process]:
    """The children of this test, orphaned or not, told by how long they sleep."""
    return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", LONG]]


def _now(engine: LocalEngine) -> float:
    return engine._machine.clock()


async def _wrote(engine: LocalEngine, text: str, times: int = 1) -> bool:
    return [line.text for line in await collect(engine.logs("a"))].count(text) >= times
