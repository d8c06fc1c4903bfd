"""`shoal exec`: a command where a replica runs, with its files, environment and rights."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, pass_common
from shoal.errors import NotFound, ShoalError, no_such_agent

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import AgentView, StatusView
    from shoal.engines.protocol import Command

_PIECE_BYTES = 64 * 1024


def _command_after_dashes(ctx: click.Context, parameter: click.Parameter, command: tuple[str, ...]) -> tuple[str, ...]:
    """Without the `--` that ends Shoal's options; click takes it away only where it stands before AGENT."""
    if command[:1] != ("--",):
        return command
    if len(command) == 1:
        raise click.MissingParameter(ctx=ctx, param=parameter)
    return command[1:]


@click.command(
    "exec",
    short_help="Run a command in a replica.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("target", metavar="AGENT", shell_complete=complete_agents)
@click.argument(
    "command",
    metavar="[--] COMMAND...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    callback=_command_after_dashes,
)
@click.option(
    "-i",
    "-t",
    "_automatic",
    is_flag=True,
    expose_value=False,
    help="As without: it gets input, and a terminal on one.",
)
@click.option("-T", "--no-tty", is_flag=True, help="No terminal for it, though this is one.")
@decorate(FLEET_OPTIONS)
@pass_common
def exec_(common: Common, target: str, command: tuple[str, ...], no_tty: bool) -> int:
    """Run a command where a replica runs: with its files, its environment and its rights.

    AGENT is an agent, and then one of its replicas that are ready is taken, or the id of a replica or of a job's run
    as `shoal status AGENT` shows it. Options for Shoal stand before AGENT; a `--` after it is no part of the command.
    It ends with the command's own exit code.

    Ended before the command, it hangs up on it; on Docker Swarm a command without a terminal then goes on.
    """
    tty = not no_tty and sys.stdin.isatty() and sys.stdout.isatty()
    return asyncio.run(_run(common.client(), target, command, tty))


async def _run(client: Client, target: str, argv: tuple[str, ...], tty: bool) -> int:
    replica = find_replica(await client.status(), target)
    async with client.exec(replica, argv, tty=tty) as command, asyncio.TaskGroup() as tasks:
        giving = tasks.create_task(_give_input(command))
        failure: Exception | None = None
        with _terminal(command, tasks) if tty else contextlib.nullcontext():
            try:
                async with aclosing(command.output()) as output:
                    async for stream, piece in output:  # who reads them may be slow, and the connection is kept up
                        to = sys.stderr if stream == "stderr" else sys.stdout
                        await asyncio.to_thread(_write, to.fileno(), piece)
            except (ShoalError, BrokenPipeError) as error:  # a group would wrap it
                failure = error
        giving.cancel()
        code = await command.exit_code()
    if failure is not None:
        raise failure
    if code is None:
        raise ShoalError(f"{argv[0]} goes on in {replica}; it only closed its outputs")
    return code


def find_replica(status: StatusView, target: str) -> str:
    """The replica or run that is meant. Raises NotFound."""
    for agent in status.agents:
        if agent.name == target:
            return _choose(agent)
        ids = [*(replica.id for replica in agent.replicas), *(run.run_id for run in agent.runs)]
        if target in ids:
            return target
    known = [agent.name for agent in status.agents]
    raise no_such_agent(target, known)


def _choose(agent: AgentView) -> str:
    running = [replica for replica in agent.replicas if replica.phase == "running"]
    ready = [replica for replica in running if replica.ready]
    runs = [run.run_id for run in agent.runs if run.phase == "running"]
    found = [replica.id for replica in ready or running] or runs
    if not found:
        what = "run of it goes on" if agent.kind == "job" else "replica of it runs"
        remedy = "shoal run" if agent.kind == "job" else "shoal scale"
        count = "" if agent.kind == "job" else " 1 --for 10m"
        raise NotFound(f"{agent.name}: no {what} now ({agent.state}); `{remedy} {agent.name}{count}` starts one")
    return found[0]


async def _give_input(command: Command) -> None:
    """What this process is given, by a thread of its own: stdin may be a file, which no event loop waits for."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    taken = threading.Semaphore(4)  # pieces that the command has not read yet

    def read() -> None:
        while True:
            taken.acquire()
            try:
                piece = os.read(sys.stdin.fileno(), _PIECE_BYTES)
            except (OSError, ValueError):
                piece = b""
            with contextlib.suppress(RuntimeError):  # the command has ended, and the loop with it
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            if not piece:
                return

    threading.Thread(target=read, daemon=True).start()
    while piece := await pieces.get():
        await command.write(piece)
        taken.release()
    await command.end_input()


@contextlib.contextmanager
def _terminal(command: Command, tasks: asyncio.TaskGroup) -> Generator[None]:
    """This terminal as the command's: each key goes there as it is, and so does its size."""
    import termios
    import tty

    loop = asyncio.get_running_loop()

    def resize() -> None:
        size = shutil.get_terminal_size()
        tasks.create_task(command.resize(size.lines, size.columns))

    before = termios.tcgetattr(sys.stdin.fileno())
    ended = asyncio.current_task()
    assert ended is not None
    tty.setraw(sys.stdin.fileno(), termios.TCSADRAIN)  # what was typed ahead stays
    loop.add_signal_handler(signal.SIGWINCH, resize)
    loop.add_signal_handler(signal.SIGTERM, ended.cancel)  # else the terminal stays as it is
    resize()
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        loop.remove_signal_handler(signal.SIGTERM)
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


def _write(descriptor: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]
