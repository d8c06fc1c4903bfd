"""Turns a merged tree into one that has only what a resolved fleet has: the fleet's defaults are given to each agent,
files of variables are read, and what is null is gone."""

from __future__ import annotations

from collections.abc import Callable

from shoal.errors import Problem
from shoal.spec.nodes import Block, Entry, Items, Loc, Node, Scalar, dotted
from shoal.spec.overlay import without_nulls
from shoal.spec.volumes import parse_volume

Locate = Callable[[Scalar], Scalar]  # a path of the host, as it is found from the file that names it
ReadVariables = Callable[[Scalar, Loc], dict[str, Scalar]]  # what names a file, and where that stands

_BLOCKS_BY_NAME = ("agents", "queues", "brokers", "external", "registries", "secrets")


def assemble(merged: Block, read_variables: ReadVariables, locate: Locate, problems: list[Problem]) -> Block:
    """The tree of a fleet. `read_variables` reads a file that an `env_file` names; `locate` gives a volume that is a
    directory of the host its whole path."""
    _refuse_empty_variables(merged, problems)
    tree = without_nulls(merged, keep=_BLOCKS_BY_NAME)
    assert isinstance(tree, Block)
    image, environment = tree.entries.get("image"), tree.entries.get("environment")
    kept = {key: entry for key, entry in tree.entries.items() if key not in ("image", "environment")}
    agents = kept.get("agents")
    if agents is not None and isinstance(agents.node, Block):
        assembled: dict[str, Entry] = {}
        for name, entry in agents.node.entries.items():
            node = entry.node
            if isinstance(node, Block):
                node = _with_defaults(node, name, image, environment, read_variables, problems)
                node = _with_host_paths(node, locate)
            assembled[name] = Entry(entry.spot, node)
        kept["agents"] = Entry(agents.spot, Block(assembled, agents.node.spot))
    return Block(kept, tree.spot)


def _with_defaults(
    agent: Block,
    name: str,
    image: Entry | None,
    environment: Entry | None,
    read_variables: ReadVariables,
    problems: list[Problem],
) -> Block:
    """The agent with the fleet's image, and the variables of the fleet, of its files and its own; later ones win."""
    entries = dict(agent.entries)
    if image is not None:
        entries.setdefault("image", image)
    files = entries.pop("env_file", None)
    own = entries.get("environment")
    below: dict[str, Entry] = {}
    for source in (environment, own):
        if source is not None and not isinstance(source.node, Block):
            entries["environment"] = source  # not a mapping: left to be refused
            return Block(entries, agent.spot)
    if environment is not None and isinstance(environment.node, Block):
        below |= environment.node.entries
    if files is not None:
        for scalar, loc in _named_files(files.node, ("agents", name, "env_file"), problems):
            below |= {key: Entry(value.spot, value) for key, value in read_variables(scalar, loc).items()}
    if own is not None and isinstance(own.node, Block):
        below |= own.node.entries
    source = own or environment or files
    if source is not None:
        entries["environment"] = Entry(source.spot, Block(below, source.node.spot))
    return Block(entries, agent.spot)


def _with_host_paths(agent: Block, locate: Locate) -> Block:
    volumes = agent.entries.get("volumes")
    if volumes is None or not isinstance(volumes.node, Items):
        return agent
    items = tuple(locate(item) if isinstance(item, Scalar) and _is_bound(item) else item for item in volumes.node.items)
    return Block({**agent.entries, "volumes": Entry(volumes.spot, Items(items, volumes.node.spot))}, agent.spot)


def _is_bound(volume: Scalar) -> bool:
    """Whether it is a directory of the host; one that is malformed is refused as it is written."""
    try:
        return parse_volume(volume.text).bound
    except ValueError:
        return False


def _named_files(files: Node, at: Loc, problems: list[Problem]) -> list[tuple[Scalar, Loc]]:
    many = files.items if isinstance(files, Items) else (files,)
    named: list[tuple[Scalar, Loc]] = []
    for index, node in enumerate(many):
        loc = (*at, index) if isinstance(files, Items) else at
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            named.append((node, loc))
        else:
            problems.append(Problem(node.spot.place, dotted(loc), "expected the name of a file, or a list of names"))
    return named


def _refuse_empty_variables(merged: Block, problems: list[Problem]) -> None:
    """`NAME:` with nothing after it passes NAME on in Compose and deletes it here; neither is guessed."""
    holders: list[tuple[Loc, Node]] = [((), merged)]
    agents = merged.entries.get("agents")
    if agents is not None and isinstance(agents.node, Block):
        holders += [(("agents", name), entry.node) for name, entry in agents.node.entries.items()]
    for at, holder in holders:
        environment = holder.entries.get("environment") if isinstance(holder, Block) else None
        if environment is None or not isinstance(environment.node, Block):
            continue
        for name, entry in environment.node.entries.items():
            if isinstance(entry.node, Scalar) and entry.node.value is None:
                remedy = f'write "${{{name}}}" to pass it on, or "" for an empty one'
                path = dotted((*at, "environment", name))
                problems.append(Problem(entry.node.spot.place, path, "the variable has no value", remedy))
