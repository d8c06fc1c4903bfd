"""What is shown to the API server: tokens from files that somebody renews, and from programs of every version."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from api_server import Answer, ApiServer, listen

from shoal.engines.kubernetes.api import Access, Kubernetes, credentials
from shoal.engines.kubernetes.api.credentials import ExecPlugin, FileToken
from shoal.engines.kubernetes.api.kinds import POD
from shoal.errors import EngineError

V1, V1BETA1 = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
START = 1767225600.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`now` is what the clocks say: epoch seconds."""
    clock = SimpleNamespace(now=START)
    clock.time = clock.monotonic = lambda: clock.now
    monkeypatch.setattr(credentials, "time", clock)
    return clock


class Plugin:
    """A program beside the kubeconfig that gives `status`, notes each of its runs, and ends with `code`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.script = directory / "login"
        self.script.write_text(f"""#!{sys.executable}
import json, os, pathlib, sys
here = pathlib.Path({str(directory)!r})
noted = {{"arguments": sys.argv[1:], "told": json.loads(os.environ["KUBERNETES_EXEC_INFO"]),
         "region": os.environ.get("REGION"), "input": sys.stdin.read()}}
with (here / "runs").open("a") as runs:
    runs.write(json.dumps(noted) + "\\n")
sys.stderr.write("no such profile")
sys.stdout.write((here / "output").read_text())
sys.exit(int((here / "code").read_text()))
""")
        self.script.chmod(self.script.stat().st_mode | stat.S_IXUSR)
        self.gives({"token": "t1"})

    def gives(self, status: Mapping[str, Any], code: int = 0) -> None:
        self.prints(json.dumps({"kind": "ExecCredential", "status": status}), code)

    def prints(self, text: str, code: int = 0) -> None:
        (self._directory / "output").write_text(text)
        (self._directory / "code").write_text(str(code))

    @property
    def runs(self) -> list[dict[str, Any]]:
        file = self._directory / "runs"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def made(self, version: str = V1, **more: Any) -> ExecPlugin:
        plugin = {"apiVersion": version, "command": "./login", **more}
        return ExecPlugin(self._directory / "config", "me", plugin, {"REGION": "x"}, {"server": "https://k"})


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_file_is_read_again(tmp_path: Path, time: SimpleNamespace) -> None:
    """Every minute, and at once where it was refused."""
    file = tmp_path / "token"
    file.write_text("one\n")
    token = FileToken(file)
    assert await token.authorization(None) == "Bearer one"
    file.write_text("two\n")
    time.now += 59
    assert await token.authorization(None) == "Bearer one"
    time.now += 2
    assert await token.authorization(None) == "Bearer two"
    file.write_text("three\n")
    assert token.refused() and await token.authorization(None) == "Bearer three"
    file.unlink()
    assert token.refused()
    with pytest.raises(EngineError, match=f"the token at {file} can't be read: No such file"):
        await token.authorization(None)


@pytest.mark.parametrize("version", [V1, V1BETA1])
async def test_a_plugin_is_asked_in_its_version(plugin: Plugin, version: str) -> None:
    """With its arguments and variables, and with the cluster where it wants to know; it can't ask back."""
    asked = plugin.made(
        version, args=["get-token", 7], env=[{"name": "REGION", "value": "eu"}], provideClusterInfo=True
    )
    assert await asked.authorization(None) == "Bearer t1"
    (run,) = plugin.runs
    told = {"interactive": False, "cluster": {"server": "https://k"}}
    assert run == {
        "arguments": ["get-token", "7"],
        "told": {"apiVersion": version, "kind": "ExecCredential", "spec": told},
        "region": "eu",
        "input": "",
    }


async def test_what_a_plugin_gave_is_kept_as_long_as_it_holds(plugin: Plugin, time: SimpleNamespace) -> None:
    """A little less, so that it still does when it arrives; what never says so holds until it is refused."""
    plugin.gives({"token": "t1", "expirationTimestamp": stamp(START + 600)})
    asked = plugin.made()
    assert await asked.authorization(None) == "Bearer t1"
    plugin.gives({"token": "t2"})
    time.now += 500
    assert await asked.authorization(None) == "Bearer t1"
    time.now += 75
    assert await asked.authorization(None) == "Bearer t2"
    time.now += 1e6
    assert await asked.authorization(None) == "Bearer t2" and len(plugin.runs) == 2
    assert asked.refused()
    await asked.authorization(None)
    assert len(plugin.runs) == 3


async def test_who_is_refused_asks_the_plugin_again(plugin: Plugin) -> None:
    """Once: a token may have been taken back."""
    refused, fine = Answer({"message": "Unauthorized"}, 401), Answer({"metadata": {}, "items": []})
    server = ApiServer({"GET /api/v1/namespaces/shop/pods": [refused, fine]})
    async with listen(server) as url, Kubernetes(Access(url, None, plugin.made()), "shop") as kubernetes:
        await kubernetes.list(POD)
    assert len(plugin.runs) == 2 and len(server.asked) == 2


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("{}", 3, "login ended with exit code 3: no such profile"),
        ("nonsense", 0, "is no ExecCredential"),
        ('{"kind": "ExecCredential"}', 0, "is no ExecCredential"),
        ('{"status": null}', 0, "is no ExecCredential"),
        ('{"status": {}}', 0, "found neither a token nor a certificate"),
        ('{"status": {"token": "t", "expirationTimestamp": "soon"}}', 0, "can't be used: .*soon"),
    ],
)
async def test_a_plugin_that_gives_nothing(plugin: Plugin, output: str, code: int, said: str) -> None:
    """Whose it is, and what it said; the next request asks it again."""
    plugin.prints(output, code)
    asked = plugin.made()
    for _ in range(2):
        with pytest.raises(EngineError, match=rf"config: user me: .*{said}"):
            await asked.authorization(None)
    plugin.gives({"token": "t"})
    assert await asked.authorization(None) == "Bearer t"


async def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    """What the kubeconfig says of how to get it is passed on."""
    told = {"apiVersion": V1, "command": "no-such-login", "installHint": "brew install login"}
    asked = ExecPlugin(tmp_path / "config", "me", told, {"PATH": str(tmp_path)}, {})
    with pytest.raises(EngineError, match="no-such-login can't be run: No such file or directory; brew install login"):
        await asked.authorization(None)


def test_a_plugin_of_a_version_that_is_not_known(plugin: Plugin) -> None:
    """Both that are, are named."""
    with pytest.raises(
        EngineError, match=r"found a credential plugin of .*/v1alpha1, expected one of .*/v1, .*/v1beta1"
    ):
        plugin.made("client.authentication.k8s.io/v1alpha1")


async def test_a_plugin_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended."""
    monkeypatch.setattr(credentials, "_PLUGIN_S", 0.0)
    told = {"apiVersion": V1, "command": "sleep", "args": ["1000"]}
    asked = ExecPlugin(tmp_path / "config", "me", told, {"PATH": "/usr/bin:/bin"}, {})
    with pytest.raises(EngineError, match="sleep gave no credentials within 0s"):
        await asked.authorization(None)
    assert not [each for each in psutil.Process().children() if each.name() == "sleep"]
