"""`python -m shoal.proxy`: the gateway process, as engines start it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from shoal.errors import GatewayError
from shoal.proxy.gateway import GatewayOptions, run_gateway
from shoal.proxy.limits import Limits, allow_many_files, machine_limits


def main() -> int:
    parser = argparse.ArgumentParser(prog="shoal.proxy", description="Keeps one Envoy for a fleet.")
    parser.add_argument("--state-dir", type=Path, required=True, help="where its files and sockets lie")
    parser.add_argument("--controller", required=True, help="unix:PATH or HOST:PORT of the controller")
    parser.add_argument("--name", required=True, help="unique among the fleet's gateways")
    parser.add_argument("--concurrency", type=int, default=min(8, os.cpu_count() or 2), help="Envoy's threads")
    parser.add_argument("--drain", type=float, default=5.0, help="seconds that requests may go on after SIGTERM")
    parser.add_argument("--hold", type=float, default=60.0, help="seconds that a request may wait for a replica")
    parser.add_argument("--ca-file", help="certificate authorities for externals (default: the system's)")
    parser.add_argument("--connections", type=int, help="clients' connections at once (default: by open files)")
    parser.add_argument("--heap-mb", type=int, help="Envoy's memory (default: a quarter of the machine's)")
    arguments = parser.parse_args()
    os.umask(0o077)  # of what this process and its Envoy make, nothing is for others
    allow_many_files()
    limits = machine_limits()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = GatewayOptions(
        state_dir=arguments.state_dir,
        controller=arguments.controller,
        name=arguments.name,
        concurrency=arguments.concurrency,
        drain_s=arguments.drain,
        hold_s=arguments.hold,
        ca_file=arguments.ca_file,
        limits=Limits(
            connections=arguments.connections or limits.connections,
            heap_bytes=arguments.heap_mb << 20 if arguments.heap_mb else limits.heap_bytes,
        ),
    )
    status = 0
    try:
        asyncio.run(run_gateway(options))
    except* GatewayError as errors:
        print(*errors.exceptions, sep="\n", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
