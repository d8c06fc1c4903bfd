"""Takes the picture of the README: the table that `make demo` draws, as a terminal of this size shows it in the spike.

    .venv/bin/python tools/record_demo.py           # docs/images/demo.svg

The demo runs on a terminal of its own; what it draws is cut into its frames, and one is kept: after the replica was
killed, the one with the most replicas ready.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
from rich.console import Console
from rich.text import Text

REPOSITORY = Path(__file__).parents[1]
PICTURE = REPOSITORY / "docs" / "images" / "demo.svg"
ROWS, COLUMNS = 40, 140
TIMEOUT_S = 300

# rich draws over its last frame after going back to that one's first line, clearing each
_BACK = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)+")
_CONTROL = re.compile(r"\x1b\[\?25[lh]|\r")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_READY = re.compile(r"^[a-z].*? (\d+) of \d+ ", re.MULTILINE)


def main() -> int:
    """Run the demo and write the picture; 1 where the demo failed."""
    output, code = run_demo()
    frames = [frame for frame in split_frames(output) if "killed at" in frame]
    if code != 0 or not frames:
        print(f"the demo ended with {code}, and showed {len(frames)} frames with the kill", file=sys.stderr)
        return 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(max(frames, key=count_ready)), encoding="utf-8")
    print(_COLOUR.sub("", output[output.rindex("requests:") :]))
    print(f"wrote {PICTURE.relative_to(REPOSITORY)}")
    return 0


def run_demo() -> tuple[str, int | None]:
    """What the demo writes to a terminal, and its exit code."""
    demo = str(REPOSITORY / "examples" / "warehouse" / "demo.py")
    child = pexpect.spawn(sys.executable, [demo], dimensions=(ROWS, COLUMNS), encoding="utf-8", timeout=TIMEOUT_S)
    child.expect(pexpect.EOF)
    child.close()
    return child.before or "", child.exitstatus


def split_frames(output: str) -> Iterator[str]:
    """What was drawn between two jumps back; the last one is followed by other text and left out."""
    for drawn in _BACK.split(output)[1:-1]:
        yield _CONTROL.sub("", drawn).rstrip("\n")


def count_ready(frame: str) -> int:
    """The ready replicas of all agents."""
    return sum(int(row[1]) for row in _READY.finditer(_COLOUR.sub("", frame)))


def draw(frame: str) -> str:
    """The frame in a terminal's window."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text.from_ansi(f"$ make demo\n{frame}"), no_wrap=True, crop=True)
    picture = console.export_svg(title="a spike of traffic, after kill -9 of a replica", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # complete without the network


if __name__ == "__main__":
    sys.exit(main())
