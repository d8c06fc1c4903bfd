"""The values of secrets on their way from the person's environment into the fleet's state, and nowhere else.

A value is that of the variable of the secret's name, else of `.env` beside the file, else what is stored already. It
is in no plan, no log and no stored fleet: the controller reads it from a file that its owner alone may read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import Problem, SpecError

if TYPE_CHECKING:
    from shoal.spec import Loaded

_FOLDER = "secrets"


def collect_secrets(loaded: Loaded, directory: Path, environ: Mapping[str, str], dotenv: Path) -> dict[str, bytes]:
    """The values by name. Raises SpecError naming every secret that has none, where the file asks for it."""
    known = _read_dotenv(dotenv, environ)
    values: dict[str, bytes] = {}
    missing: dict[str, Problem] = {}
    for agent, spec in loaded.fleet.agents.items():
        for index, secret in enumerate(spec.secrets):
            name = secret.name
            stored = directory / _FOLDER / name
            if name in environ:
                values[name] = os.fsencode(environ[name])
            elif name in known:
                values[name] = known[name].encode()
            elif stored.is_file():
                values[name] = stored.read_bytes()
            else:
                place = loaded.origins.of(("agents", agent, "secrets", index)).place
                remedy = f"set the variable {name}, or write it into {dotenv.name} beside the file"
                problem = Problem(place, f"agents.{agent}.secrets", f"the secret {name} has no value", remedy)
                missing.setdefault(name, problem)
    if missing:
        raise SpecError(tuple(missing.values()))
    return values


def changed_secrets(directory: Path, values: Mapping[str, bytes]) -> set[str]:
    """The names of secrets that are stored with another content."""
    folder = directory / _FOLDER
    return {
        name for name, value in values.items() if (folder / name).is_file() and (folder / name).read_bytes() != value
    }


def write_secrets(directory: Path, values: Mapping[str, bytes]) -> None:
    """Stores those that are missing or differ for the controller (0600 in 0700), each replaced as a whole."""
    folder = directory / _FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, value in values.items():
        if (folder / name).is_file() and (folder / name).read_bytes() == value:
            continue
        beside = folder / f".{name}.{os.getpid()}"
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(value)
            file.flush()
            os.fsync(handle)
        beside.replace(folder / name)


def forget_secrets(directory: Path) -> None:
    """After `down` nothing may need them."""
    shutil.rmtree(directory / _FOLDER, ignore_errors=True)


def _read_dotenv(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    from shoal.spec.dotenv import parse_variables

    if not path.is_file():
        return {}
    # What is wrong in it was said when the fleet was loaded.
    return {
        name: scalar.text
        for name, scalar in parse_variables(path.read_text("utf-8-sig"), str(path), environ, []).items()
    }
