"""Energy that a job's GPUs have used, where NVIDIA's management library tells it."""

import importlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Meter:
    """Counts from when it is made. None where the library (`pip install nvidia-ml-py`), its driver or a GPU is silent."""

    gpus: tuple[str, ...]
    _library: Any = None
    _handles: list[Any] = field(default_factory=list)
    _begun: float = 0.0

    def __post_init__(self) -> None:
        if self.gpus:
            self._begun = self._read(begin=True) or 0.0

    def joules(self) -> float | None:
        """Since the beginning, of all GPUs together."""
        now = self._read(begin=False) if self._handles else None
        return None if now is None else round(now - self._begun, 3)

    def _read(self, *, begin: bool) -> float | None:
        try:
            if begin:
                self._library = importlib.import_module("pynvml")
                self._library.nvmlInit()
                self._handles = [self._handle(token) for token in self.gpus]
            millijoules = sum(int(self._library.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)
            return millijoules / 1000
        except Exception:  # absent, of another version, a MIG device or an old GPU: energy is never worth a failure
            self._handles = []
            return None

    def _handle(self, token: str) -> Any:
        if token.isdigit():
            return self._library.nvmlDeviceGetHandleByIndex(int(token))
        return self._library.nvmlDeviceGetHandleByUUID(token.encode())
