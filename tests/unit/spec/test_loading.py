"""From files to a fleet: the design's example, overlays, settings, variables, origins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import SpecError
from shoal.spec import Fleet, load
from shoal.spec.model import Kind

WAREHOUSE = Path(__file__).parent / "data" / "warehouse.yaml"
BASE = """\
fleet: f
agents:
  a:
    command: run $PORT
    port: 8000
    scale: 2
    environment: {ONE: 1, TWO: "2"}
    idempotent: [GET, PUT]
environments:
  dev: {engine: local, agents: {a: {scale: {max: 5}}}}
  prod: {engine: kubernetes, files: [over/prod.yaml], agents: {a: {stop_grace_period: 5s}}}
"""
PROD = "agents: {a: {stop_grace_period: 1m, environment: [THREE=3], idempotent: [GET], port: 9000}}\n"


@pytest.mark.parametrize(
    ("environment", "engine"), [(None, "local"), ("dev", "local"), ("staging", "swarm")]
)  # fmt: skip
def test_the_example_holds_as_it_stands(environment: str | None, engine: str) -> None:
    """What the documentation shows is what is accepted."""
    loaded = load([WAREHOUSE], environment)
    assert loaded.fleet.engine == engine
    assert loaded.warnings == ()
    assert {name: agent.kind for name, agent in loaded.fleet.agents.items()} == {
        "ingest": Kind.SERVICE, "inventory": Kind.SERVICE, "image-processing": Kind.WORKER, "forecasting": Kind.JOB,
    }  # fmt: skip


def test_a_missing_overlay_matters_only_where_it_is_chosen() -> None:
    """`prod` names a file that is not there."""
    with pytest.raises(SpecError) as caught:
        load([WAREHOUSE], "prod")
    (problem,) = caught.value.problems
    assert problem.place is not None and problem.place.line == 42
    assert problem.path == "environments.prod.files[0]"
    assert "there is no file" in problem.message


def test_a_fleet_is_its_document(read: Callable[..., Any]) -> None:
    """What is stored is what comes back."""
    fleet = load([WAREHOUSE], "dev").fleet
    assert Fleet.from_document(fleet.to_document()) == fleet


def test_maps_merge_and_lists_replace(read: Callable[..., Any], tmp_path: Path) -> None:
    """An environment's files come before what stands beside them."""
    (tmp_path / "over").mkdir()
    fleet = read(BASE, {"over/prod.yaml": PROD}, environment="prod").fleet
    agent = fleet.agents["a"]
    assert agent.environment == {"ONE": "1", "TWO": "2", "THREE": "3"}
    assert agent.idempotent == ("GET",)
    assert (agent.port, agent.stop_grace_period_s, fleet.engine) == (9000, 5.0, "kubernetes")


def test_a_shorthand_is_overlaid_by_its_keys(read: Callable[..., Any]) -> None:
    """`scale: 2` is a min of 2, and stays one when an overlay gives a max."""
    scale = read(BASE, environment="dev").fleet.agents["a"].scale
    assert (scale.min, scale.max) == (2, 5)


def test_null_deletes(read: Callable[..., Any]) -> None:
    """A value, a key of a map, a whole agent."""
    over = "agents: {a: {scale: null, environment: {ONE: null}}, b: null}\n"
    base = BASE.replace("environments:", "  b: {command: x, port: 1}\nenvironments:")
    fleet = read(base, {"over.yaml": over}, paths=["shoal.yaml", "over.yaml"]).fleet
    assert list(fleet.agents) == ["a"]
    assert fleet.agents["a"].scale.max == 1
    assert fleet.agents["a"].environment == {"TWO": "2"}


def test_later_files_win_over_an_environment_of_earlier_ones(read: Callable[..., Any]) -> None:
    """-f shoal.yaml -f fix.yaml -e dev: the fix is last."""
    fleet = read(
        BASE, {"fix.yaml": "agents: {a: {scale: {max: 9}}}"}, paths=["shoal.yaml", "fix.yaml"], environment="dev"
    ).fleet
    assert fleet.agents["a"].scale.max == 9


def test_a_setting_comes_last(read: Callable[..., Any]) -> None:
    """`--set` is over everything, its value is YAML."""
    sets = ["agents.a.scale.max=7", "agents.a.idempotent=[HEAD]", "agents.a.environment.ONE=", "agents.a.health=/x"]
    agent = read(BASE, environment="dev", sets=sets).fleet.agents["a"]
    assert (agent.scale.max, agent.idempotent, agent.environment["ONE"]) == (7, ("HEAD",), "")
    assert agent.health.path == "/x"
    assert read(BASE, sets=['agents.a.placement.require."a.b/c"=d']).fleet.agents["a"].placement.require == {
        "a.b/c": "d"
    }


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("agents.a.port", "found no =; expected path=value, such as agents.a.scale.max=3"),
        ("agents.a.calls[0]=b", "a list is replaced whole (write path=[a, b])"),
        ("agents.aa.port=1", "there is no such agent (there are a)"),
        ("agents.a.prot=1", "there is no such key (did you mean `port`?)"),
        ("agents.a.port=x", "'x' is not a whole number; expected a number such as 8"),
        (".=1", "this is not a path; expected keys with dots between them"),
        ("agents.a.port={", "this is not YAML"),
    ],
)
def test_a_wrong_setting_is_named(refuse: Callable[..., list[str]], setting: str, problem: str) -> None:
    """Its place is the setting itself."""
    (found,) = refuse(BASE, sets=[setting])
    assert found.startswith(f"--set {setting}: ")
    assert problem in found


