"""How all of a fleet goes from a namespace again. What may not be done does not keep the rest, unless that is needed by
what stays; and what is gone and what stays is told.
"""

from __future__ import annotations

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import (
    AUTOSCALER,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    LEASE,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
)
from shoal.engines.kubernetes.foreign_objects import find_foreign
from shoal.engines.kubernetes.names import CONTROLLER, Role, labels_of, role_of
from shoal.engines.kubernetes.waiting import wait_gone, wait_namespace_gone
from shoal.errors import EngineError, EngineUnavailable

_KEPT_DATA: tuple[tuple[Kind, Role | None], ...] = ((CONFIG_MAP, Role.STATE), (SECRET, Role.SECRET))
_RUNNING: tuple[Kind, ...] = (DEPLOYMENT, STATEFUL_SET, JOB)
_AROUND: tuple[Kind, ...] = (
    SERVICE, DISRUPTION_BUDGET, NETWORK_POLICY, ROLE_BINDING, ROLE, SERVICE_ACCOUNT, CONFIG_MAP, SECRET, LEASE,
)  # fmt: skip
REMOVED: tuple[Kind, ...] = (AUTOSCALER, *_RUNNING, *_AROUND)


async def remove_all(kubernetes: Kubernetes, fleet: str, *, data: bool) -> str:
    """What is left of a fleet, its agents included; without `data` the state, the secrets and the claims stay. The
    namespace goes too where it was made for the fleet and nobody else has anything there; gives why it stays then,
    else nothing. Raises EngineError with what is gone and what stays."""
    removal = _Removal(kubernetes, fleet, data=data)
    try:
        await removal.run()
        return await _remove_namespace(kubernetes, fleet) if data else ""
    except EngineError as error:
        raise removal.failed(error) from error


class _Removal:
    """One turn, and what came of it."""

    def __init__(self, kubernetes: Kubernetes, fleet: str, *, data: bool) -> None:
        self._kubernetes = kubernetes
        self._fleet = fleet
        self._data = data
        self._gone: list[str] = []
        self._stays = [*REMOVED, *([CLAIM] if data else [])]
        self._refusals: list[KubernetesError] = []

    async def run(self) -> None:
        """Raises EngineError where anything stays."""
        if await self._kubernetes.delete(DEPLOYMENT, CONTROLLER):
            self._gone.append("the controller")
        await self._wait_gone(POD, **{names.ROLE: Role.CONTROLLER.value})  # it would make again what goes
        for kind in (AUTOSCALER, *_RUNNING):
            await self._remove(kind)
        if not set(_RUNNING).intersection(self._stays):  # else what is around them is still needed
            for kind in _AROUND:
                await self._remove(kind)
            await self._wait_gone(POD)
            if self._data:
                await self._remove(CLAIM)
        if self._refusals:
            raise EngineError("\n".join(dict.fromkeys(map(str, self._refusals))))
        if self._data:
            await self._wait_gone(CLAIM)

    def failed(self, error: EngineError) -> EngineError:
        """The same, with what was done before."""
        gone = f"Gone: {', '.join(self._gone)}." if self._gone else "Nothing was removed."
        left = [kind.plural for kind in self._stays]
        if self._data:
            left.append(f"the namespace {self._kubernetes.namespace}")
        again = f"`shoal down{' --volumes' if self._data else ''}` again goes on from there once that is out of the way"
        stays = f" What stays, as far as there is any: {', '.join(left)}; {again}" if left else ""
        made = EngineUnavailable if isinstance(error, EngineUnavailable) else EngineError
        return made(f"{error}\n{gone}{stays}")

    async def _remove(self, kind: Kind) -> None:
        """All of a kind; what is refused is noted, and the others go."""
        refused, count = len(self._refusals), 0
        try:
            items, _ = await self._kubernetes.list(kind, {names.FLEET: self._fleet})
        except KubernetesError as error:
            self._note(error)
            return
        try:
            for item in items:
                if not self._data and (kind, role_of(item)) in _KEPT_DATA:
                    continue
                try:
                    await self._kubernetes.delete(kind, item["metadata"]["name"])
                    count += 1
                except KubernetesError as error:
                    self._note(error)
        finally:
            if count:
                self._gone.append(f"{kind.plural} ({count})")
        if len(self._refusals) == refused:
            self._stays.remove(kind)

    def _note(self, error: KubernetesError) -> None:
        if isinstance(error, EngineUnavailable):
            raise error
        self._refusals.append(error)

    async def _wait_gone(self, kind: Kind, **labels: str) -> None:
        await wait_gone(self._kubernetes, kind, {names.FLEET: self._fleet, **labels})


async def _remove_namespace(kubernetes: Kubernetes, fleet: str) -> str:
    """Gives why it stays, where it was made for the fleet or nobody may look for whom."""
    name = kubernetes.namespace
    try:
        there = await kubernetes.find(NAMESPACE, name)
        if there is None or labels_of(there).get(names.FLEET) != fleet:
            return ""
        if told := str(await find_foreign(kubernetes, fleet)):
            return f"the namespace {name} stays: {told}"
        await kubernetes.delete(NAMESPACE, name)
    except KubernetesError as error:
        if error.status != 403:
            raise
        return (
            f"the namespace {name} stays: {error.said.rstrip('.')}; where it was made for {fleet} alone, let who may "
            f"do it run `kubectl delete namespace {name}`"
        )
    await wait_namespace_gone(kubernetes)
    return ""
