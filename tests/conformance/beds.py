"""The engines that the conformance cases run on."""

from __future__ import annotations

from tests.conformance.bed import FleetBed
from tests.conformance.kubernetes_bed import KubernetesBed
from tests.conformance.local_bed import LocalBed
from tests.conformance.swarm_bed import SwarmBed

BEDS: dict[str, type[FleetBed]] = {bed.engine: bed for bed in (LocalBed, SwarmBed, KubernetesBed)}
