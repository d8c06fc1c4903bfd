"""What a valid file asks of its engine and can't have: told with its place, by `validate` as by `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal.errors import Problem, SpecError

if TYPE_CHECKING:
    from shoal.spec import Loaded


def check_engine(loaded: Loaded) -> None:
    """Raises SpecError with every problem."""
    problems = tuple(_problems(loaded))
    if problems:
        raise SpecError(problems)


def _problems(loaded: Loaded) -> Iterator[Problem]:
    fleet, origins = loaded.fleet, loaded.origins
    if fleet.engine == "kubernetes":
        from shoal.cli.kubernetes.claims import claims_that_meet
        from shoal.cli.kubernetes.refused import agents_refused

        yield from claims_that_meet(loaded)
        yield from agents_refused(loaded)
    for name, agent in fleet.agents.items():
        if fleet.engine != "local" and agent.image is None:
            yield Problem(
                origins.of(("agents", name)).place,
                f"agents.{name}",
                "found no image",
                "give it an `image`, or the whole fleet: in a cluster agents are started from one",
            )
        if fleet.engine == "kubernetes" and (name == "shoal" or name.startswith("shoal-")):
            yield Problem(
                origins.of(("agents", name)).place,
                f"agents.{name}",
                "on Kubernetes Shoal's own objects have such names, and an agent's have the agent's",
                "choose a name that is not `shoal`, and does not begin with `shoal-`",
            )
        if fleet.engine == "local" and agent.command is None:
            yield Problem(
                origins.of(("agents", name)).place,
                f"agents.{name}",
                f"found the image {agent.image} and no command",
                "give it a `command`: the local engine starts agents by it",
            )
