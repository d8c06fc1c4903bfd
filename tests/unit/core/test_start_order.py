"""In which order a pass goes through agents that wait for each other."""

from __future__ import annotations

from shoal.core.dependencies import dependencies_first
from shoal.spec.model import Fleet


def test_who_is_depended_on_comes_first() -> None:
    """Along the whole way, whatever the order of the file."""
    agents = {
        "a": {"command": "x", "port": 80, "depends_on": ["b", "c"]},
        "b": {"command": "x", "port": 81, "depends_on": ["c"]},
        "c": {"command": "x", "port": 82},
        "d": {"command": "x", "schedule": "0 0 1 1 *"},
    }
    fleet = Fleet.model_validate({"fleet": "f", "agents": agents})
    assert dependencies_first(fleet.agents) == ("c", "b", "a", "d")
