"""The entry point: the table of commands, what holds for all of them, and how a failure is told.

Exit codes: 0 done, 1 an error that was told, 2 wrong usage, 70 a fault of Shoal's own, 130 interrupted. `plan
--detailed-exitcode` has its own 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import click

from shoal import __version__
from shoal.cli.lazy import Entry, LazyGroup
from shoal.cli.options import GLOBAL_OPTIONS, Common, decorate
from shoal.errors import Problem, ShoalError, SpecError

ERROR, FAULT, INTERRUPTED = 1, 70, 130

_WRITE, _RUN, _LOOK, _MORE = "Write the fleet", "Run the fleet", "Look at the fleet", "More"
ENTRIES = {
    "init": Entry("shoal.cli.init:init", "Write a first shoal.yaml into this directory.", _WRITE),
    "validate": Entry("shoal.cli.validate:validate", "Check the file, and tell every error at once.", _WRITE),
    "config": Entry("shoal.cli.config:config", "Show the fleet as Shoal understands it.", _WRITE),
    "render": Entry("shoal.cli.kubernetes.render:render", "Write the fleet as objects of Kubernetes.", _WRITE),
    "schema": Entry("shoal.cli.schema:schema", "Print the JSON Schema of the file.", _WRITE),
    "plan": Entry("shoal.cli.plan:plan", "Show what `up` would change.", _RUN),
    "up": Entry("shoal.cli.up:up", "Start the fleet, or bring it to what the file says.", _RUN),
    "down": Entry("shoal.cli.down:down", "Stop the fleet.", _RUN),
    "restart": Entry("shoal.cli.restart:restart", "Replace an agent's replicas by new ones of the same version.", _RUN),
    "rollout": Entry("shoal.cli.rollout:rollout", "Watch a change, look at those before it, undo it.", _RUN),
    "scale": Entry("shoal.cli.scale:scale", "Pin an agent's count, or release it.", _RUN),
    "run": Entry("shoal.cli.run:run", "Run a job now.", _RUN),
    "secret": Entry("shoal.cli.secret:secret", "Give secrets a value, list them, take them away.", _RUN),
    "status": Entry("shoal.cli.status:status", "Show each agent's state, unhealthy ones first.", _LOOK),
    "logs": Entry("shoal.cli.logs:logs", "Show what the agents write.", _LOOK),
    "exec": Entry("shoal.cli.exec:exec_", "Run a command in a replica.", _LOOK),
    "explain": Entry("shoal.cli.explain:explain", "Say why an agent has the count that it has.", _LOOK),
    "events": Entry("shoal.cli.events:events", "Show what happened.", _LOOK),
    "queue": Entry("shoal.cli.queue:queue", "Look into queues, empty them, redrive dead letters.", _LOOK),
    "doctor": Entry("shoal.cli.doctor:doctor", "Check that this machine can run a fleet.", _MORE),
    "context": Entry("shoal.cli.context:context", "Reach fleets elsewhere, and let a teammate reach them.", _MORE),
    "completion": Entry("shoal.cli.completion:completion", "Print a completion script for a shell.", _MORE),
}


@click.group(
    cls=LazyGroup,
    entries=ENTRIES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="shoal", message="%(prog)s %(version)s")
@decorate(GLOBAL_OPTIONS)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run a mixed fleet of AI agents from one file: services, workers and jobs, each scaled by its own demand.

    The file is shoal.yaml, in this directory or one above it. `shoal init` writes a first one.
    """
    ctx.ensure_object(Common)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    try:
        result = cli.main(args=None if arguments is None else list(arguments), prog_name="shoal", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        _forget_stdout()
        return ERROR
    except ShoalError as error:
        return tell(error)
    except BaseExceptionGroup as group:
        return _tell_group(group)
    except Exception:  # noqa: BLE001 - the last line of defence, told in full
        return _tell_fault()
    return result if isinstance(result, int) else 0


def tell(error: ShoalError) -> int:
    """Show an error that a person can act on. Those of a file start with its name, as editors like it."""
    if isinstance(error, SpecError):
        for problem in error.problems:
            click.echo(_render_problem(problem), err=True)
        from shoal.cli.output import count_of

        click.echo(click.style(count_of(len(error.problems), "error"), fg="red", bold=True), err=True)
        return ERROR
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error or type(error).__name__}", err=True)
    return ERROR


def _render_problem(problem: Problem) -> str:
    where = click.style(f"{problem.place}:", bold=True) + " " if problem.place else ""
    return f"{where}{replace(problem, place=None)}"


def _tell_group(group: BaseExceptionGroup[Any]) -> int:
    """What task groups wrap: the one cause, where there is one that a person can act on."""
    leaves = list(_leaves(group))
    if any(isinstance(leaf, KeyboardInterrupt | click.exceptions.Abort) for leaf in leaves):
        return INTERRUPTED
    known = [leaf for leaf in leaves if isinstance(leaf, ShoalError)]
    if len(known) != len(leaves):
        return _tell_fault()
    return max(tell(error) for error in known)


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(cast("BaseExceptionGroup[Any]", each)) if isinstance(each, BaseExceptionGroup) else [each]
    return found


def _tell_fault() -> int:
    import platform
    import traceback

    traceback.print_exc()
    click.echo(
        f"{click.style('error:', fg='red', bold=True)} this is a fault in Shoal {__version__}, not yours. Please "
        f"report it with the lines above, your command and your system (Python {platform.python_version()}, "
        f"{platform.platform()}). Look through the lines for anything secret before.",
        err=True,
    )
    return FAULT


def _forget_stdout() -> None:
    """Nobody reads: keep the interpreter from saying so once more as it closes."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the process


if __name__ == "__main__":
    sys.exit(main())