def test_an_unknown_environment_is_refused(refuse: Callable[..., list[str]]) -> None:
    """With the one that was likely meant."""
    assert refuse(BASE, environment="pord") == [
        "shoal.yaml:10:3: environments: there is no environment pord (did you mean prod?)"
    ]
    (problem,) = refuse("fleet: f\nagents: {a: {command: x, port: 1}}\n", environment="prod")
    assert problem == "shoal.yaml:1:1: environments: there is no environment prod (the file names none)"


def test_environments_that_are_not_chosen_have_right_keys(refuse: Callable[..., list[str]]) -> None:
    """What will be wrong tomorrow is said today; variables are not needed before."""
    text = BASE + "  test: {egnine: local, agents: {a: {image: '${NOT_SET}'}}}\n"
    assert refuse(text) == ["shoal.yaml:12:10: environments.test.egnine: there is no such key (did you mean `engine`?)"]


def test_errors_name_the_file_they_are_from(refuse: Callable[..., list[str]], tmp_path: Path) -> None:
    """An overlay's mistake is not the base's."""
    (tmp_path / "over").mkdir()
    problems = refuse(
        BASE, {"over/prod.yaml": "agents: {a: {port: 0, prot: 1}}\nenvironments: {}\n"}, environment="prod"
    )
    assert problems == [
        "over/prod.yaml:1:20: agents.a.port: found 0; expected at least 1",
        "over/prod.yaml:1:23: agents.a.prot: there is no such key (did you mean `port`?)",
        "over/prod.yaml:2:1: environments: a file of an environment can't have environments",
    ]


def test_the_fleet_gives_defaults_to_its_agents(read: Callable[..., Any]) -> None:
    """An image and variables; an agent's own win."""
    text = """\
fleet: f
image: base:1
environment: {A: fleet, B: fleet, C: fleet}
agents:
  a: {port: 1, env_file: [one.env, two.env], environment: [B=own]}
  b: {port: 2, image: "own:2"}
"""
    files = {"one.env": "C=one\nD=one\n", "two.env": "D='two'\n"}
    agents = read(text, files).fleet.agents
    assert agents["a"].environment == {"A": "fleet", "B": "own", "C": "one", "D": "two"}
    assert (agents["a"].image, agents["b"].image) == ("base:1", "own:2")


def test_a_missing_env_file_has_a_place(refuse: Callable[..., list[str]]) -> None:
    """The place that names it."""
    assert refuse("fleet: f\nagents: {a: {command: x, port: 1, env_file: no.env}}\n") == [
        "shoal.yaml:2:45: agents.a.env_file: there is no file no.env"
    ]


def test_dotenv_stands_below_the_process(read: Callable[..., Any]) -> None:
    """`.env` beside the first file, as in Compose."""
    text = "fleet: f\nagents: {a: {command: x, port: '${P}', environment: {A: $A, B: $B}}}\n"
    loaded = read(text, {".env": "A=file\nB=file\nP=81\n"}, variables={"A": "process"})
    agent = loaded.fleet.agents["a"]
    assert agent.environment == {"A": "process", "B": "file"}
    assert agent.port == 81
    assert str(loaded.origins.of(("agents", "a", "environment", "A"))) == "shoal.yaml:2:57 (A from environment)"
    assert str(loaded.origins.of(("agents", "a", "environment", "B"))) == "shoal.yaml:2:64 (B from .env)"


def test_a_variable_is_read_again_where_it_stood_without_quotes(read: Callable[..., Any]) -> None:
    """`${X}` can be a number or a truth; text stays as it was written, with its zeros."""
    text = """\
fleet: f
agents:
  a:
    command: x
    port: ${P:-81}
    stateful: ${S}
    environment:
      V: ${V}
"""
    agent = read(text, variables={"S": "true", "V": "1.10"}).fleet.agents["a"]
    assert (agent.port, agent.stateful, agent.environment) == (81, True, {"V": "1.10"})


def test_a_missing_variable_is_one_problem(refused_agent: Callable[..., list[str]]) -> None:
    """Nothing more is said of a value that can't be put together."""
    assert refused_agent("command: x, port: '${P}'") == [
        "agents.a.port: the variable P is not set (set it, or write ${P:-default})"
    ]


