"""Finds where the content of a secret gets into a value, and so into plans, `config` and what is stored, in clear.

What a secret holds is no part of a fleet; a variable that it comes from is, wherever somebody puts that in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from shoal.spec.model import Agent, SecretSource
from shoal.spec.nodes import Block, Items, Loc, Node, Scalar
from shoal.spec.validation import Draft, Finding


def find_exposed(tree: Block, draft: Draft) -> Iterator[Finding]:
    """A finding for each value into which a variable was put that a secret of some agent takes its content from."""
    secret_of = secrets_by_variable(draft.agents.values(), draft.secrets)
    if not secret_of:
        return
    for loc, scalar in _scalars(tree, ()):
        names = [name for name, _ in scalar.spot.variables]
        if scalar.spot.layer == "env_file" and loc:
            names.append(str(loc[-1]))
        for variable in names:
            if variable in secret_of:
                secret = secret_of[variable]
                message = f"the value of the variable {variable}, which the secret {secret} holds, stands here in clear"
                yield Finding(loc, message, f"leave it out, and give it by secrets: [{{name: {secret}, as: env}}]")
                break


def secrets_by_variable(agents: Iterable[Agent], sources: Mapping[str, SecretSource]) -> Mapping[str, str]:
    """The secrets of these agents that come from a variable, by that variable."""
    found: dict[str, str] = {}
    for agent in agents:
        for use in agent.secrets:
            source = sources.get(use.name)
            variable = use.name if source is None else source.environment
            if variable is not None:
                found[variable] = use.name
    return found


def _scalars(node: Node, loc: Loc) -> Iterator[tuple[Loc, Scalar]]:
    if isinstance(node, Block):
        for key, entry in node.entries.items():
            yield from _scalars(entry.node, (*loc, key))
    elif isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from _scalars(item, (*loc, index))
    else:
        yield loc, node
