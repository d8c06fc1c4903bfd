"""What GPUs do, read through NVIDIA's own binding; its driver's answers are what a test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml  # pyright: ignore[reportMissingTypeStubs]
import pytest

from shoal.core.signals import Usage
from shoal.engines import nvml
from shoal.engines.local.gpus import visible_devices
from shoal.engines.nvml import GpuUse, count_gpus, read_gpus, use_of, with_gpus
from shoal.engines.swarm.node.census import devices_of
from shoal.errors import EngineError

MIB = 2**20
IDS = ("GPU-a", "GPU-b")


class Driver:
    """Two GPUs: the first half busy, the second idle with memory in use. `fails` are the calls that it refuses."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.opened = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        nvml._has_driver.cache_clear()  # pyright: ignore[reportPrivateUsage]
        answers: dict[str, Any] = {
            "nvmlInit": lambda: self.count(1),
            "nvmlShutdown": lambda: self.count(-1),
            "nvmlDeviceGetCount": lambda: len(IDS),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda index: IDS[index],
            "nvmlDeviceGetUtilizationRates": lambda index: SimpleNamespace(gpu=(50, 0)[index]),
            "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(used=(100, 300)[index] * MIB),
        }
        for name, answer in answers.items():
            patch.setattr(pynvml, name, self.refusing(name, answer))

    def refusing(self, name: str, answer: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if name in self.fails:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
            return answer(*arguments)

        return call

    def count(self, by: int) -> None:
        self.opened += by


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Driver()
    made.install(monkeypatch)
    yield made
    assert made.opened == 0, "the library is let go of"
    nvml._has_driver.cache_clear()  # pyright: ignore[reportPrivateUsage]


def test_each_gpu_by_both_of_its_names(driver: Driver) -> None:
    half, idle = GpuUse(0.5, 100 * MIB), GpuUse(0.0, 300 * MIB)
    assert read_gpus() == {"0": half, "GPU-a": half, "1": idle, "GPU-b": idle}
    assert count_gpus() == 2 and visible_devices(None, None) == ("0", "1")


def test_one_that_tells_nothing_is_not_guessed(driver: Driver) -> None:
    """Whoever has it has no figure, rather than a part of one."""
    seen = read_gpus()
    assert use_of(["0", "GPU-b"], seen) == GpuUse(0.5, 400 * MIB)
    assert use_of(["0", "MIG-x"], seen) is None and use_of([], seen) is None


def test_a_driver_that_does_not_answer(driver: Driver) -> None:
    """Hands out no GPU and says so to who asks."""
    driver.fails = {"nvmlDeviceGetCount"}
    assert read_gpus() == {} and visible_devices(None, None) == ()
    with pytest.raises(EngineError, match=r"the NVIDIA driver does not answer: .*nvidia-smi"):
        count_gpus()


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    nvml._has_driver.cache_clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert count_gpus() is None and read_gpus() == {}
    nvml._has_driver.cache_clear()  # pyright: ignore[reportPrivateUsage]


async def test_use_is_told_of_those_that_have_gpus(driver: Driver) -> None:
    plain, busy = Usage(0.1, 1000, 5.0), Usage(2.0, 2000, 5.0)
    measured = await with_gpus({"a": plain, "b": busy}, {"b": ("GPU-a",), "gone": ("GPU-b",)})
    assert measured == {"a": plain, "b": Usage(2.0, 2000, 5.0, gpus_busy=0.5, gpu_memory_bytes=100 * MIB)}


def test_what_swarm_handed_out_is_in_the_containers_environment() -> None:
    inspected = {"Config": {"Env": ["PATH=/bin", "DOCKER_RESOURCE_GPU=GPU-a,GPU-b"]}}
    assert devices_of(inspected) == ("GPU-a", "GPU-b")
    assert devices_of({"Config": {"Env": None}}) == ()