def test_every_value_knows_its_origin(read: Callable[..., Any], tmp_path: Path) -> None:
    """File, line and column, the setting, or the default; and what brought the file in."""
    (tmp_path / "over").mkdir()
    loaded = read(BASE, {"over/prod.yaml": PROD}, environment="prod", sets=["agents.a.port=7"])
    origins = {path: str(origin) for path, _, origin in loaded.origins.items(loaded.fleet.to_document())}
    assert origins["agents.a.port"] == "--set agents.a.port=7"
    assert origins["agents.a.scale.min"] == "shoal.yaml:6:12"
    assert origins["agents.a.command[1]"] == "shoal.yaml:4:14"
    assert origins["agents.a.stop_grace_period"] == "shoal.yaml:11:87"
    assert origins["agents.a.environment.THREE"] == "over/prod.yaml:1:51 (environment prod)"
    assert origins["agents.a.health.retries"] == "default"
    assert all(origins.values())


def test_keys_with_x_are_ignored(read: Callable[..., Any]) -> None:
    """Anywhere that Shoal names the keys; what people name may start with x- as well."""
    text = """\
x-common: &common {command: run, $NOT: read}
fleet: f
agents:
  a: {<<: *common, port: 1, x-note: $NOT_SET, health: {path: /h, x-y: 1}, placement: {require: {x-zone: a}}}
"""
    agent = read(text.replace("$NOT: read", "x-z: 1")).fleet.agents["a"]
    assert agent.placement.require == {"x-zone": "a"}
    assert agent.health.path == "/h"


def test_queues_and_the_broker_need_no_entry(read: Callable[..., Any]) -> None:
    """A queue that is consumed is made on the broker main; a name alone declares one too."""
    text = "fleet: f\nqueues: {other: }\nagents: {w: {command: x, queue: tasks}}\n"
    fleet = read(text).fleet
    assert list(fleet.queues) == ["other", "tasks"]
    assert fleet.queues["tasks"].broker == "main"
    assert list(fleet.brokers) == ["main"]


def test_a_queue_without_takers_is_a_warning(read: Callable[..., Any]) -> None:
    """It may be a slip, or another fleet's."""
    text = "fleet: f\nagents:\n  w: {command: x, queue: tasks}\n  a: {command: x, port: 1, publishes: [task]}\n"
    assert [str(warning) for warning in read(text).warnings] == [
        "shoal.yaml:4:40: agents.a.publishes[0]: nobody takes tasks from the queue task, and it is not under `queues` "
        "(did you mean tasks?)"
    ]


def test_a_port_of_nodes_that_clusters_do_not_give_is_a_warning(read: Callable[..., Any]) -> None:
    """No cluster is asked, and it may be set up otherwise; where the port is not used there is none."""
    text = "fleet: f\nengine: kubernetes\nagents: {a: {image: i, port: 1}}\nkubernetes: "
    (found,) = read(text + "{service: NodePort, node_port: 80}\n").warnings
    assert str(found).startswith("shoal.yaml:4:44: kubernetes.node_port: found 80; a cluster gives 30000 to 32767, and")
    for fine in ("{service: NodePort, node_port: 32767}", "{service: LoadBalancer}", "{node_port: 80}"):
        assert read(f"{text}{fine}\n").warnings == ()


def test_a_secret_s_variable_in_a_value_is_a_warning(read: Callable[..., Any]) -> None:
    """Wherever it is put in, it stands in clear. What no secret of an agent comes from is none."""
    text = (
        "fleet: f\n"
        "secrets: {KEY: {environment: OTHER}, FILED: {file: f}}\n"
        "agents:\n"
        "  a:\n"
        "    command: [x, '--key=${OTHER}', '${FILED}', '${KEY}']\n"
        "    port: 1\n"
        "    environment: {URL: 'db://u:${PASSWORD}@h', SHOWN: '${KEY}'}\n"
        "    env_file: web.env\n"
        "    secrets: [PASSWORD, KEY, FILED]\n"
    )
    variables = dict.fromkeys(("PASSWORD", "OTHER", "FILED", "KEY"), "v")
    found = read(text, {"web.env": "PASSWORD=v\nOPEN=1\n"}, variables=variables).warnings
    remedy = "leave it out, and give it by secrets: [{{name: {0}, as: env}}]"
    said = f"which the secret {{0}} holds, stands here in clear ({remedy})"
    assert [str(warning) for warning in found] == [
        f"shoal.yaml:5:18: agents.a.command[1]: the value of the variable OTHER, {said.format('KEY')}",
        f"shoal.yaml:7:24: agents.a.environment.URL: the value of the variable PASSWORD, {said.format('PASSWORD')}",
        f"web.env:1:1: agents.a.environment.PASSWORD: the value of the variable PASSWORD, {said.format('PASSWORD')}",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "shoal.yaml:1:1: the file is empty; expected a fleet"),
        ("[a]", "shoal.yaml:1:1: expected a mapping of keys to values"),
        ("text", "shoal.yaml:1:1: expected a mapping of keys to values"),
    ],
)
def test_a_file_without_a_fleet_is_refused(refuse: Callable[..., list[str]], content: str, message: str) -> None:
    """Whatever else it is."""
    assert message in refuse(content)


def test_files_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    """Missing, a directory, not UTF-8."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"fleet: \xe9\n")
    for path, message in (
        (tmp_path / "no.yaml", "there is no file"),
        (tmp_path, "can't be read"),
        (latin, "not UTF-8"),
    ):
        with pytest.raises(SpecError) as caught:
            load([path])
        assert message in str(caught.value)
