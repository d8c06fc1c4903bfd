"""From files to a fleet: read, interpolate, lay over each other, judge. What is wrong is said all at once.

Files are laid over each other in the order they are given, each followed by what it says under `environments` for the
chosen one (the files named there first, then the keys beside them); `--set` comes last.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.errors import Place, Problem, SpecError
from shoal.spec.assembly import assemble
from shoal.spec.checks import check_draft, finished, warn_of_draft
from shoal.spec.dotenv import parse_variables
from shoal.spec.exposed import find_exposed
from shoal.spec.interpolation import InterpolationError, interpolate
from shoal.spec.model import Fleet
from shoal.spec.nodes import Block, Entry, Items, Loc, Node, Scalar, Spot, block_data, dotted, nearest, spot_of
from shoal.spec.origins import Origins
from shoal.spec.overlay import merge, parse_setting
from shoal.spec.reading import Refused, parse_yaml, resolve_scalar
from shoal.spec.shape import Shaper, document_shape
from shoal.spec.suggestions import did_you_mean
from shoal.spec.validation import Finding, validate_values

ENVIRONMENTS = "environments"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A resolved fleet, where its values came from, and what is hardly meant though nothing is wrong with it.

    `environments` are the names that could have been chosen, `files` what was read, in the order of reading.
    """

    fleet: Fleet
    origins: Origins
    warnings: tuple[Problem, ...]
    environments: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def load(
    paths: Sequence[str | Path],
    environment: str | None = None,
    sets: Iterable[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Loaded:
    """The fleet that the files say, for one environment.

    `paths` are spec files, later over earlier; `environment` is one of those under `environments`; `sets` are settings
    such as `agents.a.scale.max=3`; `variables` are those of the process, which win over `.env` beside the first file.
    Raises SpecError with every problem, in the order of the files.
    """
    one_load = _Load(tuple(str(path) for path in paths), environment, dict(variables or {}))
    collects = gc.isenabled()
    gc.disable()  # a large file is a hundred thousand tuples at once, and the collector would walk them time and again
    try:
        return one_load.run(tuple(sets))
    finally:
        if collects:
            gc.enable()


def environments_of(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """The names of the environments that the files have, whatever else is wrong with them."""
    return _Load(tuple(str(path) for path in paths), None, {}).environments()


class _Load:
    """One load. Files are read once; problems are collected until nothing more can be said."""

    def __init__(self, paths: tuple[str, ...], environment: str | None, variables: dict[str, str]) -> None:
        self._paths = paths
        self._environment = environment
        self._problems: list[Problem] = []
        self._incomplete: set[Place | None] = set()  # of values that lack a variable: nothing more can be said of them
        self._files: list[str] = []
        self._environments: dict[str, Spot] = {}
        self._process = variables
        self._variables = {name: (value, "environment") for name, value in variables.items()}

    def run(self, sets: tuple[str, ...]) -> Loaded:
        if not self._paths:
            raise SpecError([Problem(None, "", "no file was given; expected one such as shoal.yaml")])
        self._read_dotenv(Path(self._paths[0]).parent / ".env")
        tree: Node | None = None
        for path in self._paths:
            for layer in self._layers(path):
                tree = merge(tree, layer)
        self._require_environment()
        for setting in sets:
            tree = self._with_setting(tree, setting)
        if not isinstance(tree, Block):
            self._refuse_if_wrong()
            raise SpecError([Problem(Spot(self._paths[0], 1, 1).place, "", "the file is empty; expected a fleet")])
        return self._judged(tree)

    def environments(self) -> tuple[str, ...]:
        for path in self._paths:
            for _ in self._layers(path):
                pass
        return tuple(self._environments)

    def _judged(self, merged: Block) -> Loaded:
        """The fleet in the merged tree."""
        tree = assemble(merged, self._read_variables, self._located, self._problems)
        draft = validate_values(block_data(tree))
        findings = _of_shorthands(tree, (*draft.findings, *check_draft(draft)))
        found = [self._problem(tree, finding) for finding in findings]
        self._problems += (problem for problem in found if problem.place not in self._incomplete)
        self._refuse_if_wrong()
        findings = (*warn_of_draft(draft), *find_exposed(tree, draft))
        warnings = sorted((self._problem(tree, finding) for finding in findings), key=self._order)
        return Loaded(finished(draft), Origins(tree), tuple(warnings), tuple(self._environments), tuple(self._files))

    def _layers(self, path: str) -> Iterable[Block]:
        """What one file adds, lowest first."""
        root = self._read_file(path, "")
        if root is None:
            return
        known = root.entries.get(ENVIRONMENTS)
        yield self._shaped(_without(root, ENVIRONMENTS))
        if known is None:
            return
        blocks = known.node
        if not isinstance(blocks, Block):
            if not (isinstance(blocks, Scalar) and blocks.value is None):
                message = "expected a mapping of names to what is different there"
                self._problems.append(Problem(blocks.spot.place, ENVIRONMENTS, message))
            return
        for name, entry in blocks.entries.items():
            self._environments.setdefault(name, entry.spot)
            yield from self._environment_layers(name, entry)

    def _environment_layers(self, name: str, entry: Entry) -> Iterable[Block]:
        """What an environment adds if it is the chosen one; any other is only looked at."""
        chosen = name == self._environment
        loc = (ENVIRONMENTS, name)
        if not isinstance(entry.node, Block):
            if not (isinstance(entry.node, Scalar) and entry.node.value is None):
                self._problems.append(Problem(entry.node.spot.place, dotted(loc), "expected a mapping"))
            return
        block = self._shaped(entry.node, loc, interpolated=chosen)
        if not chosen:
            return
        files = block.entries.get("files")
        if files is not None:
            yield from self._named_layers(files.node, (*loc, "files"), f"environment {name}")
        yield _without(block, "files")

    def _named_layers(self, files: Node, loc: Loc, layer: str) -> Iterable[Block]:
        if not isinstance(files, Items):
            self._problems.append(Problem(files.spot.place, dotted(loc), "expected a list of files"))
            return
        for index, item in enumerate(files.items):
            if not isinstance(item, Scalar) or not isinstance(item.value, str) or not item.value:
                self._problems.append(Problem(item.spot.place, dotted((*loc, index)), "expected the name of a file"))
                continue
            root = self._read_file(self._beside(item.spot, item.value), layer, named_at=item.spot, loc=(*loc, index))
            if root is None:
                continue
            if ENVIRONMENTS in root.entries:
                message = "a file of an environment can't have environments"
                self._problems.append(Problem(root.entries[ENVIRONMENTS].spot.place, ENVIRONMENTS, message))
            yield self._shaped(_without(root, ENVIRONMENTS))

    def _shaped(self, block: Block, loc: Loc = (), *, interpolated: bool = True) -> Block:
        shape = document_shape().at(loc)
        shaped = Shaper(self._problems, self._interpolated if interpolated else None).shape(block, shape, loc)
        assert isinstance(shaped, Block)
        return shaped

    def _interpolated(self, scalar: Scalar, loc: Loc, command: bool) -> Scalar:
        try:
            result = interpolate(scalar.text, self._variables.get, command=command)
        except InterpolationError as error:
            self._incomplete.add(scalar.spot.place)
            self._problems.append(Problem(scalar.spot.place, dotted(loc), str(error), error.remedy))
            return scalar
        value = resolve_scalar(result.text) if scalar.plain and result.text else result.text
        spot = scalar.spot._replace(variables=result.variables)
        return Scalar(result.text, value, spot)

    def _with_setting(self, tree: Node | None, setting: str) -> Node | None:
        try:
            node = parse_setting(setting)
        except Refused as error:
            self._problems.append(error.problem)
            return tree
        assert isinstance(node, Block)
        if ENVIRONMENTS in node.entries:
            message = "an environment is chosen by -e; set the value itself"
            self._problems.append(Problem(node.spot.place, ENVIRONMENTS, message))
            return tree
        shaped = Shaper(self._problems, None).shape(node, document_shape())
        if isinstance(tree, Block) and isinstance(shaped, Block) and self._names_new_agents(tree, shaped):
            return tree
        return merge(tree, shaped)

    def _names_new_agents(self, tree: Block, setting: Block) -> bool:
        """A setting changes agents; one that does not exist is a slip."""
        before = len(self._problems)
        there, named = (node.entries.get("agents") for node in (tree, setting))
        if there and named and isinstance(there.node, Block) and isinstance(named.node, Block):
            for name in named.node.entries.keys() - there.node.entries.keys():
                remedy = did_you_mean(name, there.node.entries)
                self._problems.append(Problem(named.spot.place, f"agents.{name}", "there is no such agent", remedy))
        return len(self._problems) > before

    def _require_environment(self) -> None:
        name = self._environment
        if name is not None and name not in self._environments:
            place = next(iter(self._environments.values()), Spot(self._paths[0], 1, 1)).place
            remedy = did_you_mean(name, self._environments) if self._environments else "the file names none"
            self._problems.append(Problem(place, ENVIRONMENTS, f"there is no environment {name}", remedy))

    def _read_dotenv(self, path: Path) -> None:
        if not path.is_file():
            return
        text = self._read_text(str(path), None, ())
        for name, scalar in parse_variables(text or "", str(path), self._process, self._problems).items():
            self._variables.setdefault(name, (scalar.text, str(path)))

    def _read_variables(self, scalar: Scalar, loc: Loc) -> dict[str, Scalar]:
        """The variables in a file that an agent's `env_file` names."""
        path = self._beside(scalar.spot, scalar.text)
        text = self._read_text(path, scalar.spot, loc)
        process = {name: value for name, (value, _) in self._variables.items()}
        return parse_variables(text or "", path, process, self._problems, layer="env_file")

    def _read_file(self, path: str, layer: str, *, named_at: Spot | None = None, loc: Loc = ()) -> Block | None:
        text = self._read_text(path, named_at, loc)
        if text is None:
            return None
        try:
            root, problems = parse_yaml(text, path, layer=layer)
        except Refused as error:
            self._problems.append(error.problem)
            return None
        self._problems += problems
        if root is None or isinstance(root, Block):
            return root
        self._problems.append(Problem(root.spot.place, "", "expected a mapping of keys to values"))
        return None

    def _read_text(self, path: str, named_at: Spot | None, loc: Loc) -> str | None:
        """The text of a file, or None and a problem, at the place that names the file if one does."""
        spot = named_at or Spot(path, 1, 1)
        self._files.append(path)
        try:
            return Path(path).read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            message = f"there is no file {path}"
        except UnicodeDecodeError as error:
            message = f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            message = f"{path} can't be read: {str(reason).lower()}"
        self._problems.append(Problem(spot.place, dotted(loc), message))
        return None

    def _beside(self, spot: Spot, name: str) -> str:
        """A file's name as it is found from the file that names it; from the first file for `--set`."""
        base = self._paths[0] if spot.file.startswith("--set ") else spot.file
        return str(Path(base).parent / name)

    def _located(self, volume: Scalar) -> Scalar:
        """A volume that is a directory of the host, with its whole path; without a home `~` is a directory's name."""
        source, colon, rest = volume.text.partition(":")
        home = self._process.get("HOME", "")
        if source.startswith("~") and home.startswith("/"):
            source = f"{home}{source[1:]}"
        source = os.path.abspath(self._beside(volume.spot, source))  # noqa: PTH100 - links stay links, as in Compose
        return volume._replace(text=f"{source}{colon}{rest}", value=f"{source}{colon}{rest}")

    def _problem(self, tree: Node, finding: Finding) -> Problem:
        place = spot_of(tree, finding.loc, key=finding.key).place
        return Problem(place, dotted(finding.loc), finding.message, finding.remedy)

    def _order(self, problem: Problem) -> tuple[int, str, int, int]:
        """The order of the files, then of the lines."""
        place = problem.place
        if place is None:
            return len(self._files), "", 0, 0
        known = self._files.index(place.file) if place.file in self._files else len(self._files)
        return known, place.file, place.line, place.column

    def _refuse_if_wrong(self) -> None:
        if self._problems:
            raise SpecError(sorted(dict.fromkeys(self._problems), key=self._order))


def _of_shorthands(tree: Node, findings: Iterable[Finding]) -> Iterable[Finding]:
    """What is wrong with `scale: two` is so of its `min` and of its `max`, and said once, of `scale`."""
    found = tuple(findings)
    wrong = {finding.loc for finding in found}
    for finding in found:
        above = finding.loc[:-1]
        holder, there = nearest(tree, above)
        if not there or not isinstance(holder, Block) or not _is_spelled_out(holder):
            yield finding
            continue
        keys = [(*above, key) for key in holder.entries]
        if not wrong.issuperset(keys):
            yield finding
        elif finding.loc == keys[-1]:
            yield replace(finding, loc=above)


def _is_spelled_out(block: Block) -> bool:
    """Whether it was written as one value for several keys: each of them stands where it does."""
    return len(block.entries) > 1 and all(entry.node.spot == block.spot for entry in block.entries.values())


def _without(block: Block, key: str) -> Block:
    return Block({name: entry for name, entry in block.entries.items() if name != key}, block.spot)
