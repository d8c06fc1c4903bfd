"""Which replica has which GPU: exclusive, by `CUDA_VISIBLE_DEVICES`, as nothing else here keeps replicas apart."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.engines.nvml import count_gpus
from shoal.errors import EngineError


class Gpus:
    """The GPUs of this machine, handed out one holder each."""

    def __init__(self, devices: Iterable[str]) -> None:
        self.devices = tuple(devices)
        self._held: dict[str, str] = {}  # holder by device

    def take(self, holder: str, number: int) -> tuple[str, ...] | None:
        """So many devices for the holder, or `None` if fewer are free."""
        free = [device for device in self.devices if device not in self._held]
        if len(free) < number:
            return None
        taken = tuple(free[:number])
        self._held.update(dict.fromkeys(taken, holder))
        return taken

    def adopt(self, holder: str, devices: Iterable[str]) -> None:
        """Notes what a replica that runs already has."""
        self._held.update(dict.fromkeys(devices, holder))

    def release(self, holder: str) -> None:
        """Gives back all that the holder has."""
        self._held = {device: other for device, other in self._held.items() if other != holder}

    def shortage(self, number: int) -> str:
        """Why so many can't be had now, as a person reads it."""
        total = len(self.devices)
        needs = f"needs {number} GPU{'s' if number != 1 else ''}"
        if number > total:
            return f"{needs}, this machine has {total} (see local.gpus)"
        holders = ", ".join(sorted(set(self._held.values())))
        free = total - len(self._held)
        return f"{needs}, {free} of {total} {'is' if free == 1 else 'are'} free; in use by {holders}"


def visible_devices(configured: int | None, visible: str | None) -> tuple[str, ...]:
    """The devices to hand out: those of `CUDA_VISIBLE_DEVICES` where it is set, else all that NVML counts; at most
    `configured` of them, and exactly so many where neither says anything."""
    if visible is not None:
        listed = tuple(device.strip() for device in visible.split(",") if device.strip())
        return listed if configured is None else listed[:configured]
    if configured is not None:
        return tuple(str(number) for number in range(configured))
    try:
        return tuple(str(number) for number in range(count_gpus() or 0))
    except EngineError:  # `shoal doctor` tells
        return ()
