"""The ports of gateway and broker: chosen once and kept, as agents are told them when they start."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from shoal.engines.local.layout import make_private, read_if_there, set_aside, write_whole
from shoal.engines.local.listening import listener_on
from shoal.engines.local.ports import is_free, refused_bind
from shoal.errors import EngineError

# Below those of replicas, so that a replica never takes the port of a gateway that is just restarting.
_FIRST = 14000
_LAST = 17999


@dataclass(slots=True)
class _Kept:
    public: int = 0
    callers: dict[str, int] = field(default_factory=dict[str, int])
    broker: int = 0
    monitor: int = 0


_KEPT = TypeAdapter(_Kept)


def _recover(platform: Path) -> _Kept:
    """What agents were told, from what is noted of them, and what the broker was; the public port is chosen again."""
    kept = _Kept()
    for manifest in (platform.parent / "agents").glob("*/agent.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            told: list[dict[str, str]] = [
                revision["environment"] for revision in json.loads(manifest.read_bytes())["revisions"].values()
            ]
            for name, value in (pair for environment in told for pair in environment.items()):
                if name.startswith("SHOAL_URL_") and (port := urlsplit(value).port):
                    kept.callers[manifest.parent.name] = port
    with contextlib.suppress(ValueError, KeyError, TypeError):
        config = json.loads(read_if_there(platform / "broker" / "nats.conf") or b"")
        kept.broker, kept.monitor = (int(config[key].rpartition(":")[2]) for key in ("listen", "http"))
    return kept


def _why_refused(refused: OSError, port: int, bind: str) -> str:
    other = "set local.port to another port (0: any free one)"
    if refused.errno == errno.EADDRINUSE:
        return f"local.port: {port} is used by {listener_on(port) or 'another program'}; stop it, or {other}"
    if refused.errno == errno.EADDRNOTAVAIL:
        return (
            f"local.bind: this machine has no address {bind}; expected one that `ip addr` shows, 127.0.0.1 (only this "
            "machine gets in) or 0.0.0.0 (whoever reaches one of its addresses)"
        )
    return f"local.port: {port} on {bind} can't be bound: {refused.strerror or refused}; {other}"


class Addresses:
    """Ports on 127.0.0.1, by what they are for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = read_if_there(path)
        try:
            self._kept = _Kept() if content is None else _KEPT.validate_json(content)
        except ValidationError:
            set_aside(path, time.time())
            self._kept = _recover(path.parent)

    @property
    def public(self) -> int:
        """Where the outside comes in; 0 before `choose`."""
        return self._kept.public

    @property
    def broker(self) -> int:
        return self._kept.broker

    @property
    def monitor(self) -> int:
        """The broker's HTTP port for health."""
        return self._kept.monitor

    @property
    def callers(self) -> dict[str, int]:
        """The listener of each agent that calls others, or did."""
        return dict(self._kept.callers)

    def choose(self, public: int, bind: str, callers: Iterable[str], *, gateway_runs: bool, broker_runs: bool) -> None:
        """Fills what is missing, and chooses anew what somebody else took while nothing of ours ran.

        `public` 0 stands for any. Raises EngineError if the public port is somebody else's.
        """
        kept = self._kept
        kept.public = self._choose_public(public, bind, gateway_runs=gateway_runs)
        for agent in callers:
            port = kept.callers.get(agent)
            if port is None or not (gateway_runs or is_free(port)):
                kept.callers[agent] = self._any()
        if not kept.broker or not (broker_runs or is_free(kept.broker)):
            kept.broker = self._any()
        if not kept.monitor or not (broker_runs or is_free(kept.monitor)):
            kept.monitor = self._any()
        content = _KEPT.dump_json(kept)
        if content != read_if_there(self._path):
            make_private(self._path.parent)
            write_whole(self._path, content)

    def _choose_public(self, wanted: int, bind: str, *, gateway_runs: bool) -> int:
        port = wanted or self._kept.public
        if port and gateway_runs and port == self._kept.public:
            return port
        host = "" if bind in {"0.0.0.0", "::"} else bind
        refused = refused_bind(wanted, host)  # port 0: whether the address is there at all
        if refused is not None:
            raise EngineError(_why_refused(refused, wanted, bind))
        return port if port and is_free(port, host) else self._any()

    def _any(self) -> int:
        kept = self._kept
        taken = {kept.public, kept.broker, kept.monitor, *kept.callers.values()}
        candidates = list(range(_FIRST, _LAST + 1))
        random.SystemRandom().shuffle(candidates)
        for port in candidates:
            if port not in taken and is_free(port):
                return port
        raise EngineError(f"no free port between {_FIRST} and {_LAST}; stop something that listens there")
