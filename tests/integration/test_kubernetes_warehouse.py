"""The warehouse on a real Kubernetes from the very file that runs it on one machine: its work, and another `up`."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from kubernetes_objects import versions_of
from typed import Typed
from warehouse_on_cluster import BATCHES, EVERY_S, EXAMPLE, WITHIN_S, ask, batches, settled, stays, works

from tests.kubernetes_cluster import Cluster, ClusterImages

PROD = ("-e", "prod")
CLIENTS = 6
SMALL = {"resources": {"cpu": "50m"}}  # for two nodes on one machine, where the file is meant for larger ones


def test_the_warehouse(kubernetes: Cluster, kubernetes_images: ClusterImages) -> None:
    """All six kinds do their work, each task once; more ingest comes with more requests, none of which fails; to type
    `up` again changes and restarts nothing, and writes nothing into the cluster."""
    namespace = f"warehouse-{secrets.token_hex(4)}"
    own = {"image": kubernetes_images.shoal, "service": "NodePort"}
    prod = {"context": kubernetes.context, "namespace": namespace, "kubernetes": own}
    agents = ("ingest", "inventory", "image-processing", "metadata-extraction", "forecasting", "reporting")
    over: dict[str, Any] = {
        "image": kubernetes_images.warehouse,
        "agents": dict.fromkeys(agents, SMALL),
        "environments": {"prod": prod},
    }
    environ = {**kubernetes.environ, "WAREHOUSE_SINK": "/dev/stdout"}  # effects are lines of its log
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        home = Path(directory)
        (home / "own.yaml").write_text(json.dumps(over))
        typed = Typed(home, environ, str(EXAMPLE / "shoal.yaml"), "own.yaml")
        try:
            typed("up", "-d", "-y", *PROD)
            gateway = json.loads(typed("status", "-o", "json", *PROD))["gateway_url"]
            with effects(typed, home / "effects") as done:
                works(typed, PROD, [gateway])
                grows(typed, gateway)
                each_once(done)
            settled(typed, PROD)
            before = versions_of(kubernetes, namespace)
            stays(typed, PROD)
            assert versions_of(kubernetes, namespace) == before
        finally:
            typed("down", "--volumes", "-y", *PROD)


@contextmanager
def effects(typed: Typed, file: Path) -> Generator[Path]:
    """What agents write down of what they did, in a file, while it goes on."""
    following = typed.start("logs", "-f", *PROD, output=file)
    try:
        yield file
    finally:
        following.terminate()
        try:
            following.wait(10)
        except subprocess.TimeoutExpired:
            following.kill()
            following.wait()


def grows(typed: Typed, gateway: str) -> None:
    """Six clients that don't wait: at two requests a replica more than the two that there are at least."""
    _, body, *_ = batches()  # without a picture: tasks are counted
    numbers, enough = count(BATCHES), False
    deadline = time.monotonic() + WITHIN_S

    def send() -> int:
        sent = 0
        while not enough:
            ask(f"{gateway}/ingest/readings/batch-{next(numbers)}", body)
            sent += 1
        return sent

    with ThreadPoolExecutor(CLIENTS) as clients:
        sending = [clients.submit(send) for _ in range(CLIENTS)]
        try:
            while ready(typed) < 3:
                assert time.monotonic() < deadline, typed("explain", "ingest", *PROD)
                time.sleep(EVERY_S)
        finally:
            enough = True
        assert sum(each.result() for each in sending) > CLIENTS


def ready(typed: Typed) -> int:
    found = json.loads(typed("status", "-o", "json", *PROD))["agents"]
    return next(agent["ready"] for agent in found if agent["name"] == "ingest")


def each_once(written: Path) -> None:
    """Every picture's two tasks, none of them twice."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        lines = [line[line.index("{") :] for line in written.read_text().splitlines() if '"kind"' in line]
        done = Counter((effect["kind"], effect["id"]) for effect in map(json.loads, lines))
        of_kind = Counter(kind for kind, _ in done)
        if of_kind["image"] == of_kind["metadata"] == BATCHES // 3:
            break
        assert time.monotonic() < deadline, of_kind
        time.sleep(0.5)
    assert set(done.values()) == {1}
