"""Names of volumes that Kubernetes would take for one: told before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal.engines.kubernetes.names import BROKER
from shoal.engines.kubernetes.render_own import BROKER_CLAIM
from shoal.engines.kubernetes.render_pod import claim_name
from shoal.errors import Problem
from shoal.spec.volumes import parse_volume

if TYPE_CHECKING:
    from shoal.spec import Loaded


def claims_that_meet(loaded: Loaded) -> Iterator[Problem]:
    """A StatefulSet names the claim of an identity by volume, name and ordinal: as a shared volume may be called."""
    identities = {f"{BROKER_CLAIM}-{BROKER}": "the queues' broker"}
    shared: list[tuple[str, int, str]] = []
    for name, agent in loaded.fleet.agents.items():
        for index, text in enumerate(agent.volumes):
            volume = parse_volume(text)
            if not volume.bound and agent.stateful:
                identities[f"{claim_name(volume.source)}-{name}"] = f"agents.{name}"
            elif not volume.bound:
                shared.append((name, index, claim_name(volume.source)))
    for name, index, claim in shared:
        identity, _, ordinal = claim.rpartition("-")
        if ordinal.isdigit() and identity in identities:
            yield Problem(
                loaded.origins.of(("agents", name, "volumes", index)).place,
                f"agents.{name}.volumes[{index}]",
                f"on Kubernetes {claim} is what the volume of a replica of {identities[identity]} is called",
                "give this volume another name",
            )
