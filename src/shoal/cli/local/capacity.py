"""What this machine can never give: said by `plan` before replicas wait for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from shoal.cli.output import count_of
from shoal.engines.local.gpus import visible_devices
from shoal.spec.model import Fleet
from shoal.units import format_memory


def describe_lacking(fleet: Fleet) -> Iterator[str]:
    """A sentence for each agent that asks for more than there is."""
    gpus = len(visible_devices(fleet.local.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")))
    memory_bytes = psutil.virtual_memory().total
    for name, agent in sorted(fleet.agents.items()):
        wanted = agent.resources
        if wanted.gpu > gpus:
            needs = count_of(wanted.gpu, "GPU")
            yield f"{name} can't start: a replica needs {needs}, this machine has {gpus} (see local.gpus)"
        if wanted.memory_bytes is not None and wanted.memory_bytes > memory_bytes:
            asked, there = format_memory(wanted.memory_bytes), format_memory(memory_bytes)
            yield f"{name} may use {asked} of memory, this machine has {there}: the limit keeps nobody from using it up"
