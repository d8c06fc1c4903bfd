"""The place of a fleet on Kubernetes: its state and secrets are objects of its namespace, its controller is reached
through the API server.

What is stored is written with the rights that a person has in the cluster; so are keys, accounts, policies and the
controller, by `up`. Everything else is asked of the controller.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from shoal.cli.cluster import Without, read_logs, tell
from shoal.cli.contexts import FleetContext, load_context, remove_context, save_context
from shoal.cli.output import say
from shoal.cli.place import VolumeUse
from shoal.errors import ControllerUnavailable, EngineError, NotFound

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import EventView, LogView, StatusView
    from shoal.cli.place import Ender, Started
    from shoal.control.kubernetes_contents import KubernetesContents
    from shoal.control.store import SecretRecord, Store, StoredFleet
    from shoal.core.drift import Drift
    from shoal.engines.kubernetes.api import Access, Kubernetes
    from shoal.engines.protocol import Capabilities
    from shoal.spec.model import Fleet


class KubernetesPlace:
    """See `shoal.cli.place.Place`. A fleet without a `namespace` has one of its own name."""

    shared = True

    def __init__(self, fleet: str, context: str | None, namespace: str | None, environ: Mapping[str, str]) -> None:
        self.fleet = fleet
        self.namespace = namespace or fleet
        self._context = context
        self._environ = environ
        self._found: Access | None = None
        self._said = ""

    @property
    def capabilities(self) -> Capabilities:
        from shoal.engines.kubernetes.capabilities import CAPABILITIES

        return CAPABILITIES

    def client(self) -> Client:
        from shoal.api.client import Client
        from shoal.api.kubernetes_line import KubernetesLine

        return Client(KubernetesLine(self.access(), self.namespace, self.fleet))

    @asynccontextmanager
    async def store(self, *, make: bool = False) -> AsyncGenerator[Store]:
        from shoal.control.document_store import DocumentStore
        from shoal.control.kubernetes_keeper import KubernetesKeeper
        from shoal.engines.kubernetes.install import check_version, make_namespace

        async with self.kubernetes() as kubernetes:
            if make:
                await check_version(kubernetes)
                await make_namespace(kubernetes, self.fleet)
            yield DocumentStore(KubernetesKeeper(kubernetes, self.fleet))

    async def contents(self, *, make: bool = False) -> KubernetesContents:
        from shoal.control.kubernetes_contents import KubernetesContents
        from shoal.engines.kubernetes.install import make_namespace

        if make:
            async with self.kubernetes() as kubernetes:
                await make_namespace(kubernetes, self.fleet)
        return await KubernetesContents.open(self.kubernetes, self.fleet, make=make)

    async def drift(self, stored: StoredFleet) -> tuple[Drift, ...]:
        from shoal.cli.kubernetes.drift import find_drift

        async with self.kubernetes() as kubernetes:
            return await find_drift(kubernetes, stored)

    async def try_out(self, fleet: Fleet, known: Mapping[str, bytes], records: Mapping[str, SecretRecord]) -> None:
        from shoal.engines.kubernetes.install import try_install
        from shoal.engines.kubernetes.render_own import Own

        async with self.kubernetes() as kubernetes:
            pull = await self._passwords(kubernetes, fleet, known, records)
            await try_install(kubernetes, Own.of(fleet, self.namespace), fleet, pull)

    async def tell_or_start(self, fleet: Fleet, known: Mapping[str, bytes]) -> Started | None:
        """The controller is nobody's to end: it stays when this command goes. Raises EngineError too where one that is
        to take its place can't run."""
        from shoal.engines.kubernetes import names
        from shoal.engines.kubernetes.waiting import wait_replaced

        async with self.kubernetes() as kubernetes, self.store() as store:
            pull = await self._passwords(kubernetes, fleet, known, await store.read_secrets())
            await self._install(kubernetes, fleet, pull)
        await tell(self.client(), self.fleet, self._why_silent)
        controllers = {names.FLEET: self.fleet, names.ROLE: names.Role.CONTROLLER.value}
        async with self.kubernetes() as kubernetes:
            await wait_replaced(kubernetes, names.CONTROLLER, controllers)
        return None

    async def ender(self, *, data: bool) -> Ender | None:
        with suppress(ControllerUnavailable):
            client = self.client()
            await client.status()
            return client
        async with self.kubernetes() as kubernetes:
            there = await self._runs(kubernetes, data=data)
        if not there:
            return None
        say("No controller answers; what is there is removed without it ...")
        return Without(self)

    async def tidy(self, *, data: bool) -> None:
        from shoal.engines.kubernetes.removal import remove_all

        async with self.kubernetes() as kubernetes:
            stays = await remove_all(kubernetes, self.fleet, data=data)
        if stays and stays != self._said:
            say(stays)
            self._said = stays
        if data:
            with suppress(NotFound):
                remove_context(self._environ, self.fleet)

    async def look(self) -> StatusView | None:
        from shoal.cli.kubernetes.away import look_at_kubernetes

        async with self.kubernetes() as kubernetes, self.store() as store:
            stored = await store.read_fleet()
            if stored is None:
                return None
            return await look_at_kubernetes(kubernetes, self.fleet, stored, await self._mask(kubernetes))

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
        from shoal.engines.kubernetes.engine import KubernetesEngine

        async with self.kubernetes() as kubernetes, self.store() as store:
            engine = KubernetesEngine(kubernetes, self.fleet, mask=await self._mask(kubernetes))
            async with aclosing(read_logs(engine, store, agents, since, tail)) as lines:
                async for line in lines:
                    yield line

    async def _mask(self, kubernetes: Kubernetes) -> Callable[[str], str]:
        """As the controller does it, with the rights of whoever looks: who may not list Secrets is told so."""
        from shoal.control.known_secrets import read_contents
        from shoal.core.masking import Mask
        from shoal.engines.kubernetes.api import KubernetesError

        try:
            return Mask((await read_contents(kubernetes)).values()).apply
        except KubernetesError as error:
            if error.status != 403:
                raise
            say(
                f"Secrets are not masked in what agents wrote: you may not list Secrets in {self.namespace}, and no "
                "controller answers, which may",
                fg="yellow",
            )
            return str

    async def volume_use(self, name: str, owner: str | None) -> VolumeUse:
        return VolumeUse(None, None, None)  # they are the cluster's

    @asynccontextmanager
    async def kubernetes(self) -> AsyncGenerator[Kubernetes]:
        """The API of the fleet's cluster, for its namespace."""
        from shoal.engines.kubernetes.api import Kubernetes

        async with Kubernetes(self.access(), self.namespace) as kubernetes:
            yield kubernetes

    def access(self) -> Access:
        """The cluster, as the file's `context` or the kubeconfig's current one says it. Raises EngineError."""
        from shoal.engines.kubernetes.api import find_access

        if self._found is None:
            self._found = find_access(self._context, self._environ)
        return self._found

    async def _passwords(
        self, kubernetes: Kubernetes, fleet: Fleet, known: Mapping[str, bytes], records: Mapping[str, SecretRecord]
    ) -> dict[str, tuple[str, str]]:
        """User and password by registry; what was given by hand is read from the cluster. Raises EngineError."""
        from shoal.control.registries import user_and_password
        from shoal.engines.kubernetes.install import read_content

        found: dict[str, tuple[str, str]] = {}
        for registry, each in fleet.registries.items():
            content, record = known.get(each.secret), records.get(each.secret)
            if content is None and record is not None:
                content = await read_content(kubernetes, each.secret, record.digest)
            found[registry] = user_and_password(registry, each.secret, content or b"")
        return found

    async def _install(self, kubernetes: Kubernetes, fleet: Fleet, pull: Mapping[str, tuple[str, str]]) -> None:
        from shoal.engines.kubernetes.install import install
        from shoal.engines.kubernetes.own_keys import Keys, has_keys
        from shoal.engines.kubernetes.render_own import Own
        from shoal.pki import Authority

        keys = None
        if not await has_keys(kubernetes):
            authority = Authority.create(self.fleet, time.time())
            keys = Keys(authority.certificate_pem.encode(), authority.key_pem.encode())
        await install(kubernetes, Own.of(fleet, self.namespace), fleet, keys, pull)
        given = FleetContext(self.fleet, "kubernetes", None, (), "", self.access().context or None, self.namespace)
        if load_context(self._environ, self.fleet) != given:
            save_context(self._environ, given)

    async def _runs(self, kubernetes: Kubernetes, *, data: bool) -> bool:
        """Whether anything of the fleet does, or with `data` is left."""
        from shoal.engines.kubernetes import names
        from shoal.engines.kubernetes.api.kinds import CLAIM, DEPLOYMENT, POD, SECRET, STATEFUL_SET

        for kind in (DEPLOYMENT, STATEFUL_SET, POD, *((SECRET, CLAIM) if data else ())):
            if (await kubernetes.list(kind, {names.FLEET: self.fleet}))[0]:
                return True
        return False

    async def _why_silent(self) -> tuple[str, bool]:
        """What the cluster says of the controller's pods, and whether it can't or doesn't want to run them."""
        from shoal.core.observed import Phase
        from shoal.engines.kubernetes import names
        from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD
        from shoal.engines.kubernetes.read import ON_ITS_WAY, last_words, phase_of, why_refused

        ours = {names.FLEET: self.fleet, names.ROLE: names.Role.CONTROLLER.value}
        try:
            async with self.kubernetes() as kubernetes:
                pods, _ = await kubernetes.list(POD, ours)
                deployments, _ = await kubernetes.list(DEPLOYMENT, ours)
                told = [phase_of(pod) for pod in pods]
                if not any(phase is Phase.RUNNING for phase, _ in told):
                    refused = why_refused(deployments[0]) if deployments else ""
                    why = next((reason for _, reason in told if reason), "") or refused
                    words = [word for pod in pods for word in last_words(pod)]
                    said = "".join(f"\n  {word}" for word in words[-10:])
                    return f"Its pods do not run: {why or 'they are on their way'}{said}", why not in ("", ON_ITS_WAY)
        except EngineError as error:
            return str(error), False
        return "Its pods run.", False
