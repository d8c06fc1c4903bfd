"""From a template to a running process group: the one place where what `render` made is acted on."""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.core.observed import identity_name
from shoal.core.template import Template
from shoal.engines.local.in_memory import make_tmpfs, shared_memory_bytes, write_secrets
from shoal.engines.local.layout import make_private
from shoal.engines.local.logs import LogPair
from shoal.engines.local.machine import Machine
from shoal.engines.local.process import Identity, spawn
from shoal.engines.local.render import (
    MOST_FILES,
    Facts,
    render_argv,
    render_environment,
    render_leader,
)
from shoal.errors import EngineError
from shoal.spec.tmpfs import parse_tmpfs
from shoal.spec.volumes import Volume, parse_volume
from shoal.units import format_memory


@dataclass(frozen=True, slots=True)
class Launch:
    """Who is to be started, where. `number` counts the starts of this life, and names the exit file."""

    id: str
    template: Template
    added: Mapping[str, str]
    number: int
    ordinal: int | None = None
    port: int | None = None
    gpus: tuple[str, ...] = ()
    mark: str = ""

    @property
    def agent(self) -> str:
        return self.template.agent

    @property
    def owned_by(self) -> int | None:
        """The ordinal that has the volumes for itself; `None` where they are shared."""
        return self.ordinal if self.template.stateful else None


def exit_path(machine: Machine, agent: str, identity: str, number: int) -> Path:
    """Where the leader of the start with this number stores how it ended."""
    return machine.layout.life(agent, identity) / f"exit-{number}"


def read_exit(path: Path) -> int | None:
    """The stored exit status; `None` if the leader did not come to that. Asked only once the leader is gone."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def start(machine: Machine, launch: Launch, logs: LogPair) -> Identity:
    """Starts it. Raises EngineError with what is wrong: the command, the directory, a secret, the machine."""
    _check_shared_memory(launch.template)
    facts = _gather(machine, launch)
    environment = render_environment(machine.base, launch.template, launch.added, facts)
    argv = render_argv(launch.template, environment)
    directory = _working_directory(machine, launch.template)
    program = _find_program(launch.template, argv[0], directory, environment["PATH"])
    status = exit_path(machine, launch.agent, launch.id, launch.number)
    leader, plain = render_leader(program, argv, environment, status, directory, most_files=MOST_FILES)
    try:
        return spawn(leader, plain, logs.stdout.path, logs.stderr.path)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in an argument
        raise EngineError(f"agents.{launch.agent}: {argv[0]!r} can't be started: {error}") from error


def _gather(machine: Machine, launch: Launch) -> Facts:
    template, ordinal = launch.template, launch.owned_by
    places = {volume.variable: str(_place(machine, launch, volume)) for volume in map(parse_volume, template.volumes)}
    directory, variables = _hand_over_secrets(machine, launch)
    return Facts(
        replica=launch.id if ordinal is None else identity_name(launch.agent, ordinal),
        ordinal=launch.ordinal,
        port=launch.port,
        gpus=launch.gpus,
        mark=launch.mark,
        secrets_directory=directory,
        secret_variables=variables,
        directories=places | _make_tmpfs(machine, launch),
    )


def _place(machine: Machine, launch: Launch, volume: Volume) -> Path:
    """Where a volume is. Raises EngineError for a path of the host that is not there: one that is spelt wrong would be
    an empty directory."""
    if not volume.bound:
        return make_private(machine.layout.volume(launch.agent, volume.source, launch.owned_by))
    path = machine.project_directory / volume.source
    try:
        found = path.exists()
    except PermissionError as error:
        raise EngineError(f"agents.{launch.agent}.volumes: {path}: {_not_allowed(error.filename)}") from error
    if not found:
        remedy = f"make it: mkdir -p {path}; or correct the path"
        raise EngineError(f"agents.{launch.agent}.volumes: {path} is not there ({remedy})")
    return path


def _make_tmpfs(machine: Machine, launch: Launch) -> dict[str, str]:
    """An empty directory for each, by variable."""
    wanted = [parse_tmpfs(text) for text in launch.template.tmpfs]
    if not wanted:
        return {}
    life = make_private(machine.layout.life(launch.agent, launch.id))
    above = make_tmpfs(life, machine.memory, [each.name for each in wanted])
    return {each.variable: str(above / each.name) for each in wanted}


def _check_shared_memory(template: Template) -> None:
    """A program that finds less than it asked for would be killed in the middle of its work, without a word."""
    there, wanted = shared_memory_bytes(), template.shm_size_bytes
    if there is not None and wanted is not None and there < wanted:
        raise EngineError(
            f"agents.{template.agent}.shm_size: /dev/shm of this machine holds {format_memory(there)}, expected at "
            f"least {format_memory(wanted)} (as root: mount -o remount,size={wanted} /dev/shm; or ask for less)"
        )


def _hand_over_secrets(machine: Machine, launch: Launch) -> tuple[str | None, dict[str, str]]:
    if not launch.template.secrets:
        return None, {}
    contents = {use.name: machine.secrets(use) for use in launch.template.secrets}
    variables = {
        use.name: _as_variable(launch.agent, use.name, contents[use.name])
        for use in launch.template.secrets
        if use.as_env
    }
    life = make_private(machine.layout.life(launch.agent, launch.id))
    return str(write_secrets(life, machine.memory, contents)), variables


def _as_variable(agent: str, name: str, content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise EngineError(f"agents.{agent}.secrets: {name} is no text, so it can't be a variable; leave out `as: env`")
    return text


def _working_directory(machine: Machine, template: Template) -> Path:
    directory = machine.project_directory / (template.working_dir or ".")
    key = f"agents.{template.agent}.working_dir"
    try:
        if not directory.is_dir():
            raise EngineError(f"{key}: {directory} is no directory")
        resolved = directory.resolve()
    except PermissionError as error:
        raise EngineError(f"{key}: {directory} can't be entered: {_not_allowed(error.filename)}") from error
    if not os.access(resolved, os.X_OK):
        raise EngineError(f"{key}: {directory} can't be entered: {_not_allowed(resolved)}")
    return resolved


def _not_allowed(path: object) -> str:
    return f"{getpass.getuser()} has no right to {path} (give it by chmod or chown, or run Shoal as its owner)"


def _find_program(template: Template, word: str, directory: Path, path: str) -> str:
    """The program's absolute path. A word with a slash is relative to the working directory, as for exec(3)."""
    found = shutil.which(str(directory / word)) if "/" in word else shutil.which(word, path=path)
    if found is None:
        key = f"agents.{template.agent}.command"
        there = directory / word if "/" in word else shutil.which(word, os.F_OK, path)
        if there is not None and Path(there).is_file():
            raise EngineError(f"{key}: {there} is there, but {getpass.getuser()} may not execute it (chmod +x {there})")
        where = directory if "/" in word else f"PATH ({path})"
        raise EngineError(f"{key}: {word!r} was not found in {where}; install it, or give its path")
    return found if found.startswith("/") else str(Path(found).absolute())
