"""Where the gateway listens: what keeps it from that is told by its cause."""

import errno
import socket
from pathlib import Path

import pytest

from shoal.engines.local import addresses
from shoal.engines.local.addresses import Addresses
from shoal.errors import EngineError

NOWHERE = "192.0.2.1"  # kept for documentation (RFC 5737)


def choose(tmp_path: Path, port: int, bind: str = "127.0.0.1") -> int:
    chosen = Addresses(tmp_path / "ports.json")
    chosen.choose(port, bind, [], gateway_runs=False, broker_runs=False)
    return chosen.public


@pytest.mark.parametrize("port", [18093, 0])
def test_an_address_that_the_machine_has_not(tmp_path: Path, port: int) -> None:
    """Is no matter of the port."""
    with pytest.raises(EngineError, match=f"^local.bind: this machine has no address {NOWHERE}; expected one that"):
        choose(tmp_path, port, NOWHERE)


def test_a_port_that_somebody_has(tmp_path: Path) -> None:
    """Is told with who has it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineError, match=f"^local.port: {port} is used by .*; stop it, or set local.port to"):
            choose(tmp_path, port)


def test_a_port_that_one_may_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else uses it."""
    refused = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(addresses, "refused_bind", lambda port, host: refused)
    with pytest.raises(EngineError, match=r"^local.port: 80 on 127.0.0.1 can't be bound: Permission denied; set"):
        choose(tmp_path, 80)


def test_a_port_that_is_free(tmp_path: Path) -> None:
    """Is taken, and without one any."""
    free = choose(tmp_path, 0)
    assert free and choose(tmp_path / "other", free) == free
