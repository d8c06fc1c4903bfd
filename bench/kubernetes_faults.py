"""Faults of a fleet on Kubernetes, one kind after the other, under load, and what the clients saw of them.

    python -m bench.kubernetes_faults [--faults replica,controller,...] [--times N] [--seed S]

It needs the bed (`make kube-up`). Clients ask a gateway of the first node, which stays; the agent writes down each
request that it works on, in a volume. The two are compared. After so many writes of a rollout as are drawn `controller`
kills the one that acts, `frozen` stops it until another one acts, and `lease` gives the Lease to somebody who does not
act; `kube-apiserver` and `etcd` are away for longer than that lasts, and `node` pulls the cable of the last node for as
long. What each controller wrote is held against who had the Lease then. Exits with 1 where something happened that must
not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from bench.controller_pods import Controllers, signal_to
from bench.controller_turns import Turns
from bench.fault_choice import Chosen, choose_faults
from bench.kubernetes_fleet import KubernetesFleet, on_kubernetes
from bench.live_fleet import HERE
from bench.load import Outcome, read_outcomes
from bench.loss import by_kind, count, failed, mixed_load
from shoal.api.views import AgentView
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.names import ROLE, Role
from shoal.engines.kubernetes.render_own import PUBLIC_PORT
from shoal.errors import ShoalError
from testbed.kubernetes import control_plane, life
from testbed.swarm import network

RATE, UNSAFE_RATE = 50, 10
REPLICAS = 4
_AWAY_S = 12.0  # a Lease lasts 8
_MOST_WRITES = 8  # of a rollout, about
_SETTLES_S = 240.0

_COLUMNS = (
    "fault",
    "times",
    "GETs (idempotent)",
    "failed",
    "POSTs (not)",
    "failed",
    "done twice",
    "out of turn",
    "held",
)
HEAD = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"


@dataclass
class Campaign:
    """One fleet under load."""

    fleet: KubernetesFleet
    controllers: Controllers
    rng: random.Random
    version: int = 0

    def turns(self) -> Turns:
        """What controllers write from now on."""
        return Turns(self.fleet.bed, self.fleet.name)

    def write(self) -> None:
        """The file, with another version of the agent."""
        self.version += 1
        environment = {"HOST": "", "SINK": "/sink/done", "VERSION": f"{self.version}"}
        agent = {
            "image": self.fleet.image,
            "command": ["python3", "-c", (HERE / "kill_agent.py").read_text()],
            "port": 8000,
            "public": "/web",
            "health": "/healthz",
            "idempotent": ["GET"],
            "environment": environment,
            "volumes": ["sink:/sink"],
            "resources": {"cpu": "100m"},  # else it stands still while anything else on its node has to do
            "scale": {"min": REPLICAS, "max": REPLICAS + 2},
        }
        self.fleet.write({"web": agent})

    async def begin(self) -> None:
        """The fleet as it is written; the control plane may have come back a moment before."""
        async with asyncio.timeout(_SETTLES_S):
            while True:
                with contextlib.suppress(subprocess.CalledProcessError):
                    await asyncio.to_thread(self.fleet.shoal, "up", "-d", "-y", timeout_s=_SETTLES_S)
                    return
                await asyncio.sleep(1.0)

    async def settled(self) -> AgentView:
        """Once all that is wished is there, of one version, and nothing else."""
        deadline = time.monotonic() + _SETTLES_S
        view: AgentView | None = None
        while time.monotonic() < deadline:
            try:
                view = await asyncio.to_thread(self.fleet.agent, "web")
            except (ShoalError, OSError):
                view = None
            if view is not None and view.settled and view.ready == view.desired == len(view.replicas):
                return view
            await asyncio.sleep(0.2)
        raise TimeoutError(f"not settled within {_SETTLES_S:g}s: {view}")


async def _replica(campaign: Campaign) -> None:
    """One of those that serve; the next only once it was replaced."""
    view = await campaign.settled()
    victim = campaign.rng.choice(view.replicas).id
    for process in psutil.process_iter():
        try:
            if process.environ().get("SHOAL_REPLICA") == victim:
                process.kill()
        except psutil.Error:
            continue
    await asyncio.sleep(2.0)


@asynccontextmanager
async def _rollout(campaign: Campaign) -> AsyncGenerator[str]:
    """The name of the controller that acts, once it has written as often for another version as is drawn; the rollout
    is for whoever acts then to finish."""
    campaign.write()
    leader, turns = await campaign.controllers.leader(), campaign.turns()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(_up, campaign))
        await turns.written(leader, campaign.rng.randint(1, _MOST_WRITES))
        yield leader


def _up(campaign: Campaign) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # it may have lost its controller
        campaign.fleet.shoal("up", "-d", "-y", timeout_s=_SETTLES_S)


async def _controller(campaign: Campaign) -> None:
    async with _rollout(campaign) as leader:
        signal_to(leader, signal.SIGKILL)


async def _frozen(campaign: Campaign) -> None:
    async with _rollout(campaign) as leader:
        signal_to(leader, signal.SIGSTOP)
        try:
            await campaign.controllers.another_leader(leader)
        finally:
            signal_to(leader, signal.SIGCONT)


async def _lease(campaign: Campaign) -> None:
    async with _rollout(campaign) as leader:
        await campaign.controllers.steal("somebody")
        await campaign.controllers.said_before(leader)


def _part(name: str) -> Callable[[Campaign], Awaitable[None]]:
    async def away(campaign: Campaign) -> None:
        await asyncio.to_thread(control_plane.part_of(campaign.fleet.bed, name).stop)
        await asyncio.sleep(_AWAY_S)
        await asyncio.to_thread(life.run_part, campaign.fleet.bed, name)
        await asyncio.to_thread(control_plane.wait_ready, campaign.fleet.bed)

    return away


async def _node(campaign: Campaign) -> None:
    last = campaign.fleet.bed.nodes()[-1]
    network.set_cable(last, plugged=False)
    await asyncio.sleep(_AWAY_S)
    network.set_cable(last, plugged=True)


FAULTS: dict[str, Callable[[Campaign], Awaitable[None]]] = {
    "replica": _replica,
    "controller": _controller,
    "frozen": _frozen,
    "lease": _lease,
    "kube-apiserver": _part("kube-apiserver"),
    "etcd": _part("etcd"),
    "node": _node,
}


def main() -> int:
    """The command line."""
    chosen = choose_faults("python -m bench.kubernetes_faults", __doc__ or "", FAULTS, 20, "of each")
    print(f"seed {chosen.seed}\n{HEAD}", flush=True)
    with on_kubernetes("bench-faults") as fleet:
        held = asyncio.run(_all(fleet, chosen))
    return 0 if held else 1


async def _all(fleet: KubernetesFleet, chosen: Chosen) -> bool:
    held = True
    async with fleet.place.kubernetes() as kubernetes:
        for name in chosen.faults:
            campaign = Campaign(fleet, Controllers(kubernetes), random.Random(f"{chosen.seed} {name}"))
            campaign.write()
            await campaign.begin()
            held &= await _one(campaign, name, chosen.times)
    return held


async def _one(campaign: Campaign, name: str, times: int) -> bool:
    """One row of the table; whether nothing happened that must not."""
    fleet = campaign.fleet
    out = fleet.directory / f"outcomes-{name}.jsonl"
    networks = [f"{fleet.bed.network}.0/24", fleet.bed.pods]
    began, turns = sum(1 for _ in _done(fleet)), campaign.turns()
    with mixed_load(await _gateway(campaign), networks, RATE, UNSAFE_RATE, out):
        await asyncio.sleep(2.0)
        for _ in range(times):
            await FAULTS[name](campaign)
            await campaign.settled()
    outcomes: list[Outcome] = read_outcomes(out)[1]
    safe, unsafe = by_kind(outcomes)
    done = Counter(list(_done(fleet))[began:])
    twice = sum(1 for line, times_done in done.items() if line.startswith("POST ") and times_done > 1)
    early = turns.out_of_turn()
    held = safe.keys() == {"ok"} and not twice and not early
    held &= unsafe["ok"] <= sum(line.startswith("POST ") for line in done)
    cells = [count(safe), failed(safe), count(unsafe), failed(unsafe), f"{twice}", f"{len(early)}"]
    cells.append("yes" if held else "NO")
    print(f"| {name} | {times} | {' | '.join(cells)} |", flush=True)
    return held


def _done(fleet: KubernetesFleet) -> Iterator[str]:
    """What replicas worked on, in their order."""
    for file in fleet.bed.volumes.glob("*/done"):
        yield from file.read_text().splitlines()


async def _gateway(campaign: Campaign) -> str:
    """That on the first node, which stays."""
    first = campaign.fleet.bed.node(1).name
    pods, _ = await campaign.controllers.kubernetes.list(POD, {ROLE: Role.GATEWAY.value})
    address = next(pod["status"]["podIP"] for pod in pods if pod["spec"]["nodeName"] == first)
    return f"http://{address}:{PUBLIC_PORT}"


if __name__ == "__main__":
    sys.exit(main())
