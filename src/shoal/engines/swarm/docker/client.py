"""The calls of the Engine API that Shoal makes, each a method; what they give is the API's own JSON."""

from __future__ import annotations

import base64
import copy
import json as json_format
import random
from asyncio import sleep
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from shoal.engines.swarm.docker.endpoint import Endpoint
from shoal.engines.swarm.docker.exec import ExecSession
from shoal.engines.swarm.docker.frames import FrameDecoder, LineAssembler, LineSplitter, RawLine
from shoal.engines.swarm.docker.refusals import OUT_OF_SEQUENCE, DockerError
from shoal.engines.swarm.docker.wire import Filter, Params, Wire, render_filters
from shoal.errors import Conflict

JSON = dict[str, Any]

_GONE = (404,)
_NO_LABELS: Mapping[str, str] = {}
_LONGEST_WAIT_S = 0.5


class Docker:
    """A daemon; an asynchronous context manager. It may be entered while the daemon is away.

    Every method raises DockerError for a refusal, and EngineUnavailable where the daemon can't be reached or its Swarm
    does not answer. Names and ids are interchangeable. `labels` select what has all of them.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._wire = Wire(endpoint)

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.__aexit__(kind, error, trace)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        ok: Collection[int] = (),
    ) -> Any:
        """Any other call; `path` without the version, a mapping in `params` is sent as JSON."""
        return await self._wire.request(method, path, params=params, json=json, headers=headers, ok=ok)

    # The daemon and its Swarm

    async def api_version(self) -> str:
        """The API version agreed on."""
        major, minor = await self._wire.version()
        return f"{major}.{minor}"

    async def info(self) -> JSON:
        return await self.request("GET", "/info")

    async def version(self) -> JSON:
        return await self.request("GET", "/version")

    async def swarm(self) -> JSON:
        """The Swarm; DockerUnavailable where the daemon is none of its managers."""
        return await self.request("GET", "/swarm")

    async def nodes(self) -> list[JSON]:
        return await self.request("GET", "/nodes")

    async def image(self, name: str) -> JSON:
        """An image that this daemon has."""
        return await self.request("GET", f"/images/{quote(name, safe='')}/json")

    # Services and tasks

    async def services(self, labels: Mapping[str, str] = _NO_LABELS, *, status: bool = False) -> list[JSON]:
        """With `status`, `ServiceStatus` counts tasks: running, desired, completed."""
        return await self._list("/services", labels, status=status or None)

    async def service(self, name: str) -> JSON:
        return await self.request("GET", f"/services/{_segment(name)}")

    async def create_service(self, spec: Mapping[str, Any], *, auth: str | None = None) -> str:
        """Its id. `auth` is the registry's X-Registry-Auth. DockerError with status 409 where the name is taken."""
        made = await self.request("POST", "/services/create", json=spec, headers=_auth(auth))
        return made["ID"]

    async def write_service(
        self, service_id: str, version: int, spec: Mapping[str, Any], *, auth: str | None = None
    ) -> None:
        """One try. Raises Conflict where `version` is not its version any more."""
        path = f"/services/{_segment(service_id)}/update"
        try:
            await self.request("POST", path, params={"version": version}, json=spec, headers=_auth(auth))
        except DockerError as error:
            if OUT_OF_SEQUENCE in error.reason:
                raise Conflict(f"service {service_id} was changed by somebody else at the same time") from error
            raise

    async def update_service(
        self, name: str, change: Callable[[JSON], JSON | None], *, auth: str | None = None, tries: int = 20
    ) -> bool:
        """Gives a copy of the service's spec to `change` and writes what that returns; false where it is `None` or the
        same, which is written all the same where there is `auth`: that alone starts no task anew. As often
        as somebody else writes in between, it is read again, and Conflict raised after `tries`."""
        for attempt in range(tries):
            service = await self.service(name)
            spec = change(copy.deepcopy(service["Spec"]))
            same = spec == service["Spec"]
            if spec is None or (same and auth is None):
                return False
            try:
                await self.write_service(service["ID"], service["Version"]["Index"], spec, auth=auth)
            except Conflict:
                if attempt + 1 == tries:
                    raise
                await sleep(random.uniform(0, min(_LONGEST_WAIT_S, 0.01 * 2**attempt)))
            else:
                return not same
        return False

    async def remove_service(self, name: str) -> None:
        """Gone already is fine."""
        await self._remove("services", name)

    async def tasks(self, labels: Mapping[str, str] = _NO_LABELS, **filters: Filter) -> list[JSON]:
        """`filters` are the API's: `service`, `node`, `desired_state`, `name`, `id`."""
        return await self._list("/tasks", labels, filters)

    # Networks, configs, secrets

    async def networks(self, labels: Mapping[str, str] = _NO_LABELS) -> list[JSON]:
        return await self._list("/networks", labels)

    async def create_network(
        self,
        name: str,
        labels: Mapping[str, str] = _NO_LABELS,
        *,
        driver: str = "overlay",
        attachable: bool = False,
        options: Mapping[str, str] = _NO_LABELS,
    ) -> str:
        """Its id; of the one that is there, where the name is taken."""
        body = {"Name": name, "Driver": driver, "Attachable": attachable, "Labels": labels, "Options": options}
        made = await self.request("POST", "/networks/create", json=body, ok=(409,))
        if made is None:
            made = await self.request("GET", f"/networks/{_segment(name)}")
        return made["Id"]

    async def volumes(self, labels: Mapping[str, str] = _NO_LABELS) -> list[JSON]:
        """Those of this node."""
        found = await self.request("GET", "/volumes", params={"filters": render_filters(labels, {}) or None})
        return found["Volumes"] or []

    async def remove_volume(self, name: str) -> None:
        """From this node. Gone already is fine; DockerError while a container has it."""
        await self._remove("volumes", name)

    async def remove_network(self, name: str) -> None:
        """Gone already is fine; DockerError while somebody uses it."""
        await self._remove("networks", name)

    async def configs(self, labels: Mapping[str, str] = _NO_LABELS) -> list[JSON]:
        """Each with its content: base64 in `Spec.Data`."""
        return await self._list("/configs", labels)

    async def config(self, name: str) -> JSON:
        """With its content: base64 in `Spec.Data`."""
        return await self.request("GET", f"/configs/{_segment(name)}")

    async def create_config(self, name: str, data: bytes, labels: Mapping[str, str] = _NO_LABELS) -> str:
        """Its id; of the one that is there, whatever it holds, where the name is taken: name them by their content."""
        return await self._create_document("configs", name, data, labels)

    async def remove_config(self, name: str) -> None:
        """Gone already is fine; DockerError while a service uses it."""
        await self._remove("configs", name)

    async def secrets(self, labels: Mapping[str, str] = _NO_LABELS) -> list[JSON]:
        """Without their content, which nobody but a task is given."""
        return await self._list("/secrets", labels)

    async def secret(self, name: str) -> JSON:
        return await self.request("GET", f"/secrets/{_segment(name)}")

    async def create_secret(self, name: str, data: bytes, labels: Mapping[str, str] = _NO_LABELS) -> str:
        """Its id; of the one that is there, whatever it holds, where the name is taken: name them by their content."""
        return await self._create_document("secrets", name, data, labels)

    async def remove_secret(self, name: str) -> None:
        """Gone already is fine; DockerError while a service uses it."""
        await self._remove("secrets", name)

    # What happens, and what is written

    async def events(self, *, since: float | None = None, **filters: Filter) -> AsyncGenerator[JSON]:
        """Events of this daemon and its Swarm, from `since` (epoch seconds) on, until the connection ends; connecting
        again is the caller's. `filters` are the API's: `type`, `event`, `label`, `service`."""
        params = {"filters": render_filters({}, filters), "since": since}
        lines = LineSplitter()
        async with self._wire.stream("GET", "/events", params) as content:
            async for piece in content.iter_any():
                for line in lines.feed(piece):
                    yield json_format.loads(line)

    def service_logs(
        self, name: str, *, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[RawLine]:
        """What a service's tasks wrote, each task's lines in order: from `since` (epoch seconds) on, of each task the
        last `tail` lines; with `follow` until the connection ends or the caller closes it."""
        return self._logs(f"/services/{_segment(name)}/logs", follow=follow, since=since, tail=tail)

    def task_logs(
        self, task_id: str, *, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[RawLine]:
        """The same of one task."""
        return self._logs(f"/tasks/{_segment(task_id)}/logs", follow=follow, since=since, tail=tail)

    async def _logs(self, path: str, *, follow: bool, since: float | None, tail: int | None) -> AsyncGenerator[RawLine]:
        params = {"stdout": True, "stderr": True, "timestamps": True, "details": True, "follow": follow}
        where = {"since": None if since is None else f"{since:.9f}", "tail": tail}
        frames, lines = FrameDecoder(), LineAssembler()
        async with self._wire.stream("GET", path, {**params, **where}) as content:
            async for piece in content.iter_any():
                for stream, text in frames.feed(piece):
                    if (line := lines.feed(stream, text)) is not None:
                        yield line
        for line in lines.rest():
            yield line

    # Containers of this daemon's own node

    async def containers(self, labels: Mapping[str, str] = _NO_LABELS, *, stopped: bool = False) -> list[JSON]:
        """Those that run, and with `stopped` the others too."""
        return await self._list("/containers/json", labels, all=stopped)

    async def container(self, name: str) -> JSON:
        return await self.request("GET", f"/containers/{_segment(name)}/json")

    async def stats_once(self, name: str) -> JSON:
        """One look at a container's use, without the second that the API otherwise takes for a rate: keep the last."""
        params = {"stream": False, "one-shot": True}
        return await self.request("GET", f"/containers/{_segment(name)}/stats", params=params)

    async def kill(self, name: str, signal: str = "SIGKILL") -> None:
        """Sends a signal to a container; one that does not run (any more) is fine."""
        await self.request("POST", f"/containers/{_segment(name)}/kill", params={"signal": signal}, ok=(404, 409))

    @asynccontextmanager
    async def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool = False,
        tty: bool = False,
        env: Sequence[str] = (),
        user: str = "",
    ) -> AsyncGenerator[ExecSession]:
        """A command within a container, as long as the block lasts."""
        body = {
            "Cmd": list(argv),
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "Env": list(env),
            "User": user,
        }
        made = await self.request("POST", f"/containers/{_segment(container)}/exec", json=body)
        exec_id: str = made["Id"]
        reader, writer = await self._wire.hijack(f"/exec/{exec_id}/start", {"Detach": False, "Tty": tty})
        session = ExecSession(self._wire, exec_id, reader, writer, tty=tty)
        try:
            yield session
        finally:
            session.close()

    async def _list(
        self, path: str, labels: Mapping[str, str], filters: Mapping[str, Filter] | None = None, **params: object
    ) -> list[JSON]:
        wanted = render_filters(labels, filters or {})
        return await self.request("GET", path, params={**params, "filters": wanted or None})

    async def _remove(self, kind: str, name: str) -> None:
        await self.request("DELETE", f"/{kind}/{_segment(name)}", ok=_GONE)

    async def _create_document(self, kind: str, name: str, data: bytes, labels: Mapping[str, str]) -> str:
        body = {"Name": name, "Labels": labels, "Data": base64.b64encode(data).decode()}
        made = await self.request("POST", f"/{kind}/create", json=body, ok=(409,))
        if made is None:
            made = await self.request("GET", f"/{kind}/{_segment(name)}")
        return made["ID"]


def _segment(name: str) -> str:
    return quote(name, safe="")


def _auth(auth: str | None) -> dict[str, str]:
    return {} if auth is None else {"X-Registry-Auth": auth}
