"""What replicas of the local engine are started with, as values."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.template import Template
from shoal.engines.local.capabilities import CAPABILITIES
from shoal.engines.local.gpus import Gpus, visible_devices
from shoal.engines.local.layout import Layout, file_name
from shoal.engines.local.render import (
    LEADER_NAME,
    LEADER_SCRIPT,
    Facts,
    exit_reason,
    render_argv,
    render_base,
    render_environment,
    render_leader,
    unmet_placement,
    wrong_port_reason,
)
from shoal.engines.protocol import Support
from shoal.errors import EngineError
from shoal.spec.model import Health, Kind, Placement, Resources


def template(*command: str, **environment: str) -> Template:
    return Template(
        agent="a", kind=Kind.SERVICE, image=None, command=command, working_dir=None, environment=environment,
        port=8000, protocol="http", health=Health(), resources=Resources(),
        placement=Placement(require={"disk": "ssd"}), stateful=False, volumes=("data:/data", "m:/m"), secrets=(),
        calls=(), queue=None, publishes=(), stop_grace_period_s=10.0,
    )  # fmt: skip


def test_run_time_variables_are_put_into_the_command() -> None:
    """`$PORT`, `${PORT}` and `$SHOAL_*`; every other dollar is the command's own."""
    words = ("run", "--port=$PORT", "${PORT}0", "$SHOAL_URL_B/x", "$HOME", "$PORTS", "$$", "${OTHER}", "a;b|c")
    environment = {"PORT": "81", "SHOAL_URL_B": "http://b", "HOME": "/root"}
    assert render_argv(template(*words), environment) == (
        "run", "--port=81", "810", "http://b/x", "$HOME", "$PORTS", "$$", "${OTHER}", "a;b|c",
    )  # fmt: skip


@given(st.lists(st.text().filter(lambda word: "$" not in word), min_size=1))
def test_what_has_no_variable_stays_as_it_is(words: list[str]) -> None:
    """Word by word: nothing is split, quoted or read by a shell."""
    assert render_argv(template(*words), {}) == tuple(words)


def test_a_variable_that_is_not_there_is_an_error() -> None:
    """Rather than an empty word."""
    with pytest.raises(EngineError, match=r"agents\.a\.command: \$SHOAL_URL_C is not set for this agent"):
        render_argv(template("x", "$SHOAL_URL_C"), {})


def test_the_base_holds_little_of_the_surrounding() -> None:
    """No credential of the shell reaches an agent by itself."""
    surrounding = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "/p"}
    assert render_base(surrounding, None) == {
        "PATH": "/bin",
        "HOME": "/h",
        "LC_ALL": "C",
        "PYTHONUNBUFFERED": "1",
    }


def test_the_projects_virtual_environment_comes_first() -> None:
    """Unless another is active."""
    base = render_base({"PATH": "/bin"}, Path("/p/.venv"))
    assert (base["PATH"], base["VIRTUAL_ENV"]) == ("/p/.venv/bin:/bin", "/p/.venv")
    base = render_base({"PATH": "/v/bin:/bin", "VIRTUAL_ENV": "/v"}, Path("/p/.venv"))
    assert (base["PATH"], base["VIRTUAL_ENV"]) == ("/v/bin:/bin", "/v")


def test_shoals_variables_win() -> None:
    """Over the agent's, which win over the base; secrets are not shown by repr."""
    facts = Facts("a-1", 2, 81, ("1", "3"), "/s", {"KEY": "s3cret"}, {"SHOAL_VOLUME_MY_DATA": "/v"})
    environment = render_environment({"LANG": "C"}, template("x", LANG="de", PORT="1"), {"SHOAL_URL_B": "u"}, facts)
    assert environment == {
        "LANG": "de", "KEY": "s3cret", "SHOAL_URL_B": "u", "SHOAL_REPLICA": "a-1", "PORT": "81", "SHOAL_ORDINAL": "2",
        "CUDA_VISIBLE_DEVICES": "1,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "SHOAL_SECRETS": "/s",
        "SHOAL_VOLUME_MY_DATA": "/v",
    }  # fmt: skip
    assert "s3cret" not in repr(facts)


def test_no_gpu_without_asking() -> None:
    """As in a container; who sets the variable knows better."""
    assert render_environment({}, template("x"), {}, Facts("a-1"))["CUDA_VISIBLE_DEVICES"] == ""
    mine = template("x", CUDA_VISIBLE_DEVICES="0")
    assert render_environment({}, mine, {}, Facts("a-1"))["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_command_is_the_leaders_arguments() -> None:
    """Names that a shell would drop are handed on by env(1)."""
    argv, environment = render_leader("/bin/x", ("x", "$(rm)"), {"A": "1", "b.c": "2"}, Path("/e"), Path("/d"))
    leader = ("/bin/sh", "-c", LEADER_SCRIPT, LEADER_NAME, "/e", "/d")
    assert argv == (*leader, "/usr/bin/env", "b.c=2", "/bin/x", "$(rm)")
    assert environment == {"A": "1"}
    assert render_leader("/bin/x", ("x",), {}, Path("/e"), Path("/d"))[0] == (*leader, "/bin/x")


def test_reasons_are_sentences() -> None:
    """Found, expected, remedy."""
    assert exit_reason(3) == "exit code 3"
    assert exit_reason(143) == "killed by SIGTERM (exit code 143)"
    assert exit_reason(255) == "exit code 255"
    assert "nobody knows how" in exit_reason(None)
    assert wrong_port_reason(81, (80, 82)) == "listens on 80, 82, expected 81: put $PORT into its command, or read PORT"
    assert unmet_placement(template("x"), {"disk": "ssd"}) is None
    assert unmet_placement(template("x"), {"disk": "hdd"}) == (
        "placement.require wants disk=ssd, this machine has disk=hdd (see local.labels)"
    )


def test_volumes() -> None:
    """Shared by name, save a stateful agent's."""
    layout = Layout(Path("/s"))
    assert layout.volume("a", "data", None) == Path("/s/volumes/shared/data")
    assert layout.volume("a", "data", 1) == Path("/s/volumes/owned/a/1/data")


@given(st.text(min_size=1))
def test_an_id_is_one_path_component(identity: str) -> None:
    """Whatever is in it."""
    name = file_name(identity)
    assert "/" not in name
    assert name not in {"", ".", ".."}
    assert "\0" not in name


def test_gpus_have_one_holder() -> None:
    """Taken in order, given back as a whole."""
    gpus = Gpus(visible_devices(2, None))
    assert gpus.take("a-1", 1) == ("0",)
    assert gpus.take("a-2", 2) is None
    assert gpus.shortage(2) == "needs 2 GPUs, 1 of 2 is free; in use by a-1"
    assert gpus.take("a-3", 1) == ("1",)
    gpus.release("a-1")
    assert gpus.take("a-2", 1) == ("0",)


def test_a_shortage_of_one_gpu() -> None:
    """Is told in the singular."""
    assert Gpus(()).shortage(1) == "needs 1 GPU, this machine has 0 (see local.gpus)"


def test_visible_devices_bound_what_is_handed_out() -> None:
    """Who runs Shoal may have been given a part of the machine."""
    assert visible_devices(None, "2, 5") == ("2", "5")
    assert visible_devices(1, "2,5") == ("2",)
    assert visible_devices(3, None) == ("0", "1", "2")
    assert visible_devices(None, "") == ()


def test_what_is_not_native_is_explained() -> None:
    """`plan` prints the note."""
    for feature, ability in CAPABILITIES.table.items():
        assert ability.note or ability.support in {Support.NATIVE, Support.BY_SHOAL}, feature
