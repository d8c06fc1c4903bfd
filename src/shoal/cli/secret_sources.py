"""Reads what secrets hold from where the file says: a file, a variable, the output of a command.

A file is taken byte by byte, its last newline included, as Docker and Compose take it. Of a command's output the last
newline is taken off, as that ends the line and is no part of what it says. Nothing here ever shows a content.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.units import format_duration

if TYPE_CHECKING:
    from shoal.spec import Loaded
    from shoal.spec.model import SecretSource

COMMAND_TIMEOUT_S = 60.0
LARGEST_BYTES = 500 * 1024  # Docker's; Kubernetes takes 1 MiB of all that a Secret holds
LARGEST_VARIABLE_BYTES = 128 * 1024 - 1  # what Linux takes, with the name, the = and the NUL at the end


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why there is no content, and what to do."""

    why: str
    remedy: str = ""


class Sources:
    """What the sources of one file hold. Each is read once, at the first question for it."""

    def __init__(self, loaded: Loaded, project: Path, environ: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._project = project
        self._environ = environ
        self._dotenv = _read_dotenv(project / ".env", environ)
        self._read: dict[str, bytes | Unusable | None] = {}

    def read(self, name: str) -> bytes | Unusable | None:
        """The content; `None` where a secret without an entry under `secrets` has no variable of its name."""
        if name not in self._read:
            source = self._loaded.fleet.secrets.get(name)
            self._read[name] = self._variable(name) if source is None else self._of(name, source)
        return self._read[name]

    def _of(self, name: str, source: SecretSource) -> bytes | Unusable:
        if source.file is not None:
            return _read_file(self._beside(name, source.file))
        if source.command is not None:
            return _run(source.command, self._project)
        assert source.environment is not None
        found = self._variable(source.environment)
        if found is not None:
            return found
        return Unusable(f"the variable {source.environment} is not set", "set it, or write it into .env beside it")

    def _variable(self, variable: str) -> bytes | None:
        if variable in self._environ:
            return os.fsencode(self._environ[variable])
        found = self._dotenv.get(variable)
        return None if found is None else found.encode()

    def _beside(self, name: str, file: str) -> Path:
        """From the file that names it; from the project for what `--set` says."""
        place = self._loaded.origins.of(("secrets", name, "file")).place
        beside = self._project if place is None or place.file.startswith("--set ") else Path(place.file).parent
        return beside / Path(file).expanduser()


def refuse_content(content: bytes, *, as_variable: bool) -> Unusable | None:
    """Why this can be no secret's content; `None` if it can. `as_variable`: an agent has it by `as: env` too."""
    if not content:
        return Unusable("it is empty", "an empty secret is hardly meant; Docker takes none either")
    if len(content) > LARGEST_BYTES:
        return Unusable(
            f"it has {len(content):,} bytes; expected at most {LARGEST_BYTES:,}",
            "what is larger is data: give it to the agent as a file or a volume",
        )
    if not as_variable:
        return None
    if len(content) > LARGEST_VARIABLE_BYTES - 66:  # the longest name and the =
        return Unusable(f"with {len(content):,} bytes it is too large for a variable", "leave out `as: env`")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return Unusable("it is not UTF-8, so it can't be a variable", "leave out `as: env`")
    return Unusable("it has a NUL in it, so it can't be a variable", "leave out `as: env`") if "\0" in text else None


def read_limited(path: Path) -> bytes:
    """The file, one byte more than may be at most. Raises OSError."""
    with path.open("rb") as file:
        return file.read(LARGEST_BYTES + 1)


def _read_file(path: Path) -> bytes | Unusable:
    try:
        return read_limited(path)
    except OSError as error:
        return Unusable(f"{path} can't be read: {(error.strerror or str(error)).lower()}")


def _run(argv: tuple[str, ...], directory: Path) -> bytes | Unusable:
    """Its standard error goes where ours does: what it asks and complains about is for the person."""
    shown, deadline = argv[0], time.monotonic() + COMMAND_TIMEOUT_S
    try:
        with subprocess.Popen(argv, cwd=directory, stdout=subprocess.PIPE) as program:
            try:
                said = _read_output(program, deadline)
                if len(said) > LARGEST_BYTES + 1:  # it may go on for ever, and is refused as it is
                    return said
                exit_code = program.wait(max(0.0, deadline - time.monotonic()))
            finally:
                program.kill()
    except subprocess.TimeoutExpired:
        return Unusable(
            f"its command {shown} did not end within {format_duration(COMMAND_TIMEOUT_S)}, and was killed",
            "run it by itself to see what it waits for",
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Unusable(f"its command {shown} can't be started: {str(reason).lower()}")
    if exit_code:
        how = f"exit code {exit_code}" if exit_code > 0 else f"killed by signal {-exit_code}"
        return Unusable(f"its command {shown} failed ({how}); what it says to that stands above")
    return said.removesuffix(b"\n").removesuffix(b"\r")


def _read_output(program: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What it writes, up to a little more than a secret may have. Raises TimeoutExpired."""
    assert program.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(program.stdout, selectors.EVENT_READ)
        while len(said) <= LARGEST_BYTES + 1:
            if not waiting.select(max(0.0, deadline - time.monotonic())):
                raise subprocess.TimeoutExpired(program.args, COMMAND_TIMEOUT_S)
            piece = os.read(program.stdout.fileno(), 65536)
            if not piece:
                break
            said += piece
    return bytes(said)


def _read_dotenv(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    from shoal.spec.dotenv import parse_variables

    if not path.is_file():
        return {}
    # What is wrong in it was said when the fleet was loaded.
    return {
        name: scalar.text
        for name, scalar in parse_variables(path.read_text("utf-8-sig"), str(path), environ, []).items()
    }
