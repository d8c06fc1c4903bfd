"""Programs that the bed runs, bounded in time, and the one error that it raises."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class BedError(Exception):
    """What went wrong, and what to do: fit to be shown to a person as it stands."""


def run(
    command: Sequence[str | Path],
    *,
    timeout_s: float = 60.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What the program wrote to its standard output.

    Raises BedError with what it said where it failed, is missing or took longer.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, check=True, text=True, capture_output=True, timeout=timeout_s, cwd=cwd, env=env)
    except FileNotFoundError:
        raise BedError(f"{words[0]}: no such program ({apt_line(words[0])})") from None
    except subprocess.TimeoutExpired:
        raise BedError(f"{' '.join(words)}: not done after {timeout_s:g} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()
        raise BedError(f"{' '.join(words)}: exit code {error.returncode}: {said[-2000:]}") from None
    return done.stdout


_DAEMON = 'echo $$ > "$PID_FILE"; for list in $GROUP_LISTS; do echo $$ > "$list"; done; exec "$@"'
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def launch(
    command: Sequence[str | Path], pid_file: Path, log: Path, *, groups: Sequence[Path] = (), **variables: str
) -> None:
    """Starts what outlives this process, in a session of its own and in these control groups; waits for its pid alone.

    It has `variables` and hardly any others.
    """
    pid_file.unlink(missing_ok=True)
    own = {"PATH": _PATH, "HOME": "/root", "PID_FILE": str(pid_file)}
    own["GROUP_LISTS"] = " ".join(f"{group}/cgroup.procs" for group in groups)
    with log.open("a") as output:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", _DAEMON, "daemon", *(str(word) for word in command)],
            check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=own | variables, cwd="/",
        )  # fmt: skip
    until(lambda: pid_file.exists() and pid_file.read_text(), f"{command[0]} to start, see {log}", timeout_s=20)


# The programs that the bed itself runs, by the package that has them.
PACKAGE_OF = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "tar": "tar",
}


def apt_line(*programs: str) -> str:
    """How to get them."""
    packages = sorted({PACKAGE_OF.get(program, program) for program in programs})
    return f"apt-get install {' '.join(packages)}"


def need_programs() -> None:
    """Raises BedError, which names what to install, where a program of the host is missing."""
    missing = [program for program in PACKAGE_OF if shutil.which(program) is None]
    if missing:
        raise BedError(f"missing: {', '.join(missing)}; install with: {apt_line(*missing)}")


def on_each(items: Sequence[T], act: Callable[[T], object]) -> None:
    """Acts on all of them at once, and waits for all. Raises what the first of them raised."""
    if items:
        with ThreadPoolExecutor(max_workers=len(items)) as threads:
            list(threads.map(act, items))


def until(ask: Callable[[], T | None], what: str, *, timeout_s: float, errors: tuple[type[Exception], ...] = ()) -> T:
    """The first answer that holds; `errors` count as none. Raises BedError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    last: Exception | None = None
    while True:
        try:
            if answer := ask():
                return answer
        except errors as error:
            last = error
        if time.monotonic() > end:
            raise BedError(f"waited {timeout_s:g} s for {what}" + (f"; last: {last}" if last else ""))
        time.sleep(0.02)


def start_of(pid: int) -> str | None:
    """When it started, in the kernel's ticks, so that a pid used again is known; None for what has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
