"""On Kubernetes: from a step of load to the first new ready pod, by Shoal and by an HPA with all its defaults.

What a pod takes by itself is measured in turns with it: from a patch of the scale. A pod is ready everywhere when
Kubernetes says so. Kubelet looks at what runs once a second: who asks right after a pod became ready is in step with
that, which a step of load is not. So the turns ask at moments that are spread over a second.
"""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

from bench.kubernetes_fleet import AGENT, KubernetesFleet, on_kubernetes
from bench.kubernetes_plain import LABELS, NODE_PORT, Program, plain_service
from bench.kubernetes_pods import ReadyPods, ready_pods
from bench.load import read_outcomes, summarize
from bench.row import Goal, Row
from bench.step_load import SCALE, SERVICE_S, back_to_one, send_step
from shoal.engines.kubernetes.names import AGENT as AGENT_LABEL

# The work of a request is for the HPA to see: 38 a second keep a pod below its 80 % of 100m, 150 take thrice as much.
ENVIRONMENT = {"SERVICE_S": f"{SERVICE_S}", "BURN_S": "0.001"}
BEFORE_S, STEP_S = 3.0, 8.0
HPA_BEFORE_S, HPA_STEP_S = 20.0, 120.0
_PATIENCE_S = 60.0


def run(quick: bool) -> list[Row]:
    """Ours, a pod's own start and the HPA in turns."""
    turns = 2 if quick else 5
    with on_kubernetes("bench-step") as fleet:
        fleet.write({"web": fleet.agent_spec(scale=SCALE, environment=ENVIRONMENT, resources={"cpu": "100m"})})
        fleet.shoal("up", "-d", "-y", timeout_s=180)
        found = [asyncio.run(_turn(fleet, number / turns)) for number in range(turns)]
    ours, starts, hpa = (tuple(each) for each in zip(*found, strict=True))
    what = "step load to the first new ready pod"
    return [
        Row(
            "kubernetes", f"{what}, over a pod's own start", "s", ours=ours, baseline=starts, compare="difference",
            goal=Goal(1.0), note="baseline: one more by a patch of the scale, at moments spread over a second",
        ),
        Row(
            "kubernetes", f"{what}, against an HPA", "s", ours=ours, baseline=hpa, compare="ratio",
            note="baseline: autoscaling/v2 at 80 % CPU, all else by default, metrics-server every 15 s",
        ),
    ]  # fmt: skip


async def _turn(fleet: KubernetesFleet, after_s: float) -> tuple[float, float, float]:
    ours = await _ours(fleet)
    program = Program(fleet.image, AGENT, ENVIRONMENT)
    return ours, await _start(fleet, program, after_s), await _hpa(fleet, program)


async def _ours(fleet: KubernetesFleet) -> float:
    """Seconds; then the fleet is back at one."""
    async with fleet.place.kubernetes() as kubernetes, ready_pods(kubernetes, {AGENT_LABEL: "web"}) as pods:
        took_s = await _stepped(fleet, fleet.url, pods, BEFORE_S, STEP_S)
    failed = summarize(read_outcomes(fleet.directory / "outcomes.jsonl")[1]).failed
    if failed:
        raise RuntimeError(f"{failed} failed requests: {fleet.agent('web')}")
    await asyncio.to_thread(back_to_one, fleet)
    return took_s


async def _start(fleet: KubernetesFleet, program: Program, after_s: float) -> float:
    """Seconds from the patch of the scale until the new pod is ready, asked so long after another one was."""
    async with (
        plain_service(fleet.place.access(), program, 1) as plain,
        ready_pods(plain.kubernetes, LABELS) as pods,
    ):
        await asyncio.sleep(after_s)
        began = time.monotonic()
        await plain.scale(2)
        return (await pods.first_since(began, _PATIENCE_S) or math.inf) - began


async def _hpa(fleet: KubernetesFleet, program: Program) -> float:
    async with plain_service(fleet.place.access(), program, 1) as plain, ready_pods(plain.kubernetes, LABELS) as pods:
        await plain.autoscale(SCALE["max"])
        url = f"http://{fleet.bed.node(1).address}:{NODE_PORT}"
        return await _stepped(fleet, url, pods, HPA_BEFORE_S, HPA_STEP_S)


async def _stepped(fleet: KubernetesFleet, url: str, pods: ReadyPods, before_s: float, step_s: float) -> float:
    """Seconds from the step until another pod is ready, with the load ended; infinite where none is while it lasts.
    Raises RuntimeError for a run that says nothing, as somebody scaled before the step."""
    there = len(pods.at)
    load, out = send_step(url, f"{fleet.bed.network}.0/24", fleet.directory, before_s, step_s)
    try:
        at_s = await _began(out) + before_s
        await asyncio.sleep(at_s - time.monotonic())
        if len(pods.at) > there:
            raise RuntimeError(f"{len(pods.at) - there} new pods before the step")
        return (await pods.first_since(at_s, step_s) or math.inf) - at_s
    finally:
        load.terminate()
        await asyncio.to_thread(load.wait, 60)


async def _began(out: Path) -> float:
    """When the load did, by the monotonic clock."""
    while True:
        try:
            started_at, _ = read_outcomes(out)
        except (FileNotFoundError, ValueError):
            await asyncio.sleep(0.05)
        else:
            return started_at - time.time() + time.monotonic()
