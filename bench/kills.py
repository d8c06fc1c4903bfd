"""SIGKILL for one part of a fleet after the other, under load, and what the clients saw of it.

    python -m bench.kills [--faults replica,envoy,gateway,controller,everything] [--times N] [--seed S]

Clients are the load generator's process; the agent writes down the id of every request that it works on. The two are
compared: what failed, and which requests that must not be repeated were done twice. `controller` kills the controller
at a random moment of scaling and of rolling and starts the next one; `everything` kills all that the fleet consists
of, and looks that one `up` brings it back. Exits with 1 where something failed that must not.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.fault_choice import choose_faults
from bench.live_fleet import HERE, SHOAL, LiveFleet, running
from bench.load import Outcome, Request, quantile, read_outcomes
from shoal.api.views import AgentView
from shoal.errors import ShoalError

AGENT = "steady"
PER_S, UNSAFE_PER_S = 200, 40
REPLICAS = 3
SERVING_AGAIN_S = 0.5
_REPLACED_S = 30
_WELL_S = 12.0  # after 10 s its back-off begins anew; psutil may put a start up to 1 s too early


@dataclass
class Result:
    """What one kind of fault did: `failed` by outcome, of requests that may be repeated and of the others."""

    fault: str
    kills: int = 0
    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    unsafe_requests: int = 0
    unsafe_failed: Counter[str] = field(default_factory=Counter[str])
    unsafe_twice: int = 0
    away_s: list[float] = field(default_factory=list[float])
    complaints: list[str] = field(default_factory=list[str])

    @property
    def passed(self) -> bool:
        """Whether nothing happened that must not."""
        allowed = self.fault in ("envoy", "everything")  # with Envoy go the requests that it holds
        return not self.complaints and not self.unsafe_twice and (allowed or not self.failed)

    def describe(self) -> str:
        """One line of the table."""
        away = ""
        if self.away_s:
            ordered = sorted(self.away_s)
            away = f"{quantile(ordered, 0.5):.2f} / {ordered[-1]:.2f}"
        return (
            f"| {self.fault} | {self.kills} | {self.requests:,} | {_count(self.failed)} | {self.unsafe_requests:,} "
            f"| {_count(self.unsafe_failed)} | {self.unsafe_twice} | {away or '-'} | {'yes' if self.passed else 'NO'} |"
        )


HEAD = (
    "| killed | times | GETs (idempotent) | failed | POSTs (not) | failed | done twice "
    "| away, s (median / most) | held |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> int:
    """The command line."""
    times_help = "kills of each kind (a tenth of it for everything)"
    chosen = choose_faults("python -m bench.kills", __doc__ or "", FAULTS, 100, times_help)
    print(f"seed {chosen.seed}\n{HEAD}", flush=True)
    passed = True
    for name in chosen.faults:
        times = max(1, chosen.times // 10) if name == "everything" else chosen.times
        result = campaign(name, times, random.Random(f"{chosen.seed} {name}"))
        print(result.describe(), *(f"  {each}" for each in result.complaints), sep="\n", flush=True)
        passed = passed and result.passed
    return 0 if passed else 1


def campaign(fault: str, times: int, rng: random.Random) -> Result:
    """Kills so often, under load, in a fleet of its own."""
    result = Result(fault)
    agent: dict[str, Any] = {
        "command": [sys.executable, str(HERE / "kill_agent.py")],
        "port": 8000,
        "public": "/steady",
        "health": "/healthz",
        "idempotent": ["GET"],
        "environment": {"SINK": "sink", "VERSION": "0"},  # below the project's directory
        "scale": {"min": REPLICAS, "max": REPLICAS + 2},
    }
    with _fleet(agent) as campaign:
        inject = FAULTS[fault]
        with campaign.load() as outcomes:
            for _ in range(times):
                inject(campaign, result, rng)
                result.kills += 1
            time.sleep(1.0)
        _judge(result, outcomes(), campaign)
    return result


class Campaign:
    """The fleet, its file, and the load on it."""

    def __init__(self, fleet: LiveFleet, sink: Path) -> None:
        self.fleet, self.sink = fleet, sink
        self.version = 0

    @contextlib.contextmanager
    def load(self) -> Generator[Callable[[], list[Outcome]]]:
        """Requests until the block ends; then all outcomes can be had."""
        out = self.fleet.directory / "outcomes.jsonl"
        command = [sys.executable, "-m", "bench.load", "--target", self.fleet.url, "--schedule", "/dev/stdin"]
        command += ["--out", str(out), "--max-requests", "10000000", "--max-seconds", "14400"]
        load = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        threading.Thread(target=_feed, args=(load,), daemon=True).start()
        try:
            time.sleep(1.0)
            yield lambda: read_outcomes(out)[1]
            if load.poll() is not None:
                raise RuntimeError(f"the load ended before its time, with {load.returncode}")
        finally:
            load.terminate()  # it waits for what it sent
            load.wait(60)

    def change_file(self) -> None:
        """A new version of the agent in the file."""
        self.version += 1
        path = self.fleet.directory / "shoal.yaml"
        spec = json.loads(path.read_text())
        spec["agents"][AGENT]["environment"]["VERSION"] = str(self.version)
        path.write_text(json.dumps(spec))

    def settled(self, within_s: float = 60.0) -> AgentView:
        """Until what is wished is there."""
        return self.fleet.wait_for(AGENT, lambda agent: agent.settled and agent.ready == agent.desired, within_s)

    def up_in_background(self) -> subprocess.Popen[bytes]:
        """`up` for the file as it is now; it may well lose its controller."""
        return subprocess.Popen(
            [str(SHOAL), "up", "-d", "-y"], cwd=self.fleet.directory, env=self.fleet.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """All of the fleet's processes, by what they are."""
        directory = str(self.fleet.directory)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                mine = any(directory in word for word in command) or process.cwd().startswith(directory)
                if command and mine and "bench.load" not in command and (kind := _kind(command)):
                    yield kind, process

    def kill(self, *kinds: str) -> None:
        """SIGKILL to all of these kinds."""
        for kind, process in list(self.processes()):
            if kind in kinds:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _kind(command: list[str]) -> str | None:
    joined = " ".join(command)
    if Path(command[0]).name == "envoy":
        return "envoy"
    if "nats-server" in command[0]:
        return "broker"
    for module, kind in (("shoal.proxy", "gateway"), ("shoal.api", "controller"), ("kill_agent.py", "replica")):
        if module in joined:
            return kind
    return None


