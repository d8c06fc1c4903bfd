"""An open-loop load generator, and the count of what came of it. Shared by the demo and the benchmarks.

It is a process of its own, and sends on time whether or not answers came: a closed loop would slow down just when the
fleet does, and hide it. Each request is sent exactly once.

    python -m bench.load --target http://127.0.0.1:8080 --schedule schedule.jsonl --out outcomes.jsonl

The schedule has one JSON object a line, by `at_s`: `{"id", "at_s", "method", "path", "body", "headers",
"idempotent"}`; the outcomes begin with `{"started_at": epoch}`, then one object a request. Only loopback addresses
are accepted: this must never be pointed at somebody else's service.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from bench.load_http import AnswerReader, Connection

IDLE_S = 3.0  # an older connection isn't used again: the server may be closing it at this moment
FLUSH_S = 0.25  # how far the outcomes on disk may lag behind


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a schedule. `idempotent` is for who reads the outcomes: nothing is ever sent twice."""

    id: str
    at_s: float
    method: str = "GET"
    path: str = "/"
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request. `outcome` is `ok`, `http-<status>` from 400 on, `refused`, `reset`, `timeout`, or
    `not-sent` where the generator's own bounds were reached. Times are seconds; latency counts from sending."""

    id: str
    at_s: float
    sent_s: float
    latency_s: float
    first_byte_s: float | None
    status: int | None
    outcome: str
    idempotent: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to stop, whatever the schedule says."""

    requests: int = 200_000
    seconds: float = 900.0
    in_flight: int = 2_000
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: an address that was checked, and what comes before each path."""

    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """All requests in numbers. Percentiles are of `ok` alone, from the scheduled time on; `late_s` is how much later
    than scheduled the generator itself sent, at worst."""

    requests: int
    failed: int
    outcomes: Mapping[str, int]
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float
    late_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ids that were expected and never done, done more than once, and done though nobody asked."""

    lost: tuple[str, ...]
    twice: tuple[str, ...]
    unexpected: tuple[str, ...]


def compare(expected: Iterable[str], done: Iterable[str]) -> Comparison:
    """Hold what should have been done against what was done."""
    wanted, counts = set(expected), Counter(done)
    return Comparison(
        lost=tuple(sorted(wanted - counts.keys())),
        twice=tuple(sorted(identity for identity, count in counts.items() if count > 1)),
        unexpected=tuple(sorted(counts.keys() - wanted)),
    )


def write_schedule(path: Path, requests: Iterable[Request]) -> None:
    """Write requests, put in order of time."""
    with path.open("w") as file:
        for request in sorted(requests, key=lambda each: each.at_s):
            file.write(json.dumps(asdict(request)) + "\n")


def read_schedule(lines: Iterable[str]) -> Iterator[Request]:
    """Requests, one by one. Raises ValueError where time goes backwards."""
    last_s = 0.0
    for number, line in enumerate(lines, start=1):
        request = Request(**json.loads(line))
        if request.at_s < last_s:
            raise ValueError(
                f"line {number}: at_s {request.at_s} after {last_s}; expected the schedule in order of time"
            )
        last_s = request.at_s
        yield request


def read_outcomes(path: Path) -> tuple[float, list[Outcome]]:
    """When the load began (epoch seconds), and every outcome so far; a line that is being written is left out."""
    lines = path.read_text().splitlines(keepends=True)
    if not lines or not lines[0].endswith("\n"):
        raise ValueError(f"{path}: no outcomes yet")
    started_at = float(json.loads(lines[0])["started_at"])
    return started_at, [Outcome(**json.loads(line)) for line in lines[1:] if line.endswith("\n")]


def summarize(outcomes: Sequence[Outcome]) -> LoadSummary:
    """The outcomes in numbers."""
    counts = Counter(each.outcome for each in outcomes)
    took_s = sorted(each.sent_s - each.at_s + each.latency_s for each in outcomes if each.outcome == "ok")
    return LoadSummary(
        requests=len(outcomes),
        failed=len(outcomes) - counts["ok"],
        outcomes=dict(sorted(counts.items())),
        p50_s=quantile(took_s, 0.5),
        p95_s=quantile(took_s, 0.95),
        p99_s=quantile(took_s, 0.99),
        max_s=quantile(took_s, 1.0),
        late_s=max((each.sent_s - each.at_s for each in outcomes if each.outcome != "not-sent"), default=0.0),
    )


def quantile(ordered: Sequence[float], q: float) -> float:
    """The value at or below which a share `q` lies; NaN of nothing."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


