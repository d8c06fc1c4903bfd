"""What every command shares: which fleet is meant, and how to answer.

The same options may stand before the command or after it (`shoal -e prod up`, `shoal up -e prod`). They end up in one
`Common`, which also knows how to load the file, find the state and reach the controller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shoal.cli.home import describe_known, reachable_directory
from shoal.errors import NotFound, ShoalError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.api.client import Client
    from shoal.cli.local.place import LocalPlace
    from shoal.cli.place import Place
    from shoal.spec import Loaded
    from shoal.spec.model import Fleet

FILE_NAMES = ("shoal.yaml", "shoal.yml")
OUTPUTS = ("text", "wide", "json", "yaml")

_PLAIN_NAME = re.compile(r"^fleet:[ \t]+([a-z0-9][a-z0-9-]*)[ \t]*(?:#.*)?$", re.MULTILINE)
_ANY_NAME = re.compile(r"^[\"']?fleet[\"']?[ \t]*:", re.MULTILINE)
_ANY_ENGINE = re.compile(r"^[\"']?engine[\"']?[ \t]*:", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Common:
    """The options that all commands share, filled while the command line is read."""

    files: list[str] = field(default_factory=list[str])
    environment: str | None = None
    sets: list[str] = field(default_factory=list[str])
    fleet: str | None = None
    output: str = "text"

    def paths(self) -> list[Path]:
        """The files that make the spec: those given, else the nearest one from here upward."""
        from pathlib import Path

        return [Path(name) for name in self.files] or [find_file(Path.cwd())]

    def project_directory(self) -> Path:
        """Where relative paths of the spec start: beside the first file."""
        return self.paths()[0].absolute().parent

    def load(self) -> Loaded:
        """Read, overlay and validate. Raises SpecError with every problem, ShoalError for a file of another fleet than
        the one that was named."""
        from shoal.spec import load

        loaded = load(self.paths(), environment=self.environment, sets=self.sets, variables=os.environ)
        if self.fleet not in {None, loaded.fleet.fleet}:
            raise ShoalError(
                f"--fleet names {self.fleet}, and {self.paths()[0]} is the file of {loaded.fleet.fleet}; leave --fleet "
                "out, or name another file by -f"
            )
        return loaded

    def name_environments(self) -> str:
        """What to add where nothing was found without -e: in which environments of the file it may be. Empty where that
        can't be."""
        if self.fleet is not None or self.environment is not None:
            return ""
        from shoal.spec.loading import environments_of

        try:
            names = environments_of(self.paths())
        except ShoalError:
            return ""
        return f"; that is without -e, and the file has environments: {', '.join(names)}" if names else ""

    def fleet_name(self) -> str:
        """The name of the fleet, without reading more of the file than it takes."""
        return self.fleet or self._plain_name() or self.load().fleet.fleet

    def place(self) -> Place:
        """Where the fleet is kept and run. Raises NotFound for a fleet named on the command line that never was,
        ShoalError where its place can't be used."""
        if self.fleet is not None and self.environment is None:
            return self._place_named(self.fleet)
        plain = self._plain_name()
        return self._local_place(plain) if plain is not None else self.place_of(self.load().fleet)

    def place_of(self, fleet: Fleet) -> Place:
        """The same of a fleet that was loaded, whether it ever was stored or not."""
        if fleet.engine == "swarm":
            return self._swarm_place(fleet.fleet, fleet.docker_context)
        if fleet.engine == "kubernetes":
            return self._kubernetes_place(fleet.fleet, fleet.context, fleet.namespace)
        return self._local_place(fleet.fleet)

    def _place_named(self, name: str) -> Place:
        from shoal.cli.contexts import load_context

        context = load_context(os.environ, name)
        if context is not None and context.engine == "swarm":
            return self._swarm_place(name, context.docker_context)
        if context is not None and context.engine == "kubernetes":
            return self._kubernetes_place(name, context.context, context.namespace)
        place = self._local_place(name)
        if not place.directory.exists():
            raise NotFound(f"no fleet {name!r}; {describe_known(os.environ)}")
        return place

    def _swarm_place(self, name: str, docker_context: str | None) -> Place:
        from shoal.cli.swarm.installation import SwarmInstaller
        from shoal.cli.swarm.place import SwarmPlace

        return SwarmPlace(name, docker_context, os.environ, SwarmInstaller(os.environ, docker_context))

    def _kubernetes_place(self, name: str, context: str | None, namespace: str | None) -> Place:
        from shoal.cli.kubernetes.place import KubernetesPlace

        return KubernetesPlace(name, context, namespace, os.environ)

    def client(self) -> Client:
        """The controller's API."""
        return self.place().client()

    def _local_place(self, name: str) -> LocalPlace:
        from shoal.cli.local.place import LocalPlace

        return LocalPlace(reachable_directory(os.environ, name), name)

    def _plain_name(self) -> str | None:
        """Validating costs ten times what `shoal status` takes: read a plain `fleet: name` as text where nothing can
        change it, nor the engine, and leave the rest to `load`."""
        if self.environment or self.sets or len(self.files) > 1:
            return None
        try:
            text = self.paths()[0].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        if _ANY_ENGINE.search(text):
            return None
        found = _PLAIN_NAME.findall(text)
        return found[0] if len(found) == 1 and len(_ANY_NAME.findall(text)) == 1 else None


