"""The commands that read the file: every error at once, in the form that editors know, and what `up` would change."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import click
import pytest
import yaml

from shoal.cli.local.place import LocalPlace
from shoal.cli.stored_fleet import read_stored, write_stored
from shoal.control.secret_contents import SecretContents
from shoal.control.store import SecretRecord
from shoal.spec import load
from tests.unit.cli.conftest import Run

TEXT = """\
fleet: warehouse
agents:
  ingest:
    command: [ingest, --port, $PORT]
    port: 8000
    scale: {min: 1, max: "${MOST:-8}"}
    calls: [stock]
  stock:
    command: stock --fast
    port: 8001
environments:
  big: {agents: {ingest: {scale: {max: 90}}}}
  far: {engine: kubernetes}
"""


@pytest.fixture
def file(home: Path, directory: Path) -> Path:
    """A good file, where the command stands."""
    (home / "shoal.yaml").write_text(TEXT)
    return home / "shoal.yaml"


def test_a_good_file(file: Path, run: Run) -> None:
    """Valid is exit code 0."""
    done = run("validate")
    assert (done.code, done.out) == (0, "warehouse: 2 agents on the local engine, no errors\n")
    assert json.loads(run("validate", "-o", "json").out)["valid"] is True


def test_every_error_at_once_where_it_is(file: Path, run: Run) -> None:
    """`file:line:column: ` begins the line, as compilers have it."""
    file.write_text(TEXT.replace("port: 8000", "port: no").replace("calls: [stock]", "calls: [stokc]"))
    done = run("validate")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[0].startswith("shoal.yaml:5:11: agents.ingest.port: ")
    assert done.err.splitlines()[-1] == "2 errors"
    problems = json.loads(run("validate", "-o", "json").out)["problems"]
    assert [(each["file"], each["line"], each["path"]) for each in problems] == [
        ("shoal.yaml", 5, "agents.ingest.port"),
        ("shoal.yaml", 7, "agents.ingest.calls[0]"),
    ]


def test_no_file(home: Path, run: Run) -> None:
    """The remedy is in the error."""
    done = run("validate")
    assert done.code == 1
    assert "shoal init" in done.err


def test_init_writes_what_is_valid_and_nothing_over(home: Path, run: Run) -> None:
    """What it writes is a fleet; what is there stays unless --force is given."""
    assert run("init").code == 0
    assert run("validate").code == 0
    (home / "shoal.yaml").write_text("mine")
    assert run("init").code == 1
    assert (home / "shoal.yaml").read_text() == "mine"
    assert run("init", "--force").code == 0
    assert run("validate").code == 0


def test_config_is_the_fleet(file: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays, variables and --set are in it; an environment may be named before or after the command."""
    monkeypatch.setenv("MOST", "12")
    assert yaml.safe_load(run("config").out)["agents"]["ingest"]["scale"]["max"] == 12
    for arguments in (["-e", "big", "config"], ["config", "-e", "big", "-o", "json"]):
        assert yaml.safe_load(run(*arguments).out)["agents"]["ingest"]["scale"]["max"] == 90
    both = run("--set", "agents.stock.port=1", "config", "--set", "agents.ingest.port=2", "-o", "json").out
    assert [json.loads(both)["agents"][name]["port"] for name in ("ingest", "stock")] == [2, 1]
    assert run("config", "--set", "nothing").code == 2


def test_config_says_where_a_value_came_from(file: Path, run: Run) -> None:
    """The annotated document is the same document."""
    done = run("config", "--origin", "-e", "big")
    assert yaml.safe_load(done.out) == yaml.safe_load(run("config", "-e", "big").out)
    port, most, least = (
        next(line for line in done.out.splitlines() if line.split()[:2] == start)
        for start in (["port:", "8000"], ["max:", "90"], ["protocol:", "http"])
    )
    assert port.endswith("# shoal.yaml:5:11")
    assert "# shoal.yaml:12:" in most
    assert least.endswith("# default")
    listed = json.loads(run("config", "--origin", "-o", "json").out)
    assert {"path": "agents.stock.port", "value": 8001, "origin": "shoal.yaml:10:11"} in listed


