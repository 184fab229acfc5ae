"""GPUs as a child finds them, and the energy that they use; the driver, torch and the management library are pretended."""

import ctypes
import sys
import types

import pytest

from workers import gpu_check
from workers.energy import Meter


class Driver:
    """libcuda.so.1 on a machine that shows `count` GPUs."""

    def __init__(self, count: int, status: int = 0) -> None:
        self.count, self.status = count, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = self.count
        return 0


@pytest.fixture
def driver(monkeypatch):
    """Installs a driver."""
    return lambda *given: monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(*given))


@pytest.fixture
def torch(monkeypatch):
    """Has torch loaded, with so many GPUs."""

    def load(count: int, cuda: str | None = "12.4") -> None:
        module = types.SimpleNamespace(version=types.SimpleNamespace(cuda=cuda), cuda=types.SimpleNamespace(device_count=lambda: count))
        monkeypatch.setitem(sys.modules, "torch", module)

    return load


def test_the_variable_must_hold_what_was_given(driver, monkeypatch):
    driver(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpu_check.unmet(["0", "1"]) == ""
    assert gpu_check.unmet(["1"]) == "CUDA_VISIBLE_DEVICES is '0,1', expected '1'"


@pytest.mark.parametrize(("found", "seen"), [((1,), 1), ((0, 100), 0)])
def test_the_driver_must_show_as_many(driver, monkeypatch, found, seen):
    driver(*found)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert gpu_check.unmet(["GPU-a", "GPU-b"]) == f"the driver sees {seen} GPUs under CUDA_VISIBLE_DEVICES=GPU-a,GPU-b, expected 2"


@pytest.mark.parametrize("status", [3, 999])
def test_a_driver_that_cannot_be_asked_says_nothing(driver, monkeypatch, status):
    driver(0, status)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpu_check.unmet(["0"]) == ""


def test_without_gpus_no_driver_is_asked(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_check.unmet([]) == ""


def test_torch_must_see_as_many(torch):
    torch(2)
    assert gpu_check.torch_unmet(["0", "1"]) == ""
    assert gpu_check.torch_unmet(["0"]) == "torch sees 2 GPUs under CUDA_VISIBLE_DEVICES=0, expected 1"
    torch(0, None)
    assert gpu_check.torch_unmet(["0"]) == ""


class Nvml:
    """pynvml, with a counter of millijoules that rises by 1,500 at each look."""

    def __init__(self) -> None:
        self.total = 10_000

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, number: int) -> str:
        return f"gpu {number}"

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        if uuid.startswith(b"MIG"):
            raise RuntimeError("not supported")
        return uuid.decode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self.total += 1500
        return self.total


def test_energy_counts_from_the_beginning_of_the_job(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert Meter(("0",)).joules() == 1.5
    assert Meter(("GPU-a", "1")).joules() == 6.0


@pytest.mark.parametrize("gpus", [(), ("MIG-a",), ("0",)])
def test_where_it_cannot_be_told_energy_is_none(monkeypatch, gpus):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml() if gpus == ("MIG-a",) else None)
    assert Meter(gpus).joules() is None
