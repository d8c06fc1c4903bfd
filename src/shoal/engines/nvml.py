"""NVIDIA's GPUs of this machine, as its driver tells of them; on a machine without the driver there are none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pynvml  # pyright: ignore[reportMissingTypeStubs]

from shoal.core.signals import Usage
from shoal.errors import EngineError

_nvml: Any = pynvml  # which has no types
_Refused: type[Exception] = _nvml.NVMLError


@dataclass(frozen=True, slots=True)
class GpuUse:
    """`share`: how much of the last sample (up to a second) something ran on it, 0 to 1; memory of all processes."""

    share: float
    memory_bytes: int


def count_gpus() -> int | None:
    """How many there are; `None` without a driver. Raises EngineError where it does not answer."""
    if not _has_driver():
        return None
    try:
        _nvml.nvmlInit()
        try:
            return int(_nvml.nvmlDeviceGetCount())
        finally:
            _nvml.nvmlShutdown()
    except _Refused as error:
        raise EngineError(f"the NVIDIA driver does not answer: {error} (look what `nvidia-smi` says)") from error


def read_gpus() -> Mapping[str, GpuUse]:
    """By index and by UUID, each GPU twice, as either may name it; what does not tell is absent. Takes milliseconds,
    and more where nothing else keeps the driver awake."""
    found: dict[str, GpuUse] = {}
    if not _has_driver():
        return found
    try:
        _nvml.nvmlInit()
        try:
            for index in range(_nvml.nvmlDeviceGetCount()):
                with contextlib.suppress(_Refused):  # one in parts (MIG) has no share of its own; another may have
                    device = _nvml.nvmlDeviceGetHandleByIndex(index)
                    share = _nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
                    use = GpuUse(share, int(_nvml.nvmlDeviceGetMemoryInfo(device).used))
                    found |= {str(index): use, str(_nvml.nvmlDeviceGetUUID(device)): use}
        finally:
            _nvml.nvmlShutdown()
    except _Refused:  # one that fell off its bus: what was read before stands
        pass
    return found


def use_of(devices: Iterable[str], seen: Mapping[str, GpuUse]) -> GpuUse | None:
    """Of all devices together, a share of 1 for each that is busy; `None` where one of them told nothing, or there are
    none."""
    uses = [seen.get(device) for device in devices]
    known = [use for use in uses if use is not None]
    if not known or len(known) < len(uses):
        return None
    return GpuUse(sum(use.share for use in known), sum(use.memory_bytes for use in known))


async def with_gpus(usage: Mapping[str, Usage], devices: Mapping[str, Sequence[str]]) -> dict[str, Usage]:
    """The same with what their GPUs do; `devices` by who has them. Without any nobody is asked."""
    found = dict(usage)
    if not devices:
        return found
    seen = await asyncio.to_thread(read_gpus)
    for name in found.keys() & devices.keys():
        if (use := use_of(devices[name], seen)) is not None:
            found[name] = replace(found[name], gpus_busy=use.share, gpu_memory_bytes=use.memory_bytes)
    return found


@cache
def _has_driver() -> bool:
    try:
        _nvml.nvmlInit()
    except _nvml.NVMLError_LibraryNotFound:
        return False
    except _Refused:
        return True
    _nvml.nvmlShutdown()
    return True