@pytest.mark.parametrize("more", [[], ["--origin"], ["-o", "json"]])
def test_config_can_be_given_to_up(home: Path, run: Run, more: list[str]) -> None:
    """What it shows is a file of the same fleet, however its texts look."""
    texts = {
        "DOLLAR": "$HOME ${A}",
        "LINES": "one\n\n two: #3\n",
        "BELL": "\a",
        "ODD": "é 🐟 'no' \"x\"",
        "NO": "no",
        "N": "",
    }
    (home / "shoal.yaml").write_text(
        yaml.safe_dump({
            "fleet": "one",
            "agents": {
                "no": {
                    "command": "run $PORT $$$$ ${SHOAL_A}",
                    "port": 1,
                    "environment": {key: text.replace("$", "$$") for key, text in texts.items()},
                },
                "images": {"command": ["x"], "queue": "tasks", "stateful": True, "volumes": ["a:/b"]},
                "night": {"command": ["x"], "schedule": "0 2 * * *"},
            },
        })
    )  # fmt: skip
    (home / "again.yaml").write_text(run("config", *more).out, encoding="utf-8")
    fleet = load([home / "again.yaml"]).fleet
    assert fleet == load([home / "shoal.yaml"]).fleet
    assert fleet.agents["no"].environment == texts
    assert run("validate", "-f", "again.yaml").code == 0


def test_schema(run: Run) -> None:
    """A JSON Schema on stdout."""
    assert json.loads(run("schema").out)["$schema"].startswith("https://json-schema.org/")


def test_files_are_laid_over_each_other(file: Path, run: Run) -> None:
    """Repeated -f, as with Compose."""
    (file.parent / "more.yaml").write_text("agents: {stock: {port: 9000}}\n")
    out = run("-f", "shoal.yaml", "config", "-f", "more.yaml", "-o", "json").out
    assert json.loads(out)["agents"]["stock"]["port"] == 9000


def test_plan_compares_with_what_is_stored(file: Path, directory: Path, run: Run) -> None:
    """`--detailed-exitcode` tells none, error and changes apart; a plan makes no state."""
    done = run("plan", "--detailed-exitcode")
    assert done.code == 2
    assert "Plan: 2 create." in done.out
    assert not directory.exists()
    asyncio.run(write_stored(LocalPlace(directory, "warehouse"), load([file]).fleet, str(file.parent), 0))
    done = run("plan", "--detailed-exitcode")
    assert (done.code, done.out.splitlines()[-1]) == (0, "No changes.")
    done = run("plan", "--detailed-exitcode", "-e", "big", "-o", "json")
    assert done.code == 2
    assert json.loads(done.out)["changes"] == [
        {
            "agent": "ingest",
            "kind": "service",
            "class": "live",
            "fields": [{"path": "scale.max", "old": 8, "new": 90}],
        }
    ]
    assert run("plan", "-e", "big").code == 0
    assert run("plan", "stock", "-e", "big", "--detailed-exitcode").code == 0
    assert run("plan", "nobody", "--detailed-exitcode").code == 1


def test_an_engine_without_an_image(file: Path, run: Run) -> None:
    """It is said before anything is done, with the way out."""
    done = run("plan", "-e", "far")
    assert done.code == 1
    assert (
        "found no image (give it an `image`, or the whole fleet: in a cluster agents are started from one)" in done.err
    )