@contextlib.contextmanager
def _fleet(agent: dict[str, Any]) -> Generator[Campaign]:
    with running("kills", {AGENT: agent}, queues={"tasks": {}}) as fleet:
        sink = fleet.directory / "sink"
        yield Campaign(fleet, sink)


def _feed(load: subprocess.Popen[bytes]) -> None:
    """The schedule, for as long as somebody reads it."""
    assert load.stdin is not None
    with contextlib.suppress(BrokenPipeError), load.stdin as pipe:
        for request in _requests():
            pipe.write(json.dumps(asdict(request)).encode() + b"\n")


def _requests() -> Iterator[Request]:
    """Without end; half of them on new connections. GETs may be repeated, POSTs may not."""
    for number in itertools.count():
        at_s = number / (PER_S + UNSAFE_PER_S)
        unsafe = number % ((PER_S + UNSAFE_PER_S) // UNSAFE_PER_S) == 0
        headers = {"x-id": str(number), **({"connection": "close"} if number // 7 % 2 else {})}
        method = "POST" if unsafe else "GET"
        yield Request(str(number), at_s, method, "/steady/", headers=headers, idempotent=not unsafe)


def _kill_replica(campaign: Campaign, _result: Result, rng: random.Random) -> None:
    """One of three, of those that have run for a while; the next only once there are three again."""
    while not (well := [process for process in _replicas(campaign) if time.time() - process.create_time() > _WELL_S]):
        time.sleep(0.1)
    before = {replica.pid for replica in _replicas(campaign)}
    victim = rng.choice(well)
    victim.kill()
    deadline = time.monotonic() + _REPLACED_S
    while time.monotonic() < deadline:
        agent = campaign.fleet.agent(AGENT)
        now = {process.pid for process in _replicas(campaign)}
        if agent.ready == REPLICAS and victim.pid not in now and len(now) == len(before):
            time.sleep(rng.uniform(0.2, 1.0))
            return
        time.sleep(0.1)
    raise TimeoutError(f"a killed replica was not replaced within {_REPLACED_S} s")


def _replicas(campaign: Campaign) -> list[psutil.Process]:
    return [process for kind, process in campaign.processes() if kind == "replica" and not _is_shell(process)]


def _is_shell(process: psutil.Process) -> bool:
    return Path(process.cmdline()[0]).name in ("sh", "dash")


def _kill_envoy(campaign: Campaign, result: Result, rng: random.Random) -> None:
    """Serving again is the first request on a new connection that is answered."""
    _away(campaign, result, "envoy")
    time.sleep(rng.uniform(0.5, 1.5))


def _kill_gateway(campaign: Campaign, _result: Result, rng: random.Random) -> None:
    """The process beside Envoy; Envoy goes on."""
    campaign.kill("gateway")
    time.sleep(rng.uniform(1.0, 2.5))
    campaign.settled()


def _kill_controller(campaign: Campaign, result: Result, rng: random.Random) -> None:
    """At a random moment of scaling or rolling; then the next `up`."""
    running_up: subprocess.Popen[bytes] | None = None
    if rng.random() < 0.5:
        campaign.change_file()
        running_up = campaign.up_in_background()
        time.sleep(rng.uniform(0.0, 4.0))
    else:
        with contextlib.suppress(ShoalError):
            campaign.fleet.pin(AGENT, rng.randint(REPLICAS - 1, REPLICAS + 2))
        time.sleep(rng.uniform(0.0, 1.5))
    campaign.kill("controller")
    if running_up is not None:
        running_up.wait(60)
    time.sleep(rng.uniform(0.0, 1.0))
    campaign.fleet.shoal("up", "-d", "-y", timeout_s=90)
    agent = campaign.settled()
    versions = {replica.revision for replica in agent.replicas}
    if versions != {agent.revision}:
        result.complaints.append(f"settled with the revisions {versions}, expected {agent.revision} alone")


def _kill_everything(campaign: Campaign, result: Result, rng: random.Random) -> None:
    """All at once, as a machine that loses its power would, save that the machine stays; the next only once all have
    run for a while."""
    time.sleep(_WELL_S + rng.uniform(0.0, 1.0))
    campaign.kill("envoy", "gateway", "controller", "broker", "replica")
    began = time.monotonic()
    campaign.fleet.shoal("up", "-d", "-y", timeout_s=90)
    campaign.settled()
    result.away_s.append(time.monotonic() - began)


def _away(campaign: Campaign, result: Result, kind: str) -> None:
    """Kills it, and measures how long nobody answers."""
    campaign.kill(kind)
    began = time.monotonic()
    while time.monotonic() - began < 30:
        connection = http.client.HTTPConnection("127.0.0.1", campaign.fleet.port, timeout=1)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/steady/", headers={"x-id": "probe"})
            if connection.getresponse().status == 200:
                result.away_s.append(time.monotonic() - began)
                return
        time.sleep(0.01)
    raise TimeoutError(f"nobody answered within 30 s after the {kind} was killed")


FAULTS: dict[str, Callable[[Campaign, Result, random.Random], None]] = {
    "replica": _kill_replica,
    "envoy": _kill_envoy,
    "gateway": _kill_gateway,
    "controller": _kill_controller,
    "everything": _kill_everything,
}


def _judge(result: Result, outcomes: list[Outcome], campaign: Campaign) -> None:
    """Compares what clients saw with what the agent wrote down."""
    for outcome in outcomes:
        if outcome.idempotent:
            result.requests += 1
        else:
            result.unsafe_requests += 1
        if outcome.outcome != "ok":
            (result.failed if outcome.idempotent else result.unsafe_failed)[outcome.outcome] += 1
    done = Counter(campaign.sink.read_text().splitlines())
    result.unsafe_twice = sum(1 for line, count in done.items() if line.startswith("POST ") and count > 1)
    ok = [outcome for outcome in outcomes if outcome.outcome == "ok"]
    if missing := sum(1 for each in ok if not done[f"{'GET' if each.idempotent else 'POST'} {each.id}"]):
        result.complaints.append(f"{missing} requests were answered that no replica worked on")
    if len(outcomes) < 100:
        result.complaints.append(f"only {len(outcomes)} requests were sent")
    late = [each for each in result.away_s if result.fault == "envoy" and each > SERVING_AGAIN_S]
    if late:
        print(f"  {len(late)} of {len(result.away_s)} times away for longer than {SERVING_AGAIN_S} s")


def _count(failed: Counter[str]) -> str:
    detail = ", ".join(f"{name} {count}" for name, count in sorted(failed.items()))
    return f"{failed.total()} ({detail})" if failed else "0"


if __name__ == "__main__":
    sys.exit(main())
