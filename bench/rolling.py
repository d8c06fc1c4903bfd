"""Replacements and undos under load, one after the other: none may fail a request or cut a stream.

    python -m bench.rolling [--changes 50] [--rate 200] [--streams 20] [--replicas 3]

A change is what people do: another value in the file and `shoal up -d`; an undo is `shoal rollout undo web`. The load
is open-loop and a process of its own, half of it on new connections; every request has an id and its outcome a line.
Streams last longer than a change takes, and less long than the grace period. Exits 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.live_fleet import HERE, LiveFleet, running
from bench.load import Request, read_outcomes, summarize

STREAM_S = 8
GRACE_S = 25
AGENT = "web"


@dataclass
class Campaign:
    """What came of it: `took_s` by what was done, `requests` and `streams` by their outcome."""

    took_s: dict[str, list[float]] = field(default_factory=lambda: {"change": [], "undo": []})
    requests: dict[str, int] = field(default_factory=dict[str, int])
    streams: dict[str, int] = field(default_factory=dict[str, int])
    p50_s: float = 0.0
    p99_s: float = 0.0
    late_s: float = 0.0
    seen: list[str] = field(default_factory=list[str])

    @property
    def failed(self) -> int:
        """Requests and streams that did not end well, those that were never sent among them."""
        requests = sum(count for outcome, count in self.requests.items() if outcome != "ok")
        return requests + sum(count for outcome, count in self.streams.items() if outcome != "whole")


def run(changes: int, rate: float, streams: int, replicas: int, say: Callable[[str], None]) -> Campaign:
    """As many changes, each followed by its undo."""
    campaign = Campaign()
    with (
        running("rolling", {AGENT: _agent(0, replicas)}, gateway={"access_log": True}) as fleet,
        tempfile.TemporaryDirectory() as folder,
        _load(fleet, Path(folder), rate, campaign),
        _streams(fleet, streams, campaign),
    ):
        time.sleep(1.0)
        for number in range(1, changes + 1):
            _write(fleet, _agent(number, replicas))
            campaign.took_s["change"].append(_timed(fleet, "up", "-d"))
            campaign.took_s["undo"].append(_timed(fleet, "rollout", "undo", AGENT, "-y"))
            say(f"{number} of {changes}: {campaign.took_s['change'][-1]:.1f} s, {campaign.took_s['undo'][-1]:.1f} s")
        time.sleep(1.0)
        campaign.seen = list(_what_the_gateway_saw(fleet))
    return campaign


def _what_the_gateway_saw(fleet: LiveFleet) -> Iterator[str]:
    """Its log's lines about what did not go well, and what happened then."""
    for path in sorted((fleet.directory / "home").rglob("access.log*")):
        for line in path.read_text().splitlines():
            if '"status": 200' not in line and '"status":200' not in line:
                yield line
    for event in fleet.events(0.0):
        if event.kind in ("drain", "problem", "crashed", "unready", "rollout-failed", "refused"):
            yield f"{event.at:.3f} {event.agent or '-'} {event.kind}: {event.message}"


def _agent(version: int, replicas: int) -> dict[str, object]:
    return {
        "command": [sys.executable, "-m", "bench.rolling_agent"],
        "working_dir": str(HERE.parent),
        "port": 8000,
        "health": "/healthz",
        "public": "/web",
        "environment": {"VERSION": str(version)},
        "scale": replicas,
        "stop_grace_period": f"{GRACE_S}s",
    }


def _write(fleet: LiveFleet, agent: dict[str, object]) -> None:
    path = fleet.directory / "shoal.yaml"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "agents": {AGENT: agent}}, indent=2))


def _timed(fleet: LiveFleet, *command: str) -> float:
    began = time.monotonic()
    fleet.shoal(*command, timeout_s=180.0)
    return time.monotonic() - began


@contextlib.contextmanager
def _load(fleet: LiveFleet, folder: Path, rate: float, campaign: Campaign) -> Generator[None]:
    out = folder / "outcomes.jsonl"
    command = [sys.executable, "-m", "bench.load", "--target", fleet.url, "--schedule", "/dev/stdin", "--out", str(out)]
    command += ["--max-requests", "10000000", "--max-seconds", "14400"]
    load = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    threading.Thread(target=_feed, args=(load, rate), daemon=True).start()
    try:
        yield
        if load.poll() is not None:
            raise RuntimeError(f"the load ended before its time, with {load.returncode}")
    finally:
        load.terminate()  # it waits for what it sent
        load.wait(60)
    summary = summarize(read_outcomes(out)[1])
    campaign.requests = dict(summary.outcomes)
    campaign.p50_s, campaign.p99_s, campaign.late_s = summary.p50_s, summary.p99_s, summary.late_s


def _feed(load: subprocess.Popen[bytes], rate: float) -> None:
    assert load.stdin is not None
    with contextlib.suppress(BrokenPipeError, ValueError), load.stdin as pipe:
        for request in _requests(rate):
            pipe.write(json.dumps(asdict(request)).encode() + b"\n")


def _requests(rate: float) -> Iterator[Request]:
    """Without end, half of them on new connections; nothing is ever sent twice."""
    for number in itertools.count():
        headers = {"Connection": "close"} if number % 2 else {}
        yield Request(f"r{number}", number / rate, path=f"/web/{number}", headers=headers)


@contextlib.contextmanager
def _streams(fleet: LiveFleet, streams: int, campaign: Campaign) -> Generator[None]:
    arguments = [str(fleet.port), "/web/stream", str(streams), str(STREAM_S)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.rolling_streams", *arguments], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    )
    try:
        yield
        process.terminate()
        campaign.streams = dict(Counter(json.loads(process.communicate(timeout=60)[0])))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rolling", description="Replacements and undos under load.")
    parser.add_argument("--changes", type=int, default=50, help="each is followed by its undo")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--streams", type=int, default=20, help="how many are open at any time")
    parser.add_argument("--replicas", type=int, default=3)
    options = parser.parse_args()
    campaign = run(
        options.changes, options.rate, options.streams, options.replicas,
        lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    for what, took in campaign.took_s.items():
        print(f"{len(took)} times {what}: median {statistics.median(took):.1f} s, longest {max(took):.1f} s")
    print(f"requests: {campaign.requests}; p50 {campaign.p50_s * 1000:.1f} ms, p99 {campaign.p99_s * 1000:.1f} ms, "
          f"sent {campaign.late_s * 1000:.0f} ms late at worst")  # fmt: skip
    print(f"streams: {campaign.streams}")
    if campaign.failed:
        print("\n".join(campaign.seen))
    return 1 if campaign.failed else 0


if __name__ == "__main__":
    sys.exit(main())
