"""What people may write beside the resolved model: defaults of the fleet, files of variables, environments.

These models are never filled in. The shape that files are read by and the JSON Schema are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ConfigDict, Field

from shoal.spec.model import Agent, Fleet
from shoal.spec.values import Assignments

DEFERRED = ConfigDict(defer_build=True)  # nobody validates with these, so nobody waits for their validators
NOT_WRITTEN = frozenset({"spec_version"})  # stored with a fleet, not for people to set


class WrittenAgent(Agent):
    """One agent: a service (it has a `port`), a worker (a `queue`) or a job (a `schedule`)."""

    model_config = DEFERRED

    env_file: str | tuple[str, ...] | None = Field(
        default=None,
        description="Files of variables in Compose's format, found from the file that names them; later ones win.",
    )


class Environment(Fleet):
    """What is different in one environment: `files` are merged first, then the keys beside it."""

    model_config = DEFERRED

    files: tuple[str, ...] = Field(
        default=(), description="Spec files merged first, found from the file that names them."
    )
    fleet: str = Field(default="", description="The name of the fleet.")
    image: str | None = Field(default=None, description="The image of every agent that gives none.")
    environment: Assignments = Field(default_factory=dict, description="Variables of every agent.")
    agents: Mapping[str, WrittenAgent] = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
        default_factory=dict, description="The agents by name."
    )


class Document(Fleet):
    """A fleet of agents, for Shoal."""

    model_config = DEFERRED

    image: str | None = Field(default=None, description="The image of every agent that gives none.")
    environment: Assignments = Field(default_factory=dict, description="Variables of every agent.")
    agents: Mapping[str, WrittenAgent] = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
        description="The agents by name."
    )
    environments: Mapping[str, Environment] = Field(
        default_factory=dict, description="What is different in an environment, by the name that `-e` chooses."
    )
