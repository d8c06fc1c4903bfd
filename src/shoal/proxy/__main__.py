"""`python -m shoal.proxy`: the gateway process, as engines start it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from shoal.errors import GatewayError
from shoal.proxy.gateway import GatewayOptions, run_gateway
from shoal.proxy.limits import Limits, allow_many_files, machine_limits
from shoal.proxy.uplink import Keys


def main() -> int:
    parser = argparse.ArgumentParser(prog="shoal.proxy", description="Keeps one Envoy for a fleet.")
    parser.add_argument("--state-dir", type=Path, required=True, help="where its files and sockets lie")
    parser.add_argument("--controller", required=True, help="unix:PATH or HOST:PORT of the controller")
    parser.add_argument(
        "--join", metavar="URL", type=_join_url, help="https://HOST:PORT of the controller's API: mutual TLS"
    )
    parser.add_argument("--join-token", metavar="FILE", type=Path, help="the fleet's join token, where --join is given")
    parser.add_argument(
        "--name", default=socket.gethostname(), help="unique among the fleet's gateways (default: this host's)"
    )
    parser.add_argument("--concurrency", type=int, default=min(8, os.cpu_count() or 2), help="Envoy's threads")
    parser.add_argument("--drain", type=float, default=5.0, help="seconds that requests may go on after SIGTERM")
    parser.add_argument("--hold", type=float, default=60.0, help="seconds that a request may wait for a replica")
    parser.add_argument("--ca-file", help="certificate authorities for externals (default: the system's)")
    parser.add_argument("--connections", type=int, help="clients' connections at once (default: by open files)")
    parser.add_argument("--heap-mb", type=int, help="Envoy's memory (default: a quarter of the machine's)")
    arguments = parser.parse_args()
    if (arguments.join is None) != (arguments.join_token is None):
        parser.error("--join and --join-token go together")
    if arguments.join is None and not arguments.controller.startswith("unix:"):
        parser.error("a controller at HOST:PORT takes --join and --join-token")
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
        keys=_join_keys(arguments),
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


def _join_keys(arguments: argparse.Namespace) -> Keys | None:
    if arguments.join is None:
        return None
    from shoal.proxy.line_keys import MemberKeys  # noqa: PLC0415 - 18 MB that a gateway on one machine has no use for

    return MemberKeys(arguments.state_dir, url=arguments.join, name=arguments.name, token_file=arguments.join_token)


def _join_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.port is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected https://HOST:PORT")
    return text


if __name__ == "__main__":
    sys.exit(main())
