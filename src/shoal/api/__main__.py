"""`python -m shoal.api`: the controller as a process of its own, as `shoal up -d` starts it.

SIGTERM and SIGINT end the controller and leave the fleet running; `shoal down` is what ends the fleet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import traceback
from pathlib import Path

from shoal.api.controller import run_controller
from shoal.errors import ShoalError
from shoal.proxy.limits import allow_many_files


def main() -> int:
    parser = argparse.ArgumentParser(prog="shoal.api", description="Runs a fleet's controller.")
    parser.add_argument(
        "--engine", choices=("local", "swarm", "kubernetes"), default="local", help="what runs the fleet"
    )
    parser.add_argument("--directory", type=Path, help="the fleet's state directory, on the engine local")
    parser.add_argument("--fleet", required=True, help="the fleet's name")
    parser.add_argument(
        "--certificate-life",
        type=float,
        default=86400.0,
        metavar="SECONDS",
        help="of the controller, its gateways and node agents, on swarm and kubernetes (default: a day)",
    )
    arguments = parser.parse_args()
    if arguments.engine == "local" and arguments.directory is None:
        parser.error("--directory is missing")
    allow_many_files()  # a thousand agents want more than the usual 1,024
    status = 0
    try:
        asyncio.run(_run(arguments))
    except* ShoalError as errors:
        for error in _flat(errors):
            print(error, file=sys.stderr)
        status = 1
    except* Exception as errors:  # noqa: BLE001 - not foreseen; standard error is the controller's log
        print("the controller ends by an error of its own:", file=sys.stderr)
        traceback.print_exception(errors)
        status = 1
    return status


async def _run(arguments: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        if arguments.engine == "swarm":
            from shoal.api.swarm_controller import run_swarm_controller  # noqa: PLC0415 - what one machine never needs

            await run_swarm_controller(arguments.fleet, certificate_s=arguments.certificate_life)
        elif arguments.engine == "kubernetes":
            from shoal.api.kubernetes_controller import run_kubernetes_controller  # noqa: PLC0415 - likewise

            await run_kubernetes_controller(arguments.fleet, certificate_s=arguments.certificate_life)
        else:
            await run_controller(arguments.directory, arguments.fleet)


def _flat(group: BaseExceptionGroup[ShoalError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
