"""The controller of a fleet on Kubernetes put together: one of two pods, the one that holds the lease.

What it needs of keys is mounted; what it has to remember is in ConfigMaps. Its pod is given the label by which the
Service finds it once it may act.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from shoal.api.certificates import Remote
from shoal.api.controller import open_queues
from shoal.api.queue_admins import QueueAdmins
from shoal.api.server import serve_api
from shoal.control.controller import Controller
from shoal.control.document_store import DocumentStore
from shoal.control.known_secrets import KnownSecrets
from shoal.control.kubernetes_contents import KubernetesContents
from shoal.control.kubernetes_keeper import KubernetesKeeper
from shoal.control.kubernetes_lease import KubernetesLease
from shoal.control.lease import Lease
from shoal.control.parts import Parts
from shoal.control.secret_contents import KEPT_UNNAMED_S
from shoal.control.store import StoredFleet
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError, find_access
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD
from shoal.engines.kubernetes.api.refusals import KubernetesConflict
from shoal.engines.kubernetes.engine import KubernetesEngine
from shoal.engines.kubernetes.names import CONTROLLER
from shoal.engines.kubernetes.own_keys import read_admin_token
from shoal.engines.kubernetes.platform import KubernetesPlatform
from shoal.engines.kubernetes.pruning import prune_pull
from shoal.engines.kubernetes.render import settings_of
from shoal.engines.kubernetes.render_own import (
    API_PORT,
    CA_CERTIFICATE,
    CA_KEY,
    JOIN_DIRECTORY,
    KEYS_DIRECTORY,
    LINK_PORT,
    OWN_CONTAINER,
    SEED,
    TOKEN,
)
from shoal.errors import EngineError, EngineUnavailable
from shoal.pki.authority import Authority
from shoal.pki.credentials import Credentials
from shoal.pki.member import keep_issued
from shoal.pki.token import JoinToken
from shoal.proxy.line_keys import LineGuard
from shoal.proxy.link import serve_gateways
from shoal.sources.rabbitmq import RabbitMqQueues
from shoal.spec.model import Fleet

log = logging.getLogger(__name__)

_AGAIN_S = 0.5


async def run_kubernetes_controller(fleet: str, *, certificate_s: float) -> None:
    """Runs the fleet until it is taken down; cancelled, it leaves the fleet running. Raises Conflict when another
    controller takes its place."""
    keys = Path(KEYS_DIRECTORY)
    authority = Authority.load((keys / CA_CERTIFICATE).read_text(), (keys / CA_KEY).read_text())
    holder = os.environ.get("SHOAL_POD") or socket.gethostname()
    identity = authority.issue("controller", holder, now=time.time(), ttl_s=certificate_s)
    credentials = Credentials(identity)
    access = find_access(None, {**os.environ, "KUBECONFIG": "", "HOME": "/nonexistent"})
    namespace = os.environ.get("SHOAL_NAMESPACE") or access.namespace or "default"
    async with Kubernetes(access, namespace) as kubernetes, asyncio.TaskGroup() as tasks:
        lease = Lease(KubernetesLease(kubernetes, fleet), holder, gone=lambda pod: _has_ended(kubernetes, pod))
        await lease.acquire()
        acting = Kubernetes(access, namespace, before_write=lease.require)
        beside = [tasks.create_task(lease.keep()), tasks.create_task(keep_issued(credentials, authority))]
        token = JoinToken.parse(Path(JOIN_DIRECTORY, TOKEN).read_text())
        remote = Remote(
            "0.0.0.0",
            API_PORT,
            credentials,
            authority,
            token,
            certificate_s,
            admin_token=await read_admin_token(kubernetes),
        )
        try:
            async with acting:
                await _lead(acting, fleet, holder)
                await _control(acting, fleet, lease, credentials, remote, tasks)
        finally:
            for task in beside:
                task.cancel()
            with contextlib.suppress(EngineError):
                await lease.release()


async def _control(
    kubernetes: Kubernetes, fleet: str, lease: Lease, credentials: Credentials, remote: Remote, tasks: asyncio.TaskGroup
) -> None:
    secrets = KnownSecrets(kubernetes)
    await secrets.read()  # before anything that replicas wrote is looked at or shown
    streams = Kubernetes(kubernetes.access, kubernetes.namespace, connections=0)
    engine = KubernetesEngine(kubernetes, fleet, streams=streams, mask=secrets.mask, told_secret=secrets.take)
    own = await kubernetes.get(DEPLOYMENT, CONTROLLER)
    image = own["spec"]["template"]["spec"]["containers"][0]["image"]
    seed = Path(KEYS_DIRECTORY, SEED).read_bytes()
    platform = KubernetesPlatform(kubernetes, fleet, image, seed, engine.is_there)

    def take(stored: StoredFleet) -> None:
        secrets.want()
        if stored.fleet is not None:
            engine.settings = settings_of(stored.fleet)

    async with streams, serve_gateways(f"0.0.0.0:{LINK_PORT}", LineGuard(credentials)) as gateways:
        controller = Controller(
            Parts(
                engine=engine,
                inspector=engine,
                platform=platform,
                gateways=gateways,
                store=DocumentStore(KubernetesKeeper(kubernetes, fleet)),
                open_queues=open_queues,
                open_outside=RabbitMqQueues,
                read_secret=secrets.content,
                take_fleet=take,
                prune_secrets=lambda named: _prune(kubernetes, controller.carried_out, engine, platform, named),
                clock=time.time,
                fleet=fleet,
                require_right=lease.require,
            )
        )
        async with (
            contextlib.aclosing(QueueAdmins(controller, fleet, secrets.mask)) as queues,
            serve_api(controller, Path("/tmp/api/api.sock"), queues, remote),
        ):
            beside = [
                tasks.create_task(engine.run()),
                tasks.create_task(secrets.run(controller.problems, engine.mask_changed)),
            ]
            try:
                await controller.run()
            finally:
                for task in beside:
                    task.cancel()


async def _prune(
    kubernetes: Kubernetes,
    spec: Fleet | None,
    engine: KubernetesEngine,
    platform: KubernetesPlatform,
    named: frozenset[str],
) -> None:
    """Takes away what a fleet that is carried out has no use for any more."""
    if spec is not None:
        used = engine.used_secrets()
        contents = await KubernetesContents.open(lambda: contextlib.nullcontext(kubernetes), spec.fleet)
        await contents.prune(named, KEPT_UNNAMED_S, used)
        await prune_pull(kubernetes, spec, used)
        await platform.prune(spec)


async def _lead(kubernetes: Kubernetes, fleet: str, holder: str) -> None:
    """From now on the Service leads to this pod alone. While the API server can't serve that is tried again: what comes
    next can't be had without it either."""
    told = ""
    while True:
        try:
            await _take_label(kubernetes, fleet, holder)
        except (EngineUnavailable, KubernetesConflict) as error:
            if str(error) != told:
                log.warning("%s; until this pod has the label %s nobody finds it", error, names.LEADER)
                told = str(error)
            await asyncio.sleep(_AGAIN_S)
        else:
            return


