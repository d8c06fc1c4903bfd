"""What a replica is started with, as values: nothing here looks at the machine.

The environment of a replica, later rows win:

    the machine's   PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_*, TZ, TMPDIR, VIRTUAL_ENV, SSL_CERT_FILE,
                    SSL_CERT_DIR, LD_LIBRARY_PATH: what a program needs to run at all. Nothing else of the shell that
                    `shoal up` was called from gets in, as nothing of it gets into a container either; in particular
                    no PYTHONPATH and no credentials. What an agent needs is named in the file.
    Python's        PYTHONUNBUFFERED=1: a log that comes a block late is of no use.
    the agent's     `environment`
    secrets         those with `as: env`
    Shoal's         PORT, SHOAL_*, CUDA_VISIBLE_DEVICES (empty without `resources.gpu`, unless the agent sets it), and
                    CUDA_DEVICE_ORDER, unless the agent sets it

Where no virtual environment is active, the project's own `.venv` comes first in PATH.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shoal.core.template import Template
from shoal.engines.local.census import MARK
from shoal.errors import EngineError

HOST = "127.0.0.1"
LEADER_NAME = "shoal-leader"
MOST_FILES = 65536
_KEPT = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
)  # fmt: skip
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_RUN_TIME_VARIABLE = re.compile(r"\$(?:\{(PORT|SHOAL_[A-Z0-9_]+)\}|(PORT|SHOAL_[A-Z0-9_]+)\b)")
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# It starts the command in the replica's process group, and stays to store how it ended. What is sent to the group is
# meant for the command, so the leader lets it pass. A shell, as it starts in 2 ms where Python takes 36 and needs
# 1.7 MB; it gets the command as its arguments and never reads them as a program. $1: where the exit status goes,
# written once and read only when the leader is gone, and its own besides, for a disk that is full; $2: the working
# directory.
LEADER_SCRIPT = """\
trap : HUP INT QUIT TERM USR1 USR2
f=$1; cd "$2" || { echo 126 >"$f"; exit; }
unset OLDPWD; shift 2
exec 3>&2 2>/dev/null
(exec "$@" 2>&3 3>&-)
s=$?
echo $s >"$f"
exit $s
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a replica only when it starts. Paths are absolute; `directories` is by variable: volumes and
    what is in memory."""

    replica: str
    ordinal: int | None = None
    port: int | None = None
    gpus: tuple[str, ...] = ()
    secrets_directory: str | None = None
    secret_variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    directories: Mapping[str, str] = field(default_factory=dict[str, str])
    mark: str = ""


def render_base(environment: Mapping[str, str], project_venv: Path | None) -> dict[str, str]:
    """What every replica gets of the environment that Shoal runs in. `project_venv`: the project's `.venv`, if any."""
    base = {name: value for name, value in environment.items() if name in _KEPT or name.startswith("LC_")}
    path = base.get("PATH") or _DEFAULT_PATH
    if "VIRTUAL_ENV" not in base and project_venv is not None:
        base["VIRTUAL_ENV"] = str(project_venv)
        path = f"{project_venv / 'bin'}:{path}"
    return base | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def render_environment(
    base: Mapping[str, str], template: Template, added: Mapping[str, str], facts: Facts
) -> dict[str, str]:
    """The whole environment of one replica; `added` is what the revision's `EnsureRevision` brought."""
    environment = {**base}
    if not facts.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    else:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # in which NVML counts them
    environment |= template.environment
    environment |= facts.secret_variables
    environment |= added
    environment["SHOAL_REPLICA"] = facts.replica
    if facts.mark:
        environment[MARK] = facts.mark
    if facts.port is not None:
        environment["PORT"] = str(facts.port)
    if facts.ordinal is not None:
        environment["SHOAL_ORDINAL"] = str(facts.ordinal)
    if facts.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(facts.gpus)
    if facts.secrets_directory is not None:
        environment["SHOAL_SECRETS"] = facts.secrets_directory
    return {**environment, **facts.directories}


def render_argv(template: Template, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The command with `$PORT`, `${PORT}` and `$SHOAL_*` put in; every other `$` stays as it is.

    Raises EngineError for a variable that this replica does not have, and without a command.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in environment:
            raise EngineError(f"agents.{template.agent}.command: ${name} is not set for this agent")
        return environment[name]

    return tuple(_RUN_TIME_VARIABLE.sub(value, word) for word in check_command(template))


def check_command(template: Template) -> tuple[str, ...]:
    """The command as it is written. Raises EngineError if there is none."""
    if not template.command:
        raise EngineError(
            f"agents.{template.agent}.command: missing; on this machine an agent is started by its command, not from "
            "an image (give a command, or choose another engine)"
        )
    return template.command


def render_leader(
    program: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    exit_path: Path,
    directory: Path,
    *,
    most_files: int | None = None,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The leader's own argv and environment, for a command whose first word was found at `program`. `most_files`: how
    many descriptors each process may have, where the machine does not allow fewer anyway.

    Shells drop variables whose name is none of theirs (`a.b`), so those are handed on by env(1).
    """
    plain = {name: value for name, value in environment.items() if _SHELL_NAME.fullmatch(name)}
    odd = [f"{name}={value}" for name, value in environment.items() if name not in plain]
    through_env = ("/usr/bin/env", *odd) if odd else ()
    limit = f"ulimit -n {most_files} 2>/dev/null\n" if most_files is not None else ""
    leader = ("/bin/sh", "-c", f"{limit}{LEADER_SCRIPT}", LEADER_NAME, str(exit_path), str(directory))
    return (*leader, *through_env, program, *argv[1:]), plain


def led_argv(leader: Sequence[str]) -> tuple[str, ...]:
    """The command that a leader with this argv was given, its program first."""
    return tuple(leader[leader.index(LEADER_NAME) + 3 :]) if LEADER_NAME in leader else ()


def unmet_placement(template: Template, labels: Mapping[str, str]) -> str | None:
    """Which required label this machine lacks, as a reason; `None` if it has all."""
    for name, value in template.placement.require.items():
        if labels.get(name) != value:
            has = f"has {name}={labels[name]}" if name in labels else f"has no label {name}"
            return f"placement.require wants {name}={value}, this machine {has} (see local.labels)"
    return None


def exit_reason(exit_code: int | None) -> str:
    """How it ended, in words. Codes above 128 are 128 + signal, as everywhere where containers run."""
    if exit_code is None:
        return "ended, nobody knows how: its leader was killed or the machine restarted"
    if exit_code > 128:
        try:
            return f"killed by {signal.Signals(exit_code - 128).name} (exit code {exit_code})"
        except ValueError:
            pass
    return f"exit code {exit_code}"


def start_failure(error: Exception, directory: Path) -> str:
    """Why it could not even be started. `directory`: where its state is kept."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"not started: no space left on the disk of {error.filename or directory} (free some; it is tried again)"
    where = f" ({error.filename})" if error.filename else ""
    return f"not started: {(error.strerror or str(error)).lower()}{where}"


def wrong_port_reason(port: int, found: Sequence[int]) -> str:
    """For a replica that listens, but not where it was told to."""
    shown = ", ".join(str(other) for other in found)
    return f"listens on {shown}, expected {port}: put $PORT into its command, or read PORT"
