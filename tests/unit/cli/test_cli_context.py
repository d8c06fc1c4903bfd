"""`shoal context`: what is kept of a fleet elsewhere, and how a teammate gets to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.api.certificates import Remote
from shoal.api.client import socket_path
from shoal.cli.contexts import FleetContext, load_context, remote_client, save_context
from shoal.errors import ShoalError
from shoal.pki import Authority, Credentials, Identity, JoinToken
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import FakeController, serve

FLEET = Authority.create("warehouse", time.time())
LIFE_S = 3600.0


def issue(name: str = "ann", *, age_s: float = 0.0, authority: Authority = FLEET, role: str = "client") -> Identity:
    return authority.issue(role, name, now=time.time() - age_s, ttl_s=LIFE_S)  # pyright: ignore[reportArgumentType]


def context(identity: Identity | None = None, port: int = 7444) -> FleetContext:
    return FleetContext("warehouse", "swarm", "lab", (f"127.0.0.1:{port}",), (identity or issue()).pem)


@pytest.fixture
def port(directory: Path) -> Iterator[int]:
    """Where the fleet `warehouse` answers over the network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = Credentials(FLEET.issue("controller", "one", now=time.time(), ttl_s=LIFE_S))
    remote = Remote("127.0.0.1", port, own, FLEET, JoinToken.create(FLEET.certificate_pem), LIFE_S)
    with serve(FakeController(), socket_path(directory), remote):
        yield port


def test_what_is_saved_comes_back_and_is_for_its_owner_alone(home: Path) -> None:
    """One file a fleet; its key is not in what is logged."""
    assert load_context(os.environ, "warehouse") is None
    saved = context()
    save_context(os.environ, replace(saved, docker_context=None))
    save_context(os.environ, saved)
    assert load_context(os.environ, "warehouse") == saved
    path = home.parent / "state" / ".contexts" / "warehouse.json"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [each.name for each in path.parent.iterdir()] == ["warehouse.json"]
    assert "PRIVATE" not in repr(saved)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "no context of a fleet that this version knows"),
        ("{", "is no context of a fleet"),
        ('{"form": "shoal-context-9"}', "found the form 'shoal-context-9'"),
        ('{"form": "shoal-context-1", "fleet": "../x"}', "fleet: found '../x'"),
        ('{"form": "shoal-context-1", "fleet": "x", "engine": 1}', "engine"),
        ('{"form": "shoal-context-1", "fleet": "x", "engine": "swarm", "addresses": []}', "addresses"),
    ],
)
def test_what_is_no_context_is_told(home: Path, run: Run, text: str, why: str) -> None:
    """And nothing is stored, here or elsewhere."""
    (home / "given").write_text(text)
    done = run("context", "import", "given")
    assert done.code == 1
    assert why in done.err
    assert not (home.parent / "state").exists()


def test_a_teammate_is_given_a_certificate_of_his_own(
    home: Path, port: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported by one, imported by the other, who then asks the fleet by his own name and key."""
    save_context(os.environ, context(port=port))
    done = run("context", "export", "warehouse", "--name", "bob", "--life", "2h")
    assert done.code == 0, done.err
    file = home / "warehouse-bob.context"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "is there already" in run("context", "export", "warehouse", "--name", "bob").err
    monkeypatch.setenv("SHOAL_HOME", str(home.parent / "bobs"))
    assert run("context", "import", file.name).code == 0
    (row,) = json.loads(run("context", "list", "-o", "json").out)
    assert (row["fleet"], row["name"], row["docker_context"]) == ("warehouse", "bob", "lab")
    assert row["expires_at"] == pytest.approx(time.time() + 7200, abs=60)
    taken = load_context(os.environ, "warehouse")
    assert taken is not None
    assert asyncio.run(remote_client(os.environ, taken).status()).fleet == "warehouse"
    shown = run("context", "list").out.splitlines()
    assert [line.split()[:3] for line in shown] == [["FLEET", "ENGINE", "YOU"], ["warehouse", "swarm", "bob"]]


def test_use_renews_what_is_kept(home: Path, port: int) -> None:
    """Without a word."""
    due = context(issue(age_s=0.7 * LIFE_S), port)
    save_context(os.environ, due)
    asyncio.run(remote_client(os.environ, due).status())
    renewed = load_context(os.environ, "warehouse")
    assert renewed is not None
    before, after = (Identity.parse(each.identity).peer for each in (due, renewed))
    assert after.name == before.name and after.expires_at > before.expires_at + 1000
    assert replace(renewed, identity="") == replace(due, identity="")


def test_imports_that_are_refused(home: Path, run: Run) -> None:
    """Expired, of another fleet than it says, of a gateway, in the place of another fleet of that name."""
    other = Authority.create("other", time.time())
    twin = Authority.create("warehouse", time.time())
    for identity, why in (
        (issue(age_s=LIFE_S + 1), "its certificate has expired"),
        (issue(authority=other), "client ann of fleet other"),
        (issue(role="gateway"), "expected that of a client"),
    ):
        (home / "given").write_text(json.dumps(_values(context(identity))))
        done = run("context", "import", "given")
        assert done.code == 1
        assert why in done.err
    save_context(os.environ, context())
    (home / "given").write_text(json.dumps(_values(context(issue(authority=twin)))))
    assert "another fleet of the name warehouse" in run("context", "import", "given").err
    assert "can't be read" in run("context", "import", "absent").err


def _values(given: FleetContext) -> dict[str, object]:
    values = {key: getattr(given, key) for key in ("fleet", "engine", "docker_context", "addresses", "identity")}
    return {"form": "shoal-context-1", **values}


def test_what_is_not_there_is_told_with_what_is(home: Path, run: Run) -> None:
    """`list` of nothing says how there comes to be something; `remove` forgets one."""
    done = run("context", "list")
    assert done.code == 0
    assert "shoal up" in done.err
    save_context(os.environ, context())
    for arguments in (("export", "lake", "--name", "bob"), ("remove", "lake")):
        assert "no context for fleet 'lake'; there are: warehouse" in run("context", *arguments).err
    assert run("context", "remove", "warehouse").code == 0
    assert load_context(os.environ, "warehouse") is None


def test_a_place_that_can_not_be_written_is_told(home: Path) -> None:
    (home.parent / "state").write_text("a file")
    with pytest.raises(ShoalError, match="can't be written"):
        save_context(os.environ, context())
