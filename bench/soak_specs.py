"""Mutated specs: whatever is written, it is a fleet or it is refused with places; nothing else may happen.

    python -m bench.soak_specs [COUNT] [--seed S] [--processes P]

Each document is one of the repository's own specs with one to five slips: in its text (characters, indentation, line
ends, bytes), in its tokens (words doubled, swapped, replaced by strange ones), or in its tree (keys gone, doubled or
misnamed, values of other types, deep nesting, aliases). A document is known by its number and the seed, so that a fault
can be had again. Exits with 1 when one was found; the document is printed.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.errors import SpecError
from shoal.spec import Fleet, load
from shoal.spec.nodes import plain_data
from shoal.spec.reading import parse_yaml

ROOT = Path(__file__).parents[1]
SLOW_S = 5.0
ENVIRONMENTS = (None, "dev", "staging")
_PAGES = ("README.md", "docs/guides/*.md", "docs/spec-reference.md")
_SPECS = ("examples/*/shoal.yaml", "examples/*/prod.yaml", "tests/unit/spec/data/*.yaml")
_BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
_TOKEN = re.compile(r"\s+|[A-Za-z_][\w-]*|\d+(?:\.\d+)?|[^\w\s]")

# fmt: off
STRANGE: tuple[Any, ...] = (
    None, True, False, -1, 0, 3, 10**30, -(10**400), 1.5, 1e-320, float("inf"), float("nan"), "", " ", "x", "no", "a b",
    "$", "${A", "${A:-b}", "${A:?say}", "$PORT", "$$", "010", "0x10", "1_000", "1:30", "/", "70%", "1h", "-1s", "5 GB",
    "1e400", "999999999999d", "* * * * *", "L * * * *", "0 0 30 2 *", "2020-01-01", "é\u0000", "\ufeff", "\u2028",
    "\U0001f41f" * 3, "\ud800", "x" * 300, "٣", "../..", "/etc/passwd", "Europe", "http://", "http://[::1", "a:b:c",
    "<<", "=", "!!int", "cron", [], [None], ["x"], ["x", "x"], [[]], [{}], {}, {"x": 1}, {"": None},
    {"a": {"b": {"c": []}}},
)
_KEYS = (
    "scale", "port", "x-y", "queue", "1", "", "<<", "agents", "fleet", "null", "é", "a.b", "x" * 200, "SHOAL_AGENT",
)
_SCRAPS = (
    "&a ", "*a", "*missing", "!!binary x", "!!python/object:os.system x", "<<: *a", "? x", "- ", ": ", "|", ">-\n", "{",
    "}", "[", "]", ",", "'", '"', "#", "%YAML 9.9\n", "---\n", "...\n", "@", "`", "\t", "  ", "\n", "\r", "\x00",
    "\x07", "\x85", "\u2028", "\ufeff", "\U0001f41f", "${", "$", "~", "9" * 5000, "0" * 40, "-.inf", "1e999", "=",
)
# fmt: on


def read_seeds() -> tuple[str, ...]:
    """The specs of this repository: files, and the YAML on its pages."""
    texts = [path.read_text() for pattern in _SPECS for path in sorted(ROOT.glob(pattern))]
    for page in (path for pattern in _PAGES for path in sorted(ROOT.glob(pattern))):
        texts += _BLOCK.findall(page.read_text())
    return tuple(texts)


def render_yaml(node: Any) -> str:
    """JSON is YAML, but for what JSON has no word for."""
    if isinstance(node, dict):
        return "{" + ", ".join(f"{render_yaml(key)}: {render_yaml(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(render_yaml, node)) + "]"
    if isinstance(node, str):
        return '"' + "".join(_escaped(character) for character in node) + '"'
    if isinstance(node, float) and not math.isfinite(node):
        return ".nan" if math.isnan(node) else ".inf"
    return "null" if node is None else str(node).lower()


def mutate_tree(node: Any, chance: random.Random) -> Any:
    """The document with one thing changed somewhere: a value, a key, something gone or double."""
    if isinstance(node, dict) and node and chance.random() < 0.85:
        key = chance.choice(sorted(node))
        changed = dict(node)
        action = chance.random()
        if action < 0.75:
            changed[key] = mutate_tree(node[key], chance)
        elif action < 0.85:
            del changed[key]
        else:
            changed[chance.choice((key.upper(), f"{key}s", key[:-1], *_KEYS))] = node[key]
        return changed
    if isinstance(node, list) and node and chance.random() < 0.7:
        index = chance.randrange(len(node))
        return [*node[:index], mutate_tree(node[index], chance), *node[index:]]
    if chance.random() < 0.02:
        return _nested(chance)
    return chance.choice(STRANGE)


def mutate_tokens(text: str, chance: random.Random) -> str:
    """Words and signs doubled, swapped, dropped, or replaced by others of the text or by scraps of YAML."""
    tokens = _TOKEN.findall(text) or [""]
    for _ in range(chance.randint(1, 5)):
        at, other = chance.randrange(len(tokens)), chance.randrange(len(tokens))
        match chance.randrange(5):
            case 0:
                tokens[at] *= chance.choice((0, 2, 2, 100))
            case 1:
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 2:
                tokens[at] = tokens[other]
            case 3:
                tokens[at] = chance.choice(_SCRAPS)
            case _:
                tokens.insert(at, chance.choice(_SCRAPS))
    return "".join(tokens)


def mutate_lines(text: str, chance: random.Random) -> str:
    """Lines gone, doubled, moved, indented otherwise or by tabs; other line ends; a bomb of aliases."""
    lines = text.split("\n")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                lines[at] = ""
            case 1:
                lines.insert(chance.randrange(len(lines)), lines[at])
            case 2:
                lines[at] = " " * chance.randint(1, 3) + lines[at]
            case 3:
                lines[at] = lines[at].replace("  ", "\t", 1)
            case 4:
                lines[at] = lines[at][1:]
            case _:
                lines[at] = lines[at].replace(
                    ": ", chance.choice((": &a ", ": *a ", ":", " : ", ": !!str ", ": |\n")), 1
                )
    whole = chance.choice(("\n", "\n", "\n", "\r\n", "\r", "\n\r")).join(lines)
    match chance.randrange(12):
        case 0:
            return "\ufeff" + whole
        case 1:
            return whole + _bomb()
        case 2:
            return whole + "\n---\n" + whole
        case 3:
            return whole + "\nx: " + chance.choice(("[", "{a: ", "- ")) * chance.choice((100, 2000, 50_000))
        case _:
            return whole


def mutate_bytes(text: str, chance: random.Random) -> bytes:
    """Single bytes, and other encodings."""
    content = bytearray(text.encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")), "replace"))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(content) + 1)
        content[at : at + chance.randint(0, 3)] = bytes(chance.randrange(256) for _ in range(chance.randint(0, 3)))
    return bytes(content[: chance.randrange(len(content) + 1)] if chance.random() < 0.1 else content)


def make_document(seeds: tuple[str, ...], seed: int, number: int) -> bytes:
    """Document `number` of the campaign `seed`: always the same."""
    chance = random.Random(f"{seed}:{number}")
    text = chance.choice(seeds)
    match number % 4:
        case 0:
            tree: Any = _tree_of(text)
            for _ in range(chance.randint(1, 4)):
                tree = mutate_tree(tree, chance)
            return render_yaml(tree).encode("utf-8", "surrogatepass")
        case 1:
            return mutate_tokens(text, chance).encode("utf-8", "surrogatepass")
        case 2:
            return mutate_lines(text, chance).encode("utf-8", "surrogatepass")
        case _:
            return mutate_bytes(text, chance)


def find_fault(path: Path, environment: str | None = None) -> tuple[str, str]:
    """What became of the file, `read` or `refused`, and what is wrong with that, if anything.

    A fleet must survive being stored; a refusal must have a place and a message for each problem; both must come within
    `SLOW_S`.
    """
    began = time.monotonic()
    try:
        fleet = load([path], environment, variables={"A": "b"}).fleet
        became, fault = "read", ""
        if Fleet.from_document(fleet.to_document()) != fleet:
            fault = "another fleet once it is stored and read again"
    except SpecError as error:
        became, fault = "refused", _fault_of(error)
    except BaseException:  # noqa: BLE001 - what this looks for
        return "fault", traceback.format_exc(limit=-6)
    took_s = time.monotonic() - began
    return became, fault or (f"took {took_s:.1f} s" if took_s > SLOW_S else "")


def _fault_of(refusal: SpecError) -> str:
    if not refusal.problems:
        return "refused without a problem"
    for problem in refusal.problems:
        if problem.place is None or problem.place.line < 1 or problem.place.column < 1:
            return f"no place: {problem}"
        if not problem.message.strip():
            return f"no message: {problem!r}"
    return ""


@dataclass(slots=True)
class Tally:
    """How many documents became what, and the faults with the numbers of their documents."""

    became: Counter[str] = field(default_factory=Counter[str])
    faults: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


def run_documents(seed: int, numbers: range) -> Tally:
    """Makes and reads these documents."""
    seeds, tally = read_seeds(), Tally()
    with tempfile.TemporaryDirectory(prefix="shoal-specs-") as directory:
        path = Path(directory) / "shoal.yaml"
        for number in numbers:
            path.write_bytes(make_document(seeds, seed, number))
            became, fault = find_fault(path, ENVIRONMENTS[number // 4 % 3])
            tally.became[became] += 1
            if fault:
                tally.faults.append((number, fault))
    return tally


def _tree_of(text: str) -> Any:
    node, _ = parse_yaml(text, "seed.yaml")
    return {} if node is None else plain_data(node)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _nested(chance: random.Random) -> Any:
    node: Any = None
    for _ in range(chance.choice((30, 60, 150))):
        node = [node] if chance.random() < 0.5 else {"a": node}
    return node


def _bomb() -> str:
    lines = ['x0: &x0 ["a", "a", "a", "a", "a", "a", "a", "a", "a"]']
    lines += [f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]" for level in range(1, 10)]
    return "\n" + "\n".join(lines) + "\n"


def _spread(count: int, processes: int) -> Iterator[range]:
    size = max(1, min(1000, count // processes))
    return (range(first, min(first + size, count)) for first in range(0, count, size))


def main(show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak_specs", description="Reads mutated specs.")
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    began, became, faults = time.monotonic(), Counter[str](), list[tuple[int, str]]()
    parts = list(_spread(arguments.count, arguments.processes))
    with ProcessPoolExecutor(arguments.processes) as pool:
        for tally in pool.map(run_documents, [arguments.seed] * len(parts), parts):
            became += tally.became
            faults += tally.faults
    seeds = read_seeds()
    for number, fault in faults[:20]:
        show(f"document {number}: {fault}\n{make_document(seeds, arguments.seed, number)!r}\n")
    kinds = ", ".join(f"{count:,} {what}" for what, count in became.most_common())
    show(f"{sum(became.values()):,} documents of {len(seeds)} seeds in {time.monotonic() - began:.0f} s: {kinds}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
