"""The page of metrics, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shoal import __version__
from shoal.api import metrics_port
from shoal.api.metrics import METRICS, render_metrics
from shoal.api.queue_admins import QueueAdmins
from shoal.api.server import serve_api
from shoal.control.tally import PASS_BOUNDS_S, Tally, reason_of
from shoal.core.decision import Decision, Proposal
from shoal.core.routing import Traffic
from tests.unit.control.drive import driving

ROOT = Path(__file__).parents[3]
WEB = {"command": "serve", "port": 80, "scale": {"min": 2, "max": 4, "target": {"concurrency": 2}}}


def read(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels; none comes twice."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def of(agent: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"agent": agent, **labels}.items()))


async def test_the_version_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image of Shoal no package of that name is installed."""

    def nothing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    async with driving() as drive:
        await drive.up({"web": WEB})
        found = read(render_metrics(drive.controller))
    assert found["shoal_build_info", (("version", __version__),)] == 1


async def test_the_page_says_what_the_controller_knows() -> None:
    async with driving() as drive:
        await drive.up({"web": WEB, "job": {"command": "x", "schedule": {"cron": "0 0 * * *"}}})
        await drive.go()
        drive.controller.states["web"].traffic = Traffic(held=3, requests=10, failures=4)
        found = read(render_metrics(drive.controller))
    assert found["shoal_agent_replicas_desired", of("web")] == 2
    assert found["shoal_agent_replicas_ready", of("web")] == 2
    assert found["shoal_agent_replicas_max", of("web")] == 4
    assert found["shoal_agent_requests_held", of("web")] == 3
    assert found["shoal_gateway_requests_total", of("web", **{"class": "5xx"})] == 4
    assert found["shoal_gateway_requests_total", of("web", **{"class": "other"})] == 6
    assert found["shoal_agent_replicas_desired", of("job")] == 0
    assert found["shoal_fleet_generation", ()] == found["shoal_fleet_observed_generation", ()] == 1
    assert found["shoal_controller_pass_seconds_count", ()] == sum(drive.controller.tally.passes) > 0
    assert found["shoal_controller_pass_seconds_bucket", (("le", "+Inf"),)] == sum(drive.controller.tally.passes)


async def test_decisions_are_counted_by_reason() -> None:
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        found = read(render_metrics(drive.controller))
        changed = {key: value for key, value in found.items() if key[0] == "shoal_decisions_total"}
        drive.controller.pin("web", 4)
        await drive.go()
        found = read(render_metrics(drive.controller))
    assert sum(changed.values()) == 1
    assert found["shoal_decisions_total", of("web", direction="up", reason="pin")] == 1


def test_reasons_are_few() -> None:
    """Whatever the words for people say: a label of ever new texts would be a new series each time."""
    concurrency = Proposal("concurrency", 3, 30.0, 10.0)
    cpu = Proposal("cpu", 1, 20.0, 50.0)
    unknown = Proposal("p95", None, error="no requests")
    for expected, decision in {
        "pin": Decision("a", 0.0, 1, 5, "pinned", "pin", proposals=(concurrency,)),
        "concurrency": Decision("a", 0.0, 1, 3, "concurrency 30", proposals=(cpu, concurrency, unknown)),
        "min": Decision("a", 0.0, 0, 2, "below", "min"),
        "max": Decision("a", 0.0, 9, 4, "above", "max"),
        "waiting": Decision("a", 0.0, 0, 1, "1 held request", proposals=(Proposal("concurrency", 0), unknown)),
        "cpu": Decision("a", 0.0, 4, 1, "cpu", proposals=(cpu,)),
    }.items():
        assert reason_of(decision) == expected


def test_passes_are_counted_once_and_gone_agents_not_for_ever() -> None:
    tally = Tally()
    for took in (0.0, PASS_BOUNDS_S[0], PASS_BOUNDS_S[-1] + 1):
        tally.add_pass(took)
    assert (tally.passes[0], tally.passes[-1], sum(tally.passes)) == (2, 1, 3)
    for name in ("a", "b"):
        tally.add_decision(Decision(name, 0.0, 1, 2, ""))
    tally.retain({"a"})
    assert {agent for agent, *_ in tally.decisions} == {"a"}


async def test_every_metric_is_on_the_page_and_in_the_documentation() -> None:
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        page = render_metrics(drive.controller).decode()
    names = [metric.name for metric in METRICS]
    assert re.findall(r"^# TYPE (\S+)", page, re.MULTILINE) == names
    documented = re.findall(r"^\| `(\S+)` \| (\w+) \| (.*?) \| (.*) \|$", (ROOT / "docs/metrics.md").read_text(), re.M)
    assert documented == [
        (each.name, each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help) for each in METRICS
    ]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_they_are_served_on_the_socket_and_on_the_port_of_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port comes and goes with the spec; one that is taken is told, and taken once it is free."""
    monkeypatch.setattr(metrics_port, "_LOOK_S", 0.01)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        path = tmp_path / "s" / "controller.sock"
        async with driving() as drive, serve_api(drive.controller, path, QueueAdmins(drive.controller, "f", str)):
            await drive.up({"web": WEB}, metrics={"port": port})
            await drive.go()
            by_socket = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))
            async with by_socket as session, session.get("http://shoal/metrics") as response:
                assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
                assert read(await response.read())
            await until(lambda: "metrics" in drive.controller.problems)
            who = f"{psutil.Process().name()} (pid {os.getpid()})"
            told = f"metrics.port: {port} is used by {who}; stop it, or set metrics.port to another port"
            assert drive.controller.problems["metrics"] == told
            holder.close()
            await until(lambda: "metrics" not in drive.controller.problems)
            url = f"http://127.0.0.1:{port}/metrics"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert read(await response.read())["shoal_agent_replicas_desired", of("web")] == 2
            await drive.up({"web": WEB})
            await drive.go()
            await until(lambda: not listens(port))
