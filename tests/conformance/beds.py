"""The engines that the conformance cases run on."""

from __future__ import annotations

import os

from tests.conformance.bed import FleetBed
from tests.conformance.kubernetes_bed import KubernetesBed
from tests.conformance.local_bed import LocalBed
from tests.conformance.swarm_bed import SwarmBed

BEDS: dict[str, type[FleetBed]] = {bed.engine: bed for bed in (LocalBed, SwarmBed)}

# Not every case holds there yet: it is in no table, and runs where SHOAL_TRY names it.
_TRIED: dict[str, type[FleetBed]] = {KubernetesBed.engine: KubernetesBed}


def chosen() -> dict[str, type[FleetBed]]:
    """Those that are whole, and those that are named."""
    named = os.environ.get("SHOAL_TRY", "").split(",")
    return BEDS | {engine: bed for engine, bed in _TRIED.items() if engine in named}
