"""What one Envoy has been told and has agreed to: the state of the world protocol as a state machine, without I/O.

Clusters and listeners are always sent whole (what is absent is removed), assignments and routes only where they
changed. The order is make before break: clusters, endpoints, listeners, routes; a cluster that goes is taken away
only once no route leads there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shoal.proxy.messages import ASSIGNMENT, CLUSTER, LISTENER, ROUTES

ORDER = (CLUSTER, ASSIGNMENT, LISTENER, ROUTES)
_WHOLE = (CLUSTER, LISTENER)


@dataclass(frozen=True, slots=True)
class Published:
    """One version of everything: serialised messages by type URL and name."""

    version: int
    resources: Mapping[str, Mapping[str, bytes]]

    def of(self, type_url: str) -> Mapping[str, bytes]:
        return self.resources.get(type_url, {})


@dataclass(frozen=True, slots=True)
class Response:
    type_url: str
    version: int
    nonce: str
    resources: Mapping[str, bytes]


@dataclass(slots=True)
class _Kind:
    """One type of resource on this stream. `names` is `None` until Envoy asks for the type."""

    names: frozenset[str] | None = None
    started: bool = False
    sent: dict[str, bytes] = field(default_factory=dict[str, bytes])
    pending: dict[str, bytes] = field(default_factory=dict[str, bytes])
    nonce: str | None = None
    rejected: dict[str, bytes] = field(default_factory=dict[str, bytes])
    error: str = ""


class AdsSession:
    def __init__(self) -> None:
        self._kinds = {type_url: _Kind() for type_url in ORDER}
        self._nonces = 0

    def receive(self, type_url: str, names: Sequence[str], nonce: str, error: str) -> None:
        """Takes in a request: a subscription, an ACK, or with `error` a NACK in Envoy's words."""
        kind = self._kinds.get(type_url)
        if kind is None:
            return
        wanted = frozenset(names)
        for name in (kind.names or frozenset()) - wanted if type_url not in _WHOLE else ():
            kind.sent.pop(name, None)
        kind.names = wanted
        if not nonce or nonce != kind.nonce:
            return
        kind.nonce = None
        for name in kind.pending:
            kind.rejected.pop(name, None)
        if type_url in _WHOLE:
            kind.rejected.clear()
        if error:
            kind.rejected.update(kind.pending)
        kind.error = error if kind.rejected else ""
        kind.pending = {}

    def responses(self, published: Published) -> Iterator[Response]:
        """What is to be sent now, in order; counts as sent from then on."""
        for type_url in ORDER:
            kind = self._kinds[type_url]
            if kind.names is None or kind.nonce is not None:
                continue
            due = self._due(type_url, published)
            if due is None:
                continue
            if type_url == CLUSTER:
                self._expect_assignments(kind, due)
            if type_url in _WHOLE:
                kind.sent = dict(due)
            else:
                kind.sent.update(due)
            kind.started = True
            kind.pending = dict(due)
            self._nonces += 1
            kind.nonce = str(self._nonces)
            yield Response(type_url, published.version, kind.nonce, due)

    def settled(self, published: Published) -> bool:
        """Whether Envoy has agreed to all of it: nothing to send, nothing unanswered, nothing refused."""
        return all(self._kind_settled(type_url, published) for type_url in ORDER)

    def error(self, published: Published) -> str:
        """Envoy's words on what it refuses of this version, or nothing."""
        words = [
            f"{type_url.rpartition('.')[2]}: {self._kinds[type_url].error}"
            for type_url in ORDER
            if self._refuses(type_url, published)
        ]
        return "; ".join(words)

    def retry_listeners(self) -> None:
        """Offers refused listeners once more: a port that was taken may be free now."""
        kind = self._kinds[LISTENER]
        if kind.rejected and kind.nonce is None:
            kind.sent = {}
            kind.started = False

    def _due(self, type_url: str, published: Published) -> Mapping[str, bytes] | None:
        kind = self._kinds[type_url]
        target = published.of(type_url)
        if type_url in _WHOLE:
            if type_url == CLUSTER and not self._routes_settled(published):
                target = {**{name: kind.sent[name] for name in kind.sent if name not in target}, **target}
            return target if not kind.started or target != kind.sent else None
        names = kind.names or frozenset()
        due = {name: body for name, body in target.items() if name in names and kind.sent.get(name) != body}
        return due or None

    def _expect_assignments(self, clusters: _Kind, due: Mapping[str, bytes]) -> None:
        """A cluster that changes warms until it is told its endpoints again."""
        told = self._kinds[ASSIGNMENT].sent
        for name, body in due.items():
            if clusters.sent.get(name) != body:
                told.pop(name, None)

    def _routes_settled(self, published: Published) -> bool:
        return self._kind_settled(LISTENER, published) and self._kind_settled(ROUTES, published)

    def _kind_settled(self, type_url: str, published: Published) -> bool:
        kind = self._kinds[type_url]
        target = published.of(type_url)
        if kind.names is None:
            return not target
        if kind.nonce is not None or self._refuses(type_url, published):
            return False
        if type_url in _WHOLE:
            return kind.started and kind.sent == target
        return all(name in kind.names and kind.sent.get(name) == body for name, body in target.items())

    def _refuses(self, type_url: str, published: Published) -> bool:
        target = published.of(type_url)
        return any(target.get(name) == body for name, body in self._kinds[type_url].rejected.items())
