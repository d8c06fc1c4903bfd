"""The warehouse's agents without Shoal: real processes and a real broker, with the variables that Shoal would set."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from queues_broker import Nats, free_port, until

# The example and the load generator are imported from the repository, not from an installed package.
from examples.warehouse.warehouse.sink import read_effects
from examples.warehouse.warehouse_demo.fleet import SHOAL_YAML
from examples.warehouse.warehouse_demo.traffic import make_batch
from examples.warehouse.warehouse_demo.verdict import ids_of
from shoal.spec import load

BATCHES = 8


class Warehouse:
    """Agents by their commands of shoal.yaml, one replica each, called directly instead of through the gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sink = directory / "effects.jsonl"
        self.fleet = load([SHOAL_YAML], variables={"WAREHOUSE_SINK": str(self.sink)}).fleet
        self.broker = Nats(directory, self.fleet)
        self.ports = {name: free_port() for name, agent in self.fleet.agents.items() if agent.port}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str) -> subprocess.Popen[bytes]:
        agent = self.fleet.agents[name]
        variables = {**os.environ, **agent.environment, "SHOAL_AGENT": name}
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        if agent.queue or agent.publishes:
            variables |= self.broker.environment(name)
        if "inventory" in agent.calls:
            variables["SHOAL_URL_INVENTORY"] = self.url("inventory")
        if name == "inventory":
            variables["SHOAL_VOLUME_STOCK"] = str(self.directory)
        command = [word.replace("$PORT", str(self.ports.get(name))) for word in agent.command or ()]
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=variables, cwd=SHOAL_YAML.parent, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    async def serving(self, name: str) -> None:
        await until(lambda: self.is_serving(name), f"{name} to serve")

    def is_serving(self, name: str) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url(name)}/healthz", timeout=1) as answer:
            return answer.status == 200
        return False

    def ids(self, kind: str) -> list[str]:
        return ids_of(list(read_effects(self.sink)), kind)

    def stop(self) -> Iterator[int]:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            yield process.wait(15)


@pytest.fixture
async def warehouse(tmp_path: Path) -> AsyncIterator[Warehouse]:
    warehouse = Warehouse(tmp_path)
    warehouse.broker.start()
    try:
        await warehouse.broker.ensure()
        yield warehouse
    finally:
        codes = list(warehouse.stop())
        await warehouse.broker.close()
    assert set(codes) <= {0, -15}


def call(method: str, url: str, body: str = "") -> Any:
    request = urllib.request.Request(url, body.encode() or None, {"content-type": "text/csv"}, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


async def test_every_effect_is_there_once(warehouse: Warehouse) -> None:
    """Batches are booked, their pictures resized and read, once each, though each batch was sent twice; the forecast
    is fitted to the readings, and the report shows all of it."""
    for name in ("inventory", "image-processing", "metadata-extraction", "ingest", "reporting"):
        warehouse.start(name)
    await warehouse.serving("inventory")
    await warehouse.serving("ingest")
    tasks = [f"b{number}-0" for number in range(BATCHES) if make_batch(number)[1]]
    for number in range(BATCHES):
        for _ in range(2):
            url = f"{warehouse.url('ingest')}/readings/b{number}"
            await asyncio.to_thread(call, "PUT", url, make_batch(number)[0])
    done = {"image", "metadata"}
    await until(lambda: all(set(warehouse.ids(kind)) >= set(tasks) for kind in done), "all pictures to be read")
    assert sorted(warehouse.ids("image")) == sorted(warehouse.ids("metadata")) == sorted(tasks)
    assert sorted(warehouse.ids("stock")) == [f"b{number}" for number in range(BATCHES)]

    for number in range(200, 500, 4):  # an hour each
        await asyncio.to_thread(call, "PUT", f"{warehouse.url('ingest')}/readings/b{number}", make_batch(number)[0])
    forecasting = warehouse.start("forecasting")
    await until(lambda: forecasting.poll() is not None, "the forecast")
    assert forecasting.returncode == 0
    assert len(warehouse.ids("forecast")) == 1
    await warehouse.serving("reporting")
    report = await asyncio.to_thread(call, "GET", f"{warehouse.url('reporting')}/report")
    assert report["expected_demand"] > 0
    assert report["pictures"] >= len(tasks)


async def test_a_bad_batch_is_the_callers_fault(warehouse: Warehouse) -> None:
    """It is answered with 422 and its reason, and has no effects."""
    warehouse.start("ingest")
    await warehouse.serving("ingest")
    with pytest.raises(HTTPError) as refused:
        await asyncio.to_thread(call, "PUT", f"{warehouse.url('ingest')}/readings/bad", "not,a,batch")
    with refused.value as error:
        assert error.code == 422
        assert "header" in json.load(error)["error"]
    assert warehouse.ids("request") == []


async def test_a_job_without_data_is_no_failure(warehouse: Warehouse) -> None:
    """It says so and leaves the forecast to the next run."""
    warehouse.start("inventory")
    await warehouse.serving("inventory")
    forecasting = warehouse.start("forecasting")
    await until(lambda: forecasting.poll() is not None, "the job")
    assert forecasting.returncode == 0
    assert "no forecast yet" in (warehouse.directory / "forecasting.log").read_text()
