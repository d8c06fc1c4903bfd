"""What an agent can't have on Kubernetes, as its objects can't be written: told before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal.engines.kubernetes.render_fleet import refused_agents
from shoal.errors import Problem

if TYPE_CHECKING:
    from shoal.spec import Loaded


def agents_refused(loaded: Loaded) -> Iterator[Problem]:
    """The first of each agent; of one without an image that is told for every engine."""
    for name, error in refused_agents(loaded.fleet):
        if loaded.fleet.agents[name].image is None:
            continue
        path, _, said = str(error).partition(": ")
        key = path.removeprefix(f"agents.{name}.")
        yield Problem(loaded.origins.of(("agents", name, key)).place, path, said)