def test_secrets_come_from_the_environment(
    file: Path, directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret without a value is an error of the plan; a changed one is a change; its value is shown nowhere."""
    file.write_text(TEXT.replace("port: 8001", "port: 8001\n    secrets: [{name: STOCK_TOKEN, as: env}]"))
    done = run("plan")
    assert done.code == 1
    assert "the secret STOCK_TOKEN has no value (set the variable STOCK_TOKEN" in done.err
    assert not directory.exists()
    assert "\nshoal.yaml:11:" in done.err
    (file.parent / ".env").write_text("STOCK_TOKEN=from-the-file\n")
    assert run("plan").code == 0
    monkeypatch.setenv("STOCK_TOKEN", "s3cret-one")
    contents = SecretContents(directory)
    record = SecretRecord(contents.put(b"s3cret-one"), 1.0, "ann")
    asyncio.run(
        write_stored(
            LocalPlace(directory, "warehouse"), load([file]).fleet, str(file.parent), 0, {"STOCK_TOKEN": record}
        )
    )
    stored = directory / "secrets" / record.digest
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    assert run("plan", "--detailed-exitcode").code == 0
    monkeypatch.setenv("STOCK_TOKEN", "s3cret-two")
    done = run("plan", "--detailed-exitcode")
    assert done.code == 2
    assert "secrets.STOCK_TOKEN" in done.out
    assert "s3cret" not in done.out + done.err
    assert b"s3cret" not in b"".join(path.read_bytes() for path in directory.glob("state.db*"))


def test_the_plan_is_coloured_by_its_signs(file: Path, run: Run) -> None:
    """Without colour the signs say the same."""
    from shoal.cli.plan import colour_plan
    from shoal.core.plan import make_plan
    from shoal.core.plan_text import format_plan
    from shoal.engines.local.capabilities import CAPABILITIES

    fleet = load([file], variables=os.environ).fleet
    made = make_plan(None, fleet, CAPABILITIES)
    assert click.unstyle(colour_plan(made)) == format_plan(made)
    assert click.style("  + ingest (service): create", fg="green") in colour_plan(made)


def test_what_is_stored_comes_back(file: Path, directory: Path) -> None:
    """Who stored it is named, for the next one's conflict."""
    fleet = load([file]).fleet
    assert asyncio.run(read_stored(LocalPlace(directory, "warehouse"))) is None
    assert asyncio.run(write_stored(LocalPlace(directory, "warehouse"), fleet, "/project", 0)) == 1
    stored = asyncio.run(read_stored(LocalPlace(directory, "warehouse")))
    assert stored is not None
    assert (stored.fleet, stored.directory) == (fleet, "/project")
    assert f"process {os.getpid()}" in stored.by


def test_validate_says_what_the_engine_cannot_run(home: Path, run: Run) -> None:
    """With its place, as `plan` does."""
    (home / "shoal.yaml").write_text("fleet: shop\nagents:\n  web: {image: nginx, port: 80}\n")
    for command in ("validate", "plan"):
        done = run(command)
        assert done.code == 1
        assert "shoal.yaml:3:" in done.err
        assert "agents.web: found the image nginx and no command" in done.err
    (home / "shoal.yaml").write_text("fleet: shop\nengine: kubernetes\nagents:\n  web: {command: serve, port: 80}\n")
    for command in ("validate", "plan"):
        assert "shoal.yaml:4:8: agents.web: found no image" in run(command).err


def test_volumes_called_as_those_of_an_identity(home: Path, run: Run) -> None:
    """On Kubernetes a shared volume and a replica's own would be one claim."""
    agents = [
        "stock: {image: i, command: serve, port: 80, stateful: true, volumes: ['data:/data']}",
        "web: {image: i, command: serve, port: 80, volumes: ['data-stock-0:/a', 'data-stock-x:/b', 'data-stock:/c']}",
        "job: {image: i, command: work, schedule: '0 2 * * *', volumes: ['state-shoal-broker-2:/a']}",
    ]
    (home / "shoal.yaml").write_text("\n  ".join(["fleet: shop\nengine: kubernetes\nagents:", *agents, ""]))
    done = run("validate")
    assert done.code == 1 and done.err.count("give this volume another name") == 2
    assert "agents.web.volumes[0]: on Kubernetes data-stock-0 is what the volume of a replica of agents.st" in done.err
    assert "agents.job.volumes[0]: on Kubernetes state-shoal-broker-2 is what the volume of a replica of t" in done.err
    assert run("validate", "--set", "engine=swarm").code == 0


def test_what_no_pod_of_an_agent_can_have(home: Path, run: Run) -> None:
    """A name of a user, a variable that the command is not given: told with its place, and of all agents at once."""
    agents = [
        "web: {image: i, command: serve, port: 80, user: root}",
        "stock: {image: i, command: serve, port: 80, user: '1000:staff'}",
        "ask: {image: i, command: [serve, '$$SHOAL_ORDINAL'], port: 80}",
        "fine: {image: i, command: serve, port: 80, user: 1000:1000}",
    ]
    (home / "shoal.yaml").write_text("\n  ".join(["fleet: shop\nengine: kubernetes\nagents:", *agents, ""]))
    for command in ("validate", "plan", "render"):
        done = run(command)
        assert done.code == 1 and "3 errors" in done.err
        assert "shoal.yaml:4:51: agents.web.user: found root; on Kubernetes a user and a group are num" in done.err
        assert "shoal.yaml:5:53: agents.stock.user: found 1000:staff; on Kubernetes" in done.err
        assert "shoal.yaml:6:28: agents.ask.command: $SHOAL_ORDINAL is not a variable that this agent is" in done.err


def test_agents_called_as_shoals_own(home: Path, run: Run) -> None:
    """Where they would meet: on Kubernetes, and there all of them at once; elsewhere they may be called so."""
    agents = "".join(
        f"  {name}: {{image: i, command: serve, port: 80}}\n" for name in ("shoal", "shoal-gateway", "shoals")
    )
    (home / "shoal.yaml").write_text(f"fleet: shop\nagents:\n{agents}environments:\n  far: {{engine: kubernetes}}\n")
    assert run("validate").code == run("validate", "--set", "engine=swarm").code == 0
    for command in ("validate", "plan"):
        done = run(command, "-e", "far")
        assert done.code == 1 and done.err.count("choose a name that is not `shoal`") == 2
        assert "shoal.yaml:3:10: agents.shoal: " in done.err and "shoal.yaml:4:18: agents.shoal-gateway: " in done.err
