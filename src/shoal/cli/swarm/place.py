"""The place of a fleet on Docker Swarm: its state and secrets are Swarm's, its controller is reached over the network.

What is stored is written through the Docker API with the rights that a person has there; so are network, keys and
controller, by the first `up`. Everything else is asked of the controller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from shoal.cli.cluster import Without, read_logs, tell
from shoal.cli.contexts import known_contexts, load_context, remote_client, remove_context
from shoal.cli.output import say
from shoal.cli.place import VolumeUse
from shoal.errors import ControllerUnavailable, NotFound, ShoalError

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.lines import Preface, WebRoute
    from shoal.api.views import EventView, LogView, StatusView
    from shoal.cli.place import Ender, Started
    from shoal.control.store import SecretRecord, Store, StoredFleet
    from shoal.control.swarm_contents import SwarmContents
    from shoal.core.drift import Drift
    from shoal.engines.protocol import Capabilities
    from shoal.engines.swarm.docker import Docker
    from shoal.http1 import ProtocolError, Streams
    from shoal.spec.model import Fleet


class Installer(Protocol):
    """Puts what a controller needs on a Swarm, and takes all of a fleet away."""

    async def install(self, docker: Docker, fleet: Fleet, named: Collection[str], known: Mapping[str, bytes]) -> None:
        """Network, keys and controller, as far as they are not there, and the user's context for a new fleet. `named`
        are the HMACs of the contents of secrets that the controller is given, `known` what is known of them here."""
        ...

    async def remove(self, docker: Docker, fleet: str, *, data: bool) -> None:
        """All of it; without `data` state, secrets and volumes stay."""
        ...


class SwarmPlace:
    """See `shoal.cli.place.Place`."""

    shared = True

    def __init__(
        self, fleet: str, docker_context: str | None, environ: Mapping[str, str], installer: Installer
    ) -> None:
        self.fleet = fleet
        self._docker_context = docker_context
        self._environ = environ
        self._installer = installer

    @property
    def capabilities(self) -> Capabilities:
        from shoal.engines.swarm.capabilities import CAPABILITIES

        return CAPABILITIES

    def client(self) -> Client:
        context = load_context(self._environ, self.fleet)
        if context is None:
            from shoal.api.client import Client

            return Client(_NoWay(self.fleet, known_contexts(self._environ)))
        return remote_client(self._environ, context)

    @asynccontextmanager
    async def store(self, *, make: bool = False) -> AsyncGenerator[Store]:
        from shoal.control.document_store import DocumentStore
        from shoal.control.swarm_keeper import SwarmKeeper

        async with self.docker() as docker:  # the first write makes it, whoever writes
            yield DocumentStore(SwarmKeeper(docker, self.fleet))

    async def contents(self, *, make: bool = False) -> SwarmContents:
        from shoal.control.swarm_contents import SwarmContents

        return await SwarmContents.open(self.docker, self.fleet, make=make)

    async def drift(self, stored: StoredFleet) -> tuple[Drift, ...]:
        return ()

    async def try_out(self, fleet: Fleet, known: Mapping[str, bytes], records: Mapping[str, SecretRecord]) -> None:
        return  # Swarm tells of nothing that it does not do

    async def tell_or_start(self, fleet: Fleet, known: Mapping[str, bytes]) -> Started | None:
        """The controller is nobody's to end: it stays when this command goes."""
        from shoal.control.secret_contents import KEPT_UNNAMED_S
        from shoal.control.store import named_digests

        async with self.docker() as docker, self.store() as store:
            named = await named_digests(store)
            await self._installer.install(docker, fleet, named, known)
        await (await self.contents()).prune(named, KEPT_UNNAMED_S)
        await tell(self.client(), self.fleet, self._why_silent)
        return None

    async def ender(self, *, data: bool) -> Ender | None:
        with suppress(ControllerUnavailable):
            client = self.client()
            await client.status()
            return client
        async with self.docker() as docker:
            there = await self._runs(docker) or (data and await self._is_known(docker))
        if not there:
            return None
        say("No controller answers; what is there is removed without it ...")
        return Without(self)

    async def tidy(self, *, data: bool) -> None:
        async with self.docker() as docker:
            await self._installer.remove(docker, self.fleet, data=data)
        if data:
            with suppress(NotFound):  # its keys are gone with the rest
                remove_context(self._environ, self.fleet)

    async def look(self) -> StatusView | None:
        from shoal.cli.swarm.away import look_at_swarm

        async with self.docker() as docker, self.store() as store:
            stored = await store.read_fleet()
            return await look_at_swarm(docker, self.fleet, stored) if stored is not None else None

    def events(self) -> Iterable[EventView] | None:
        return None  # the controller has them, and nobody else

    def logs(
        self, agents: Sequence[str], since: float | None, tail: int | None
    ) -> AsyncGenerator[LogView, None] | None:
        from shoal.api.views import LOG_TAIL_LINES

        return self._logs(agents, since, LOG_TAIL_LINES if tail is None and since is None else tail)

    async def _logs(
        self, agents: Sequence[str], since: float | None, tail: int | None
    ) -> AsyncGenerator[LogView, None]:
        from shoal.engines.swarm.engine import SwarmEngine

        async with self.docker() as docker, self.store() as store:
            engine = SwarmEngine(docker, self.fleet)
            stored = await store.read_fleet()
            if stored is not None and stored.secrets:
                say(
                    "Secrets are not masked in what agents wrote: only the controller is given what they hold, and it "
                    "does not answer",
                    fg="yellow",
                )
            async with aclosing(read_logs(engine, store, agents, since, tail)) as lines:
                async for line in lines:
                    yield line

    async def volume_use(self, name: str, owner: str | None) -> VolumeUse:
        return VolumeUse(None, None, None)  # they are on the nodes

    @asynccontextmanager
    async def docker(self) -> AsyncGenerator[Docker]:
        """The Docker of the fleet's Swarm, as the file's `docker_context` or the environment says it."""
        from shoal.engines.swarm.docker import Docker, find_endpoint

        async with Docker(find_endpoint(self._docker_context, self._environ)) as docker:
            yield docker

    async def _runs(self, docker: Docker) -> bool:
        """Whether anything of the fleet does, or may."""
        from shoal.engines.swarm import names

        services = await docker.services({names.FLEET: self.fleet})
        return any(names.role_of(each["Spec"]["Labels"]) != names.Role.STATE for each in services)

    async def _is_known(self, docker: Docker) -> bool:
        from shoal.engines.swarm import names

        return bool(await docker.services({names.FLEET: self.fleet}) or await docker.secrets({names.FLEET: self.fleet}))

    async def _why_silent(self) -> tuple[str, bool]:
        """What Swarm says of the controller's task, with its last words, and whether it can't or doesn't want to run
        it."""
        from shoal.engines.swarm.docker import remedy_for
        from shoal.engines.swarm.names import Role, own_name

        name = own_name(self.fleet, Role.CONTROLLER.value)
        async with self.docker() as docker:
            tasks = await docker.tasks(service=name)
            lines = [line.text async for line in docker.service_logs(name, tail=10)]
        newest = max(tasks, key=lambda task: task["CreatedAt"], default=None)
        status: dict[str, Any] = newest["Status"] if newest is not None else {}
        refused = str(status.get("Err") or "")
        why = refused or str(status.get("Message") or "it has no task")
        remedy = f" ({remedy_for(why)})" if remedy_for(why) else ""
        words = "".join(f"\n  {line}" for line in lines)
        return f"The service {name} is {status.get('State', 'missing')}: {why}{remedy}{words}", bool(refused)


class _NoWay:
    """In the place of a line to a controller, where nothing says where that would lead."""

    def __init__(self, fleet: str, known: Sequence[str]) -> None:
        self._why = (
            f"nothing here says how the controller of {fleet} is reached (contexts: {', '.join(known) or 'none'}); "
            f"whoever started it gives you that by `shoal context export {fleet} --name YOU`, and the first `shoal up` "
            "makes it"
        )

    async def open(self) -> Streams:
        raise ControllerUnavailable(self._why)

    async def preface(self) -> Preface:
        raise ControllerUnavailable(self._why)

    def refused(self, status: int, body: bytes) -> ShoalError | None:
        return None

    async def route(self) -> WebRoute:
        raise ControllerUnavailable(self._why)

    def late(self, waited_s: float) -> ShoalError:
        return ControllerUnavailable(self._why)

    def absent(self, error: OSError | ProtocolError) -> ShoalError:
        return ControllerUnavailable(self._why)
