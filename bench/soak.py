"""`make soak`: every campaign of faults with its full numbers, one after the other, and one page of what came of them.

    python -m bench.soak [--quick] [NAME...]

Each campaign is a program of its own that exits with 1 where something happened that must not. The page is
docs/soak.md; campaigns that were not run this time keep what they said the last time, with its date.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import machine
from bench.live_fleet import HERE

PAGE = HERE.parent / "docs" / "soak.md"


@dataclass(frozen=True, slots=True)
class Campaign:
    """`full` and `quick` are the arguments after `python -m`."""

    about: str
    full: tuple[str, ...]
    quick: tuple[str, ...]


CAMPAIGNS = {
    "simulation": Campaign(
        "The control loop on virtual time: crashes, lost observations, failing actions, clock jumps, changes",
        ("tests.simulation", "--seeds", "10000"),
        ("tests.simulation", "--seeds", "200"),
    ),
    "kills": Campaign(
        "SIGKILL for a replica, Envoy, the gateway process, the controller, and all of them, under load",
        ("bench.kills", "--times", "100"),
        ("bench.kills", "--times", "3"),
    ),
    "rolling": Campaign(
        "Rolling replacements and undos under load, with open streams",
        ("bench.rolling", "--changes", "50"),
        ("bench.rolling", "--changes", "2"),
    ),
    "queues": Campaign(
        "Broker and workers killed while tasks are published and worked on",
        ("bench.queue_faults", "--tasks", "1000000", "--kills", "100"),
        ("bench.queue_faults", "--tasks", "5000", "--kills", "5"),
    ),
    "kubernetes": Campaign(
        "On Kubernetes: replicas and controllers killed, one frozen, the Lease stolen, control plane and node away, "
        "under load",
        ("bench.kubernetes_faults", "--times", "20"),
        ("bench.kubernetes_faults", "--times", "1"),
    ),
    "specs": Campaign(
        "Mutated specs: each refused with its place, or read",
        ("bench.soak_specs", "100000"),
        ("bench.soak_specs", "1000"),
    ),
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Runs the campaigns of faults.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CAMPAIGNS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="small numbers, and the page stays as it is")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in CAMPAIGNS]:
        parser.error(f"no campaign {', '.join(unknown)}; there are: {', '.join(CAMPAIGNS)}")
    held = True
    for name in arguments.names or CAMPAIGNS:
        campaign = CAMPAIGNS[name]
        section, passed = _carry_out(name, campaign, campaign.quick if arguments.quick else campaign.full)
        held = held and passed
        print(section, flush=True)
        if not arguments.quick:
            PAGE.write_text(with_section(PAGE.read_text() if PAGE.exists() else "", name, section))
    return 0 if held else 1


def _carry_out(name: str, campaign: Campaign, command: Sequence[str]) -> tuple[str, bool]:
    print(f"{name}: python -m {' '.join(command)} ...", file=sys.stderr, flush=True)
    load, began = machine.load(), time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False
    )
    took_s = time.monotonic() - began
    passed = ran.returncode == 0
    verdict = "Held." if passed else f"**Did not hold** (exit status {ran.returncode})."
    date = time.strftime("%Y-%m-%d", time.gmtime())
    where = f"{date}, {took_s / 60:.0f} minutes on {machine.describe()['cores']} cores, load {load:.1f} before it"
    return f"## {name}\n\n{campaign.about}. {verdict}\n\n{shown(command, ran.stdout)}\n\n{where}.\n", passed


def shown(command: Sequence[str], output: str) -> str:
    """The command, and its output: a table as it is, other lines as code."""
    lines = output.strip().splitlines()
    code = [f"$ python -m {' '.join(command)}", *(line for line in lines if not line.startswith("|"))]
    table = [line for line in lines if line.startswith("|")]
    text = "\n".join(f"    {line}" for line in code)
    return "\n".join([text, *(["", *table] if table else [])])


def with_section(page: str, name: str, section: str) -> str:
    """The page with this campaign's section in the place that the order of campaigns gives it."""
    head, *parts = re.split(r"(?m)^(?=## )", page or HEAD)
    sections = {part.split("\n", 1)[0].removeprefix("## "): part.rstrip() + "\n" for part in parts}
    sections[name] = section
    ordered = [sections[each] for each in CAMPAIGNS if each in sections]
    return "\n".join([head.rstrip() + "\n", *ordered])


HEAD = """# What was thrown at it

Written by `make soak`, which takes hours. `make test` runs the same programs with small numbers.
"""


if __name__ == "__main__":
    sys.exit(main())