def parse_target(url: str, allowed: Sequence[str] = ()) -> Target:
    """The address to send to. Raises ValueError unless it is of this machine, or in a private network allowed."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r}: expected http://ADDRESS:PORT")
    try:
        address = ipaddress.ip_address("127.0.0.1" if parts.hostname == "localhost" else parts.hostname)
    except ValueError as error:
        raise ValueError(f"{url!r}: expected an IP address, names are not resolved here") from error
    networks = [ipaddress.ip_network(each) for each in allowed]
    if public := [str(network) for network in networks if not network.is_private]:
        raise ValueError(f"{', '.join(public)}: only private networks may be allowed")
    if not address.is_loopback and not any(address in network for network in networks):
        raise ValueError(f"{url!r}: not a loopback address; load may only go to this machine")
    return Target(str(address), parts.port or 80, parts.path.rstrip("/"))


class Generator:
    """Sends a schedule to a target and writes outcomes as they come."""

    def __init__(self, target: Target, bounds: Bounds, out: TextIO) -> None:
        self._target, self._bounds, self._out = target, bounds, out
        self._idle: deque[Connection] = deque()
        self._in_flight = 0
        self._start = 0.0
        self._flushed = 0.0
        self._stopped = asyncio.Event()

    async def run(self, schedule: Iterable[Request]) -> None:
        """Until the schedule's last answer, or a bound. SIGTERM ends the schedule; what was sent is waited for."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopped.set)
        self._out.write(json.dumps({"started_at": time.time()}) + "\n")
        self._start = time.monotonic()
        try:
            async with asyncio.timeout(self._bounds.seconds), asyncio.TaskGroup() as group:
                for number, request in enumerate(schedule, start=1):
                    await asyncio.sleep(max(0.0, self._start + request.at_s - time.monotonic()))
                    if self._stopped.is_set():
                        break
                    if self._in_flight >= self._bounds.in_flight or number > self._bounds.requests:
                        self._write(request, self._now(), None, None, "not-sent")
                        continue
                    self._in_flight += 1
                    group.create_task(self._send(request))
        except TimeoutError:
            print(f"stopped after {self._bounds.seconds:g}s: what is left was not sent", file=sys.stderr)
        finally:
            for connection in self._idle:
                connection.close()
            self._out.flush()

    async def _send(self, request: Request) -> None:
        sent_s = self._now()
        connection, answer = None, None
        outcome = "timeout"
        try:
            async with asyncio.timeout(self._bounds.timeout_s):
                connection = await self._connect()
                answer = await connection.send(request.method, self._encode(request))
            outcome = "ok" if (answer.status or 0) < 400 else f"http-{answer.status}"
        except TimeoutError:
            outcome = "timeout"
        except ConnectionRefusedError:
            outcome = "refused"
        except OSError:
            outcome = "reset"
        finally:  # also when the whole run is stopped: what was in flight then is a timeout
            self._in_flight -= 1
            self._write(request, sent_s, connection, answer, outcome)
            if connection is not None:
                self._keep(connection, answer)

    async def _connect(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.idle_since < IDLE_S:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self._target.host, self._target.port))[1]

    def _keep(self, connection: Connection, answer: AnswerReader | None) -> None:
        if answer is None or not answer.reusable or not connection.usable:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def _encode(self, request: Request) -> bytes:
        body = request.body.encode()
        headers = {"host": self._target.authority, **request.headers}
        if body or request.method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(body))
        lines = [f"{request.method} {self._target.prefix}{request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _write(
        self, request: Request, sent_s: float, connection: Connection | None, answer: AnswerReader | None, outcome: str
    ) -> None:
        now_s = self._now()
        first = connection.first_byte_at if connection else None
        line = Outcome(
            id=request.id,
            at_s=request.at_s,
            sent_s=round(sent_s, 6),
            latency_s=round(now_s - sent_s, 6),
            first_byte_s=round(first - self._start - sent_s, 6) if first is not None else None,
            status=answer.status if answer else None,
            outcome=outcome,
            idempotent=request.idempotent,
        )
        self._out.write(json.dumps({name: getattr(line, name) for name in Outcome.__slots__}) + "\n")
        if now_s - self._flushed > FLUSH_S:
            self._flushed = now_s
            self._out.flush()

    def _now(self) -> float:
        return time.monotonic() - self._start


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Prints the summary as JSON."""
    defaults = Bounds()
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Send a schedule of requests on time.")
    parser.add_argument("--target", required=True, metavar="URL", help="http://127.0.0.1:PORT[/PREFIX]")
    parser.add_argument("--schedule", required=True, type=Path, help="JSON lines, by at_s")
    parser.add_argument("--out", required=True, type=Path, help="outcomes, JSON lines")
    parser.add_argument("--allow-network", action="append", default=[], metavar="CIDR", help="a private test network")
    parser.add_argument("--max-requests", type=int, default=defaults.requests)
    parser.add_argument("--max-seconds", type=float, default=defaults.seconds)
    parser.add_argument("--max-in-flight", type=int, default=defaults.in_flight)
    parser.add_argument("--timeout", type=float, default=defaults.timeout_s, help="of one request, seconds")
    options = parser.parse_args(arguments)
    try:
        target = parse_target(options.target, options.allow_network)
    except ValueError as error:
        parser.error(str(error))
    bounds = Bounds(options.max_requests, options.max_seconds, options.max_in_flight, options.timeout)
    with options.schedule.open() as lines, options.out.open("w") as out, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Generator(target, bounds, out).run(read_schedule(lines)))
    print(json.dumps(asdict(summarize(read_outcomes(options.out)[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