def find_file(start: Path) -> Path:
    """The nearest shoal.yaml from a directory upward, as a path that reads well from there."""
    from pathlib import Path

    for directory in (start, *start.parents):
        for name in FILE_NAMES:
            if (directory / name).is_file():
                return Path(os.path.relpath(directory / name, start))
    raise ShoalError(
        f"no {' or '.join(FILE_NAMES)} in {start} or above it; `shoal init` writes a first one, and -f names another "
        "(what asks a fleet that runs, such as status, logs and down, takes --fleet NAME instead)"
    )


def _extend(attribute: str) -> Callable[[click.Context, click.Parameter, Sequence[str]], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: Sequence[str]) -> None:
        getattr(ctx.ensure_object(Common), attribute).extend(value)

    return callback


def _replace(attribute: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Common), attribute, value)

    return callback


def _check_fleet(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and not _NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not a fleet's name; expected lower case letters, digits and dashes")
    _replace("fleet")(ctx, parameter, value)


def _check_sets(ctx: click.Context, parameter: click.Parameter, value: Sequence[str]) -> None:
    for each in value:
        if "=" not in each:
            raise click.BadParameter(f"{each!r} has no value; expected a key and a value: agents.ingest.port=8000")
    _extend("sets")(ctx, parameter, value)


def _drop_colour(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    # NO_COLOR: set and not empty, as no-color.org has it.
    if value or os.environ.get("NO_COLOR"):
        ctx.color = False


def file_option(*names: str) -> Callable[[Function], Function]:
    """`--file`; commands that need `-f` for --follow leave the short name out."""
    return click.option(
        *(names or ("-f", "--file")),
        multiple=True,
        metavar="FILE",
        expose_value=False,
        callback=_extend("files"),
        type=click.Path(dir_okay=False),
        help="The fleet's file; repeat it to lay one over the other. Default: shoal.yaml, from here upward.",
    )


_ENVIRONMENT = click.option(
    "-e",
    "--environment",
    metavar="ENV",
    expose_value=False,
    callback=_replace("environment"),
    help="One of the file's `environments`.",
)
_SET = click.option(
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    expose_value=False,
    callback=_check_sets,
    help="Set one key on top of the files, such as agents.ingest.scale.max=4.",
)
_FLEET = click.option(
    "--fleet",
    metavar="NAME",
    expose_value=False,
    callback=_check_fleet,
    help="The fleet by its name, instead of by its file.",
)
_COLOUR = click.option(
    "--no-color", is_flag=True, expose_value=False, callback=_drop_colour, help="No colours. So does NO_COLOR."
)

SPEC_OPTIONS = (file_option(), _ENVIRONMENT, _SET, _COLOUR)
FLEET_OPTIONS = (file_option(), _ENVIRONMENT, _SET, _FLEET, _COLOUR)
FOLLOW_FLEET_OPTIONS = (file_option("--file"), _ENVIRONMENT, _SET, _FLEET, _COLOUR)


def output_option(*choices: str) -> Callable[[Function], Function]:
    """`-o`, with the forms that a command has. One given before the command has to be among them too."""
    forms = choices or OUTPUTS

    def choose(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        _replace("output")(ctx, parameter, value)
        common = ctx.ensure_object(Common)
        if common.output not in forms and common.output != "wide":
            raise click.BadParameter(f"{common.output!r} is not one of {', '.join(forms)}", ctx, parameter)
        if common.output not in forms:
            common.output = "text"  # there is nothing more to show

    return click.option(
        "-o",
        "--output",
        type=click.Choice(forms),
        expose_value=False,
        callback=choose,
        help="The form of the answer. Default: text.",
    )


GLOBAL_OPTIONS = (*FLEET_OPTIONS, output_option())


def decorate(options: Sequence[Callable[[Any], Any]]) -> Callable[[Function], Function]:
    """Several options at once, listed by --help in the order given."""

    def apply(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


pass_common = click.make_pass_decorator(Common, ensure=True)
