"""Volumes in Compose's short form: named ones, and directories of the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.spec import Loaded
from shoal.spec.volumes import Volume, parse_volume


@pytest.mark.parametrize(
    ("text", "volume", "variable"),
    [
        ("stock:/data", Volume("stock", "/data"), "SHOAL_VOLUME_STOCK"),
        ("my-stock:/data/:ro", Volume("my-stock", "/data", read_only=True), "SHOAL_VOLUME_MY_STOCK"),
        ("stock:/data:rw", Volume("stock", "/data"), "SHOAL_VOLUME_STOCK"),
        ("/srv/m:/opt/models:ro", Volume("/srv/m", "/opt/models", True, True), "SHOAL_VOLUME_OPT_MODELS"),
        ("./m:/models", Volume("./m", "/models", True), "SHOAL_VOLUME_MODELS"),
        (".:/src", Volume(".", "/src", True), "SHOAL_VOLUME_SRC"),
        ("~:/home", Volume("~", "/home", True), "SHOAL_VOLUME_HOME"),
    ],
)
def test_short_form(text: str, volume: Volume, variable: str) -> None:
    """A volume's variable is named after it, a bound directory's after its path."""
    assert parse_volume(text) == volume
    assert volume.variable == variable


def test_directories_of_the_host_are_found_from_the_file_that_names_them(
    read: Callable[..., Loaded], tmp_path: Path
) -> None:
    """`~` is the home of who runs Shoal; a file of an environment names its own neighbours."""
    (tmp_path / "over").mkdir()
    text = """\
fleet: f
agents:
  a: {command: x, port: 1, volumes: ["./models:/models:ro", "../up:/up", "~/h:/h", "/abs:/abs", "named:/n"]}
  b: {command: x, port: 1}
environments: {dev: {files: [over/dev.yaml]}}
"""
    over = 'agents: {b: {volumes: ["./models:/models"]}}\n'
    fleet = read(text, {"over/dev.yaml": over}, environment="dev", variables={"HOME": "/home/me"}).fleet
    assert fleet.agents["a"].volumes == (
        f"{tmp_path}/models:/models:ro", f"{tmp_path.parent}/up:/up", "/home/me/h:/h", "/abs:/abs", "named:/n",
    )  # fmt: skip
    assert fleet.agents["b"].volumes == (f"{tmp_path}/over/models:/models",)


def test_one_that_is_malformed_is_shown_as_it_is_written(refuse: Callable[..., list[str]]) -> None:
    """Not with the whole path that it would have."""
    text = 'fleet: f\nagents: {a: {command: x, port: 1, volumes: ["./data:data"]}}\n'
    (problem,) = refuse(text)
    assert problem.startswith("shoal.yaml:2:45: agents.a.volumes[0]: found './data:data'; expected NAME:PATH or")


def test_what_each_replica_has_for_itself_is_shared_with_nobody(refuse: Callable[..., list[str]]) -> None:
    """Two stateful agents may use the same name, each for its own; agents that are not stateful share by it."""
    fleet = """\
fleet: f
agents:
  a: {command: x, port: 1, stateful: true, volumes: ["stock:/data"]}
  b: {command: x, port: 1, stateful: true, volumes: ["stock:/data"]}
  c: {command: x, port: 1, volumes: ["cache:/cache"]}
  d: {command: x, queue: q, volumes: ["cache:/c", "stock:/data"]}
"""
    assert refuse(fleet) == [
        "shoal.yaml:6:51: agents.d.volumes[1]: each replica of a, which is stateful, has a volume stock of its own "
        "(choose another name for one that is shared)"
    ]
