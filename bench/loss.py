"""What a fault or a change costs those who ask meanwhile, with requests that may be repeated and such that may not.

Half of them come on new connections; each is sent once, and has 10 s.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.live_fleet import HERE
from bench.load import Outcome, Request


@contextlib.contextmanager
def mixed_load(url: str, networks: Sequence[str], rate: int, unsafe_rate: int, out: Path) -> Generator[None]:
    """Requests on time until the block ends; then all outcomes are in the file. `rate` GETs a second are idempotent,
    and so many POSTs are not."""
    command = [sys.executable, "-m", "bench.load", "--target", url, "--schedule", "/dev/stdin", "--out", str(out)]
    command += ["--max-requests", "10000000", "--max-seconds", "14400", "--timeout", "10"]
    command += [word for network in networks for word in ("--allow-network", network)]
    load = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    threading.Thread(target=_feed, args=(load, rate, unsafe_rate), daemon=True).start()
    try:
        yield
        if load.poll() is not None:
            raise RuntimeError(f"the load ended before its time, with {load.returncode}")
    finally:
        load.terminate()  # it waits for what it sent
        load.wait(60)


def _feed(load: subprocess.Popen[bytes], rate: int, unsafe_rate: int) -> None:
    assert load.stdin is not None
    with contextlib.suppress(BrokenPipeError, ValueError), load.stdin as pipe:
        for request in requests(rate, unsafe_rate):
            pipe.write(json.dumps(asdict(request)).encode() + b"\n")


def requests(rate: int, unsafe_rate: int) -> Iterator[Request]:
    """Without end, evenly spaced; half of either kind are on new connections."""
    every = (rate + unsafe_rate) // unsafe_rate
    for number in itertools.count():
        method = "POST" if number % every == 0 else "GET"
        headers = {"Connection": "close"} if (number + number // every) % 2 else {}
        at_s = number / (rate + unsafe_rate)
        yield Request(f"r{number}", at_s, method, f"/web/{number}", "", headers, idempotent=method == "GET")


def by_kind(outcomes: Iterable[Outcome]) -> tuple[Counter[str], Counter[str]]:
    """How often what came: of those that may be repeated, and of the others."""
    safe, unsafe = Counter[str](), Counter[str]()
    for outcome in outcomes:
        (safe if outcome.idempotent else unsafe)[outcome.outcome] += 1
    return safe, unsafe


def count(outcomes: Mapping[str, int]) -> str:
    """All of them."""
    return f"{sum(outcomes.values()):,}"


def failed(outcomes: Mapping[str, int]) -> str:
    """Those that did not end well, by how they ended."""
    bad = {name: number for name, number in sorted(outcomes.items()) if name != "ok"}
    kinds = ", ".join(f"{name} {number}" for name, number in bad.items())
    return f"{sum(bad.values())} ({kinds})" if bad else "0"