async def _take_label(kubernetes: Kubernetes, fleet: str, holder: str) -> None:
    pods, _ = await kubernetes.list(POD, {names.FLEET: fleet, names.LEADER: "true"})
    for pod in pods:
        name = pod["metadata"]["name"]
        if name == holder:
            continue
        try:
            await kubernetes.patch(POD, name, {"metadata": {"labels": {names.LEADER: None}}})
        except (EngineUnavailable, KubernetesConflict):
            raise
        except KubernetesError as error:
            if error.status != 404:  # a fleet is better led with calls that go astray than not at all
                log.warning("%s; as long as %s has the label %s some calls reach nobody", error, name, names.LEADER)
    await kubernetes.patch(POD, holder, {"metadata": {"labels": {names.LEADER: "true"}}})


async def _has_ended(kubernetes: Kubernetes, pod: str) -> bool:
    """Whether its container has, whatever became of what a mesh put beside it. One on a node that does not answer may
    run on, and so may one whose pod somebody removed by force."""
    found = await kubernetes.find(POD, pod)
    if found is None:
        return False
    statuses: list[dict[str, Any]] = found.get("status", {}).get("containerStatuses") or []
    return found["status"].get("phase") in ("Failed", "Succeeded") or any(
        each["name"] == OWN_CONTAINER and "terminated" in each.get("state", {}) for each in statuses
    )
