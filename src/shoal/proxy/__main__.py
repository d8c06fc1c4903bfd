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


def main() -> int:
    parser = argparse.ArgumentParser(prog="shoal.proxy", description="Keeps one Envoy for a fleet.")
    parser.add_argument("--state-dir", type=Path, required=True, help="where its files and sockets lie")
    parser.add_argument("--controller", required=True, help="unix:PATH or HOST:PORT of the controller")
    parser.add_argument("--name", required=True, help="unique among the fleet's gateways")
    parser.add_argument("--concurrency", type=int, default=min(8, os.cpu_count() or 2), help="Envoy's threads")
    parser.add_argument("--drain", type=float, default=5.0, help="seconds that requests may go on after SIGTERM")
    parser.add_argument("--hold", type=float, default=60.0, help="seconds that a request may wait for a replica")
    parser.add_argument("--ca-file", help="certificate authorities for externals (default: the system's)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = GatewayOptions(
        state_dir=arguments.state_dir,
        controller=arguments.controller,
        name=arguments.name,
        concurrency=arguments.concurrency,
        drain_s=arguments.drain,
        hold_s=arguments.hold,
        ca_file=arguments.ca_file,
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
