"""The calls of the Kubernetes API that Shoal makes; what they give is the API's own JSON."""

from __future__ import annotations

import asyncio
import json as json_format
import socket
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.connector import Connection

from shoal.engines.kubernetes.api.kinds import POD, Kind
from shoal.engines.kubernetes.api.kubeconfig import Access
from shoal.engines.kubernetes.api.refusals import ALREADY_EXISTS, KubernetesError, refusal
from shoal.errors import EngineError, EngineUnavailable

JSON = dict[str, Any]

MANAGER = "shoal"  # of the fields that Shoal applies
NO_LABELS: Mapping[str, str] = {}

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_CONNECTIONS = 64
_CONNECT_S = 5.0
_ANSWER_S = 30.0
_CLOSE_S = 1.0
_WATCH_S = 300  # then the server ends it, and another one goes on from there
_PAGE = 500  # objects of a list that come at once
_TRIES = 4  # of what the server was too busy for
_LONGEST_WAIT_S = 10.0
_LONGEST_LINE = 1 << 26
# A peer that vanished without a word is noticed within 20 s, also on a watch on which nothing happens.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 8), (socket.TCP_KEEPINTVL, 4), (socket.TCP_KEEPCNT, 3))


class Kubernetes:
    """An API server, for one namespace; an asynchronous context manager.

    Every method raises KubernetesError for a refusal, KubernetesConflict where somebody else was first or owns it, and
    EngineUnavailable where it can't be reached. `labels` select what has all of them. `before_write` is called before
    each request that changes something, when a connection for it is there, and keeps it from being sent by what it
    raises. Of more than `connections` requests at once the others wait; 0 is for any number.
    """

    def __init__(
        self,
        access: Access,
        namespace: str,
        *,
        before_write: Callable[[], None] | None = None,
        connections: int = _CONNECTIONS,
    ) -> None:
        self.access = access
        self.namespace = namespace
        self._before_write = before_write
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._sockets = weakref.WeakSet[socket.socket]()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            ssl=self.access.tls or False, socket_factory=self._socket, limit=self._connections
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S),
            read_bufsize=_LONGEST_LINE,
            request_class=_asking_first(self._before_write) if self._before_write else aiohttp.ClientRequest,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await self._cut()

    # Any call

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        asked: str = "",
    ) -> Any:
        """The answer's JSON. `asked` says in words what it was about."""
        for attempt in range(_TRIES):
            asking = self._open(method, path, params=params, json=json, content_type=content_type, accept=accept)
            async with asking as answer:
                body = await answer.read()
                if answer.status < 400:
                    return json_format.loads(body) if body else None
                wait_s = _busy(answer)
                if wait_s is None or attempt + 1 == _TRIES:
                    words = asked or f"{method} {path}"
                    raise refusal(self.access.server, words, answer.status, _parse(body))
            await asyncio.sleep(wait_s)
        raise AssertionError

    async def version(self) -> tuple[int, int]:
        """Of the server: `(1, 34)`."""
        told = await self.request("GET", "/version", asked="its version")
        return int(told["major"]), int("".join(letter for letter in told["minor"] if letter.isdigit()))

    # Objects

    async def get(self, kind: Kind, name: str) -> JSON:
        return await self.request("GET", kind.path(self.namespace, name), asked=f"get {kind.name} {name}")

    async def find(self, kind: Kind, name: str) -> JSON | None:
        """`None` where there is none."""
        try:
            return await self.get(kind, name)
        except KubernetesError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[JSON], str]:
        """All of a kind, and the version from which a watch goes on. What they are is put in: lists leave it out."""
        items: list[JSON] = []
        version = ""
        async with aclosing(self.pages(kind, labels, fields=fields)) as pages:
            async for page, at in pages:
                items += page
                version = at
        return items, version

    async def pages(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> AsyncGenerator[tuple[list[JSON], str], None]:
        """The same, some at a time: thousands at once take a lot of memory. KubernetesError of status 410 where the
        server has forgotten the version meanwhile."""
        params = {"limit": str(_PAGE)}
        if labels:
            params["labelSelector"] = _selector(labels)
        if fields:
            params["fieldSelector"] = fields
        while True:
            told = await self.request("GET", kind.path(self.namespace), params=params, asked=f"list {kind.plural}")
            items: list[JSON] = told["items"]
            for item in items:
                item["kind"], item["apiVersion"] = kind.name, kind.api_version
            yield items, str(told["metadata"].get("resourceVersion", ""))
            if not (rest := told["metadata"].get("continue")):
                return
            params["continue"] = rest

    async def list_metadata(self, kind: Kind, labels: Mapping[str, str]) -> list[JSON]:
        """All of a kind, of each its `metadata` alone: for what is large, or nobody's to read."""
        told = await self.request(
            "GET", kind.path(self.namespace), params={"labelSelector": _selector(labels)}, accept=_METADATA,
            asked=f"list {kind.plural}",
        )  # fmt: skip
        return told["items"] or []  # the API says null of none here

    async def watch(
        self, kind: Kind, labels: Mapping[str, str], version: str, *, fields: str = ""
    ) -> AsyncGenerator[tuple[str, JSON], None]:
        """What happens to them from a version on: `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, each with the object. It
        ends when the server wants it to; raises KubernetesError of status 410 where the version is too old."""
        params = {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_S),
        }  # fmt: skip
        if labels:
            params["labelSelector"] = _selector(labels)
        if fields:
            params["fieldSelector"] = fields
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_WATCH_S + _ANSWER_S)
        asked = f"watch {kind.plural}"
        async with self._open("GET", kind.path(self.namespace), params=params, timeout=timeout) as answer:
            if answer.status >= 400:
                raise refusal(self.access.server, asked, answer.status, _parse(await answer.read()))
            try:
                async for line in answer.content:
                    event = json_format.loads(line)
                    if event["type"] == "ERROR":
                        told = event["object"]
                        raise refusal(self.access.server, asked, int(told.get("code") or 500), told)
                    yield event["type"], event["object"]
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise self._unavailable(error) from error

    async def create(self, kind: Kind, item: Mapping[str, Any]) -> JSON:
        """KubernetesConflict where there is one of that name."""
        name = item["metadata"].get("name") or item["metadata"].get("generateName", "")
        return await self.request(
            "POST", kind.path(self.namespace), params={"fieldManager": MANAGER, "fieldValidation": "Strict"},
            json=item, asked=f"create {kind.name} {name}",
        )  # fmt: skip

    async def make(self, kind: Kind, item: Mapping[str, Any]) -> JSON | None:
        """The same; `None` where there is one of that name, which stays as it is."""
        try:
            return await self.create(kind, item)
        except KubernetesError as error:
            if error.reason != ALREADY_EXISTS:
                raise
            return None

    async def apply(
        self, kind: Kind, item: Mapping[str, Any], *, force: bool = False, manager: str = MANAGER, dry_run: bool = False
    ) -> JSON:
        """Server-side. KubernetesConflict names whose fields it met; with `force` they are ours from then on."""
        name = item["metadata"]["name"]
        params = {"fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            params["dryRun"] = "All"
        return await self.request(
            "PATCH", kind.path(self.namespace, name), params=params, json=item, content_type=_APPLY,
            asked=f"apply {kind.name} {name}",
        )  # fmt: skip

    async def replace(self, kind: Kind, item: Mapping[str, Any]) -> JSON:
        """The whole; KubernetesConflict where it is not of the version any more that `item` says."""
        name = item["metadata"]["name"]
        return await self.request(
            "PUT", kind.path(self.namespace, name), params={"fieldManager": MANAGER}, json=item,
            asked=f"update {kind.name} {name}",
        )  # fmt: skip

    async def patch(self, kind: Kind, name: str, change: Mapping[str, Any], sub: str | None = None) -> JSON:
        """A merge; `sub` names a subresource, such as `scale`."""
        return await self.request(
            "PATCH", kind.path(self.namespace, name, sub), params={"fieldManager": MANAGER}, json=change,
            content_type=_MERGE, asked=f"patch {kind.name} {name}",
        )  # fmt: skip

    async def delete(self, kind: Kind, name: str, *, grace_s: int | None = None, wait: bool = False) -> bool:
        """Gone already is fine; says whether it was there. What it owns goes with it: in the background, or with `wait`
        before it."""
        options: JSON = {"propagationPolicy": "Foreground" if wait else "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        with _missing_is_fine():
            await self.request(
                "DELETE", kind.path(self.namespace, name), json=options, asked=f"delete {kind.name} {name}"
            )
            return True
        return False

    async def delete_all(self, kind: Kind, labels: Mapping[str, str]) -> None:
        """All of a kind that have the labels."""
        await self.request(
            "DELETE", kind.path(self.namespace), params={"labelSelector": _selector(labels)},
            json={"propagationPolicy": "Background"}, asked=f"delete {kind.plural}",
        )  # fmt: skip

    async def logs(self, pod: str, *, params: Mapping[str, str], follow: bool = False) -> AsyncGenerator[str, None]:
        """The lines that its container wrote, as the API gives them."""
        timeout = aiohttp.ClientTimeout(total=None if follow else _ANSWER_S, sock_connect=_CONNECT_S)
        path = POD.path(self.namespace, pod, "log")
        async with self._open("GET", path, params={**params, "follow": str(follow).lower()}, timeout=timeout) as answer:
            if answer.status >= 400:
                raise refusal(self.access.server, f"logs of {pod}", answer.status, _parse(await answer.read()))
            try:
                async for line in answer.content:
                    yield line.decode(errors="replace").rstrip("\n")
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise self._unavailable(error) from error

    @asynccontextmanager
    async def websocket(
        self, path: str, params: Sequence[tuple[str, str]], protocol: str
    ) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket to a subresource such as `exec`."""
        assert self._session is not None
        try:
            async with self._session.ws_connect(
                f"{self.access.server}{path}",
                params=params,
                protocols=(protocol,),
                headers=await self._headers(),
                max_msg_size=0,
                proxy=self.access.proxy,
                server_hostname=self.access.server_name,
            ) as socket_:
                yield socket_
        except aiohttp.WSServerHandshakeError as error:
            raise refusal(self.access.server, path, error.status, error.message) from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise self._unavailable(error) from error

    # Within.

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """One on which a peer that vanished is noticed."""
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        self._sockets.add(made)
        return made

    async def _cut(self) -> None:
        """What aiohttp has let go of and TLS keeps: a watch that was left waits for the server's goodbye."""
        left = [each for each in self._sockets if each.fileno() != -1]
        for each in left:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while any(each.fileno() != -1 for each in left):  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's, of several parts
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer, its head read; once more where the credentials were refused and others can be had."""
        if self._session is None:
            raise RuntimeError("the client of Kubernetes was not entered")
        data = None if json is None else json_format.dumps(json, separators=(",", ":")).encode()
        for again in (True, False):
            headers = [("Accept", accept), *await self._headers()]
            if data is not None:
                headers.append(("Content-Type", content_type))
            asking = self._session.request(
                method,
                f"{self.access.server}{path}",
                params=params,
                data=data,
                headers=headers,
                timeout=timeout or self._session.timeout,
                proxy=self.access.proxy,
                server_hostname=self.access.server_name,
            )
            try:
                answer = await asking
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._unavailable(error) from error
            async with answer:
                if answer.status != 401 or not again or not self.access.credentials.refused():
                    try:
                        yield answer
                    except (aiohttp.ClientError, TimeoutError) as error:
                        raise self._unavailable(error) from error
                    return

    async def _headers(self) -> list[tuple[str, str]]:
        token = await self.access.credentials.authorization(self.access.tls)
        return [*([("Authorization", token)] if token is not None else []), *self.access.impersonation]

    def _unavailable(self, error: BaseException) -> EngineError:
        where = f"Kubernetes at {self.access.server}"
        if self.access.context:
            where += f" (context {self.access.context})"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return EngineUnavailable(f"{where}: its certificate is not trusted: {error.certificate_error}; look at the "
                                     "cluster's certificate-authority in the kubeconfig")  # fmt: skip
        if isinstance(error, aiohttp.ClientHttpProxyError):  # its own words have the proxy's password
            return EngineUnavailable(f"{where} can't be reached: its proxy answers {error.status} {error.message}; "
                                     "look at the cluster's proxy-url in the kubeconfig")  # fmt: skip
        words = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return EngineUnavailable(
            f"{where} can't be reached: {words}; look whether the cluster is up and `kubectl get nodes` works from here"
        )


@contextmanager
def _missing_is_fine() -> Generator[None]:
    try:
        yield
    except KubernetesError as error:
        if error.status != 404:
            raise


def _asking_first(before_write: Callable[[], None]) -> type[aiohttp.ClientRequest]:
    """Requests of which each that writes asks for leave when nothing is left to wait for: who may write now may not any
    more once credentials, a free connection and its handshakes were there."""

    class AskingFirst(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            if self.method != "GET":
                before_write()
            return await super().send(conn)

    return AskingFirst


def _busy(answer: aiohttp.ClientResponse) -> float | None:
    """How long to wait before the same is asked again; `None` where that is of no use."""
    if answer.status != 429 or "Retry-After" not in answer.headers:
        return None
    text = answer.headers["Retry-After"]
    return min(float(text), _LONGEST_WAIT_S) if text.isdigit() else 1.0


def _parse(body: bytes) -> object:
    try:
        return json_format.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:500]


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" if value else key for key, value in sorted(labels.items()))
