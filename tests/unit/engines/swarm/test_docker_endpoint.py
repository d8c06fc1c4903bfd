"""Which Docker is meant is found as the docker command finds it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shoal.engines.swarm.docker import find_endpoint
from shoal.engines.swarm.docker.connection import render_ssh
from shoal.engines.swarm.docker.endpoint import Endpoint
from shoal.errors import EngineError


def make_context(docker: Path, name: str, host: str, *, files: tuple[str, ...] = (), skip_verify: bool = False) -> None:
    """As `docker context create` writes it."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = docker / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": host, "SkipTLSVerify": skip_verify}}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
    if files:
        tls = docker / "contexts" / "tls" / digest / "docker"
        tls.mkdir(parents=True)
        for file in files:
            (tls / file).touch()


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home has the contexts `lab` and `edge`, of which `edge` is the current one."""
    docker = tmp_path / ".docker"
    make_context(docker, "lab", "tcp://10.0.0.1:2376", files=("ca.pem", "cert.pem", "key.pem"))
    make_context(docker, "edge", "ssh://me@edge")
    (docker / "config.json").write_text('{"currentContext": "edge", "auths": {}}')
    return {"HOME": str(tmp_path)}


def test_without_a_word_it_is_the_socket_of_this_machine(tmp_path: Path):
    found = find_endpoint(None, {"HOME": str(tmp_path)})
    assert (found.host, found.tls) == ("unix:///var/run/docker.sock", None)


def test_a_context_that_is_named_goes_before_everything(home: dict[str, str]):
    environ = home | {"DOCKER_HOST": "tcp://other:1", "DOCKER_CONTEXT": "edge"}
    assert find_endpoint("lab", environ).host == "tcp://10.0.0.1:2376"


def test_docker_host_goes_before_docker_context(home: dict[str, str]):
    """So it is in the docker command, though its documentation is read otherwise by many."""
    found = find_endpoint(None, home | {"DOCKER_HOST": "tcp://other:1", "DOCKER_CONTEXT": "lab"})
    assert (found.host, found.said_by) == ("tcp://other:1", "DOCKER_HOST")


def test_docker_context_goes_before_the_current_context(home: dict[str, str]):
    assert find_endpoint(None, home | {"DOCKER_CONTEXT": "lab"}).host == "tcp://10.0.0.1:2376"


def test_the_current_context_is_the_last_before_the_default(home: dict[str, str]):
    found = find_endpoint(None, home)
    assert found.host == "ssh://me@edge"
    assert "config.json" in found.said_by


def test_the_context_default_is_what_the_environment_says(home: dict[str, str]):
    assert find_endpoint("default", home | {"DOCKER_HOST": "tcp://other:1"}).host == "tcp://other:1"


def test_docker_config_is_another_directory(home: dict[str, str], tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    make_context(elsewhere, "far", "tcp://far:2375")
    assert find_endpoint("far", home | {"DOCKER_CONFIG": str(elsewhere)}).host == "tcp://far:2375"


def test_a_context_brings_its_certificates(home: dict[str, str]):
    tls = find_endpoint("lab", home).tls
    assert tls is not None
    assert [file.name for file in (tls.ca, tls.certificate, tls.key) if file] == ["ca.pem", "cert.pem", "key.pem"]
    assert tls.verify


def test_a_context_may_leave_the_daemon_unchecked(tmp_path: Path):
    make_context(tmp_path, "lax", "tcp://lax:2376", skip_verify=True)
    tls = find_endpoint("lax", {"DOCKER_CONFIG": str(tmp_path)}).tls
    assert tls is not None
    assert not tls.verify


@pytest.mark.parametrize(("variable", "verify"), [("DOCKER_TLS_VERIFY", True), ("DOCKER_TLS", False)])
def test_variables_turn_tls_on(tmp_path: Path, variable: str, verify: bool):
    (tmp_path / "ca.pem").touch()
    environ = {"DOCKER_HOST": "tcp://far", "DOCKER_CERT_PATH": str(tmp_path), variable: "1"}
    found = find_endpoint(None, environ)
    assert found.tls is not None
    assert (found.tls.ca, found.tls.certificate, found.tls.verify) == (tmp_path / "ca.pem", None, verify)
    assert found.address == ("far", 2376)


def test_ports_are_those_of_docker():
    assert Endpoint("tcp://far").address == ("far", 2375)
    assert Endpoint("tcp://[::1]:99").address == ("::1", 99)


def test_an_unknown_context_names_those_that_there_are(home: dict[str, str]):
    with pytest.raises(
        EngineError, match=r"no Docker context 'laab'.*known: default, edge, lab.*docker context create"
    ):
        find_endpoint("laab", home)


@pytest.mark.parametrize("host", ["npipe:////./pipe/docker", "10.0.0.1:2375", "tcp://far:port"])
def test_what_is_no_host_says_who_said_it(tmp_path: Path, host: str):
    with pytest.raises(EngineError, match=r"^DOCKER_HOST: .* is no Docker host"):
        find_endpoint(None, {"HOME": str(tmp_path), "DOCKER_HOST": host})


def test_a_broken_file_is_named(home: dict[str, str], tmp_path: Path):
    (tmp_path / ".docker" / "config.json").write_text("{")
    with pytest.raises(EngineError, match=r"config\.json: can't be read"):
        find_endpoint(None, home)


def test_tls_files_that_are_none_are_named(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("nothing")
    environ = {"DOCKER_HOST": "tcp://far", "DOCKER_CERT_PATH": str(tmp_path), "DOCKER_TLS_VERIFY": "1"}
    tls = find_endpoint(None, environ).tls
    assert tls is not None
    with pytest.raises(EngineError, match=r"TLS files can't be used: .*ca\.pem"):
        tls.context()


def test_ssh_is_called_as_the_docker_command_calls_it():
    argv = render_ssh(Endpoint("ssh://me@edge:2222"))
    assert argv[:5] == ["ssh", "-l", "me", "-p", "2222"]
    assert argv[argv.index("--") :] == ["--", "edge", "docker", "system", "dial-stdio"]
    assert render_ssh(Endpoint("ssh://edge/run/d.sock"))[-5:] == [
        "docker", "--host", "unix:///run/d.sock", "system", "dial-stdio",
    ]  # fmt: skip
