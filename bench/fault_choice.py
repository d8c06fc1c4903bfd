"""What a campaign of faults is asked for on its command line: which ones, how often, and by which draws."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chosen:
    """`times`: of each; `seed`: of what is drawn."""

    faults: list[str]
    times: int
    seed: int


def choose_faults(prog: str, about: str, faults: Collection[str], times: int, times_help: str) -> Chosen:
    """From the command line; ends the program, and says so, where it names a fault that there is not."""
    parser = argparse.ArgumentParser(prog=prog, description=about.splitlines()[0])
    parser.add_argument("--faults", default=",".join(faults), help="which, by commas")
    parser.add_argument("--times", type=int, default=times, help=times_help)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    names: list[str] = arguments.faults.split(",")
    if unknown := set(names) - set(faults):
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are: {', '.join(faults)}")
    return Chosen(names, arguments.times, arguments.seed)
