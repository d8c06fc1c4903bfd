"""Objects brought to what is rendered: server-side, several at once, and what is unchanged not at all.

What is there is listed once a kind and role, so that a fleet of which nothing changed costs a few calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import KINDS, SECRET, Kind, kind_of
from shoal.engines.kubernetes.drift import drift_of
from shoal.engines.kubernetes.names import labels_of
from shoal.engines.kubernetes.render_own import noted
from shoal.engines.kubernetes.render_pod import Object
from shoal.errors import EngineError, EngineUnavailable

_AT_ONCE = 16
_ORDER = list(KINDS)


async def ensure(kubernetes: Kubernetes, fleet: str, items: Sequence[Object]) -> list[Object]:
    """Applies what differs from what was applied before, or was changed by somebody else, what others refer to first;
    gives what it applied. Raises EngineError where one is of somebody else, KubernetesError where it is refused."""
    there, differ = await _compare(kubernetes, fleet, items)
    applied: list[Object] = []
    for name in sorted({item["kind"] for item in differ}, key=_ORDER.index):
        done, failures = await _put(kubernetes, fleet, [item for item in differ if item["kind"] == name], there)
        applied += done
        if failures:
            raise _partly(failures, applied, differ)
    return applied


async def try_out(kubernetes: Kubernetes, fleet: str, items: Sequence[Object]) -> None:
    """Raises what `ensure` would, as far as the API server tells it of what it does not do; nothing is changed."""
    there, differ = await _compare(kubernetes, fleet, items)
    _, failures = await _put(kubernetes, fleet, differ, there, dry_run=True)
    if failures := [each for each in failures if not _is_of_trial(each)]:
        raise _together(failures)


async def _compare(
    kubernetes: Kubernetes, fleet: str, items: Sequence[Object]
) -> tuple[Mapping[tuple[str, str], Object], Sequence[Object]]:
    """What is there, and which of the items differ from that."""
    there = await list_own(kubernetes, fleet, items)
    return there, [item for item in map(noted, items) if _differs(item, there.get(name_of(item)))]


async def _put(
    kubernetes: Kubernetes,
    fleet: str,
    items: Sequence[Object],
    there: Container[tuple[str, str]],
    *,
    dry_run: bool = False,
) -> tuple[Sequence[Object], Sequence[EngineError]]:
    """Those that were applied, and what was said of the others."""
    slots = asyncio.Semaphore(_AT_ONCE)
    applied: list[Object] = []
    failures: list[EngineError] = []

    async def put(item: Object) -> None:
        async with slots:
            try:
                if name_of(item) not in there:
                    await find_ours(kubernetes, fleet, item)
                await kubernetes.apply(kind_of(item), item, force=True, dry_run=dry_run)  # it carries our label
            except EngineError as error:
                failures.append(error)
            else:
                applied.append(item)

    async with asyncio.TaskGroup() as tasks:
        for item in items:
            tasks.create_task(put(item))
    return applied, failures


def _is_of_trial(error: EngineError) -> bool:
    """A RoleBinding whose Role was not really made before, or a webhook that is asked only when it is meant."""
    return isinstance(error, KubernetesError) and (error.status == 404 or "not support dry run" in error.said)


def _together(failures: Sequence[EngineError]) -> EngineError:
    away = next((each for each in failures if isinstance(each, EngineUnavailable)), None)
    if away is not None or len(failures) == 1:
        return away or failures[0]
    return EngineError("\n".join(dict.fromkeys(map(str, failures))))


def _partly(failures: Sequence[EngineError], applied: Sequence[Object], of: Sequence[Object]) -> EngineError:
    """With what is done already; what others refer to came first."""
    told = _together(failures)
    if not applied:
        return told
    kind = EngineUnavailable if isinstance(told, EngineUnavailable) else EngineError
    return kind(
        f"{told}\n{len(applied)} of the {len(of)} objects that Shoal itself needs were made or changed before; once "
        "that is out of the way it goes on from there"
    )


async def list_own(kubernetes: Kubernetes, fleet: str, items: Iterable[Object]) -> dict[tuple[str, str], Object]:
    """Those of the fleet's objects that are of the same kinds and for the same as these, by kind and name; of Secrets
    their metadata alone."""
    of = {(kind_of(item), names.role_of(item)) for item in items}
    found = await asyncio.gather(*(_list(kubernetes, fleet, kind, role) for kind, role in of))
    return {name_of(item): item for items in found for item in items}


async def find_ours(kubernetes: Kubernetes, fleet: str, item: Object) -> Mapping[str, Any] | None:
    """What has the name of an object that is to be made, and is not known to be there; `None`: there is none. Raises
    EngineError where it is of somebody else."""
    kind, name = kind_of(item), item["metadata"]["name"]
    there = await kubernetes.find(kind, name)
    if there is None:
        return None
    owner = labels_of(there).get(names.FLEET)
    if owner == fleet:
        return there
    managers = sorted({str(each.get("manager")) for each in there["metadata"].get("managedFields") or ()})
    whose = f"of fleet {owner}" if owner else f"not ours (made by {', '.join(managers) or 'somebody else'})"
    agent = labels_of(item).get(names.AGENT)
    where, otherwise = (f"agents.{agent}: ", ", give the agent another name,") if agent else ("", ",")
    raise EngineError(
        f"{where}the {kind.name} {name} in {kubernetes.namespace} is {whose}: give this fleet a namespace of its own "
        f"(`namespace` in the file){otherwise} or remove that"
    )


def name_of(item: Mapping[str, Any]) -> tuple[str, str]:
    """Its kind and its name."""
    return str(item["kind"]), item["metadata"]["name"]


def is_as_applied(item: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether the last that was applied is this, which `noted` gave."""
    return _content(item) == _content(there)


async def _list(kubernetes: Kubernetes, fleet: str, kind: Kind, role: str) -> Sequence[Object]:
    labels = {names.FLEET: fleet, names.ROLE: role}
    if kind == SECRET:
        return [{**item, "kind": kind.name} for item in await kubernetes.list_metadata(kind, labels)]
    return (await kubernetes.list(kind, labels))[0]


def _differs(item: Object, there: Object | None) -> bool:
    if there is None or not is_as_applied(item, there):
        return True
    if item.get("spec", {}).get("replicas") != there.get("spec", {}).get("replicas"):
        return True  # who scales to zero is not always noted, and a tool may call itself what we do
    return kind_of(item) != SECRET and bool(drift_of(item, there))


def _content(item: Mapping[str, Any]) -> str | None:
    annotations: Mapping[str, str] = item["metadata"].get("annotations") or {}
    return annotations.get(names.CONTENT)
