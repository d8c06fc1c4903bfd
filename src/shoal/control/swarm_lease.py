"""Where it stands on a Swarm who may act for a fleet: a label of the state's service, with a counter of renewals."""

from __future__ import annotations

from shoal.control.lease import Claim
from shoal.control.swarm_keeper import Swarm
from shoal.engines.swarm.docker import DockerError
from shoal.engines.swarm.names import Role, own_name
from shoal.errors import Conflict

LEASE = "shoal.lease"


class SwarmLease:
    """See `shoal.control.lease.LeaseKeeper`."""

    granter = "the Swarm's managers"

    def __init__(self, docker: Swarm, fleet: str) -> None:
        self._docker, self._name = docker, own_name(fleet, Role.STATE.value)

    async def read(self) -> Claim:
        service = await self._docker.service(self._name)
        told: str = service["Spec"]["Labels"].get(LEASE, "")
        return Claim(told.partition(" ")[0], told, service)

    async def write(self, claim: Claim, holder: str) -> None:
        service, counter = claim.found, int(claim.sign.partition(" ")[2] or 0) + 1
        labels = {key: value for key, value in service["Spec"]["Labels"].items() if key != LEASE}
        if holder:
            labels[LEASE] = f"{holder} {counter}"
        try:
            await self._docker.write_service(
                service["ID"], service["Version"]["Index"], {**service["Spec"], "Labels": labels}
            )
        except DockerError as error:
            if error.status == 404:
                raise Conflict(f"service {self._name} was removed at the same time") from error
            raise
