"""`python -m bench [NAME...]`: measures, prints one table, and writes bench/out/NAME.json.

Each bench starts and ends what it needs, and has so many seconds at most.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench import machine
from bench.row import Row
from bench.table import render_table, write_json

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, slots=True)
class Bench:
    """`module` has `run(quick: bool) -> list[Row]`."""

    module: str
    about: str
    limit_s: int
    needs_cluster: bool = False


BENCHES = {
    "gateway": Bench("bench.gateway", "requests a second through the gateway, against a plain Envoy", 300),
    "spike": Bench("bench.spike", "from a spike of load to the first new replica that serves", 900),
    "wake": Bench("bench.wake", "the first request of an agent that is at zero", 300),
    "pass": Bench("bench.control_pass", "one pass of the control loop over 1,000 agents", 600),
    "cli": Bench("bench.command_line", "the command line's start, and the check of a large file", 300),
    "queue": Bench("bench.queue_rate", "the embedded broker: confirmed publishes and tasks a second", 300),
    "swarm": Bench("bench.swarm_scaling", "on a Swarm: a step of load, and 3 replicas to 10", 900, needs_cluster=True),
    "kubernetes-step": Bench(
        "bench.kubernetes_step", "on Kubernetes: a step of load, against an HPA", 1800, needs_cluster=True
    ),
    "kubernetes-many": Bench(
        "bench.kubernetes_many", "on Kubernetes: 1,000 agents applied, against kubectl", 1800, needs_cluster=True
    ),
    "kubernetes-controller": Bench(
        "bench.kubernetes_controller", "on Kubernetes: what 3,000 pods cost the controller", 1800, needs_cluster=True
    ),
}


class OutOfTime(BaseException):
    """A bench took longer than it may. No `except Exception` of what is measured stops it."""


def main() -> int:
    names = "\n".join(f"  {name:21} {bench.about}" for name, bench in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"Measures Shoal on this machine.\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all that need no cluster without one")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, for a first look")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in BENCHES]:
        parser.error(f"no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with it ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    here = [name for name, bench in BENCHES.items() if not bench.needs_cluster]
    return _run_all(arguments.names or here, quick=arguments.quick)


def _run_all(names: list[str], *, quick: bool) -> int:
    shown: list[tuple[Row, float]] = []
    status = 0
    try:
        for name in names:
            described = machine.describe()
            print(f"{name}: {BENCHES[name].about} ...", file=sys.stderr, flush=True)
            try:
                rows = _run_one(BENCHES[name], quick=quick)
            except (Exception, OutOfTime) as error:  # noqa: BLE001 - the other benches are worth having
                print(f"{name} failed: {_in_words(error)}", file=sys.stderr, flush=True)
                status = 1
                continue
            write_json(OUT / f"{name}.json", rows, {**described, "quick": quick})
            shown += [(row, described["load"]) for row in rows]
    except KeyboardInterrupt:
        status = 130
    described = machine.describe()
    tools = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    print(f"{render_table(shown)}\n\n{described['cores']} cores; {tools}{'; quick run' if quick else ''}")
    return status


def _in_words(error: BaseException) -> str:
    """Of what several tasks at once failed with, each."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_in_words(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


def _run_one(bench: Bench, *, quick: bool) -> list[Row]:
    module = importlib.import_module(bench.module)
    with _limit(bench.limit_s):
        return module.run(quick)


@contextlib.contextmanager
def _limit(seconds: int) -> Generator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
