"""`python -m tests.simulation --seeds 1000`: carries out that many seeds, on every core, and prints what came of it.

python -m tests.simulation --seed 4711 --trace      one seed, and all that happens in it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice

from tests.simulation.world import Result, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default: 1)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a core")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: all that happens in it")
    parser.add_argument("--stop-after", type=int, default=20, help="failing seeds after which it ends (default: 20)")
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.seed is not None:
        results = [simulate(arguments.seed)]
        if arguments.trace:
            print("\n".join(results[0].lines))
    else:
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        results = list(until_failures(_carry_out(seeds, arguments.processes), arguments.stop_after))
    print(table(results, time.monotonic() - began))
    return 1 if any(result.violations for result in results) else 0


def _carry_out(seeds: range, processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from map(_short, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        waiting = iter(seeds)
        step = processes * 16
        while batch := list(islice(waiting, step)):  # so that an end does not wait for all of them
            yield from pool.map(partial(_short), batch, chunksize=4)


def _short(seed: int) -> Result:
    """Without its trace, which is long, and made again by its command."""
    try:
        result = simulate(seed)
    except Exception as error:  # noqa: BLE001 - a seed that breaks the simulation itself fails too, by its number
        return Result(seed, "", 0, 0.0, {}, (f"the simulation broke: {error!r}",))
    return Result(seed, result.trace, result.steps, result.virtual_s, result.drawn, result.violations)


def until_failures(results: Iterator[Result], most: int) -> Iterator[Result]:
    """All results, or until so many seeds have failed. Tells each as it comes."""
    failed = 0
    for result in results:
        yield result
        if result.violations:
            failed += 1
            print(failing(result), file=sys.stderr, flush=True)
            if failed >= most:
                return


def failing(result: Result) -> str:
    """What a seed broke, and the command that does it again."""
    broken = "\n".join(f"    {violation}" for violation in result.violations[:5])
    more = f"\n    and {len(result.violations) - 5} more" if len(result.violations) > 5 else ""
    return f"seed {result.seed}:\n{broken}{more}\n    again: python -m tests.simulation --seed {result.seed} --trace"


def table(results: list[Result], wall_s: float) -> str:
    """The figures of all."""
    drawn = Counter[str]()
    for result in results:
        drawn.update(result.drawn)
    failed = [result for result in results if result.violations]
    rows = [
        ("seeds", f"{len(results):,}"),
        ("seeds that fail", f"{len(failed):,}"),
        ("violations", f"{sum(len(result.violations) for result in results):,}"),
        ("steps checked", f"{sum(result.steps for result in results):,}"),
        ("virtual hours", f"{sum(result.virtual_s for result in results) / 3600:,.1f}"),
        ("wall time", f"{wall_s:,.1f} s"),
        *((f"drawn: {kind.replace('_', ' ')}", f"{count:,}") for kind, count in sorted(drawn.items())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value:>10}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
