"""The empirical neural tangent kernel of a trained network on a fixed probe set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.snapshots import check_probe, check_snapshot, minutes_to_replay, network_and_probe, num_units, seconds_to_replay, snapshot_step
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.train import Train

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workers.context import Context
    from workers.entk import Estimate

FULL, TRACED, PROBE = "gram-full.npy", "gram-traced.npy", "probe.npz"
OUTPUTS = {FULL: "full", TRACED: "traced"}
MEMORY_GIB = 1.0  # beside the kernel
# observables that take the third power of the rows are left out of larger kernels
MOST_ROWS_DECOMPOSED = 4096


@dataclass(frozen=True, kw_only=True)
class Gram(Workload):
    """The exact kernel of one snapshot, full and traced (D1), on images of the test set that depend on the data alone.

    Files: `gram-traced.npy` (N, N); with `full`, `gram-full.npy` (N C, N C), row n C + c; and `probe.npz` with outputs and residuals
    (N, C), labels (N,), the indices of the samples, and the distance of each kernel from the exact one. The N units of B sequences of T
    tokens are all B T tokens, sequence by sequence.
    """

    version: ClassVar[int] = 2

    train: Train = Train()
    snapshot: str = setting("final", help="init, final, or the number of a step; trained again where train.num_snapshots keeps it not")
    probe_size: int = setting(16, low=1, help="samples of the probe set (images, sequences)")
    full: bool = setting(True, help="store the full kernel too")
    dtype: str = setting("float64", choices=("float32", "float64"))

    def check(self) -> None:
        """The snapshot must be one that the training keeps, under one name; no more images than the test set has."""
        check_snapshot(self.train, self.snapshot, replays=True)
        check_probe(self.train, self.probe_size)

    def step(self) -> int:
        """The step of the snapshot."""
        return snapshot_step(self.train, self.snapshot)

    def resources(self) -> Resources:
        """The blocks of the engine, and the kernel a few times."""
        memory_gib = 1.0 + 2 * MEMORY_GIB + 4 * (10 * num_units(self.train, self.probe_size)) ** 2 * 8 / 2**30
        return Resources(memory_gib=memory_gib, walltime_minutes=minutes_to_replay(self.train, self.step()))

    def estimated_seconds(self) -> float:
        """From one Xeon core: products of layers grow with the square of the probe set; exact tiles take a millisecond a row and output."""
        width, pooling = getattr(self.train.model, "width", 32), getattr(self.train.model, "input_pooling", None)
        tiles = 1e-3 * 16 * min(32, self.probe_size) * 11 if self.dtype == "float32" else 0.0
        return (
            0.3
            + seconds_to_replay(self.train, self.step())
            + (1e-8 if pooling is None else 1e-6) * width * num_units(self.train, self.probe_size) ** 2
            + tiles
        )

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows `trace` (tr / (N C)), `probe_loss`, `num_units`, `num_outputs`, `kernel_error` (of the traced one), and all observables."""
        import torch

        from workers import entk
        from workers.losses import loss_per_unit, residual, units

        module, inputs_N, labels_N, index_N = network_and_probe(context, self.train, self.step(), self.probe_size, self.dtype, replays=True)
        with torch.no_grad():
            outputs_NC, labels_N = units(module(inputs_N), labels_N)
            loss_N = loss_per_unit(self.train.loss, outputs_NC, labels_N)
        kernels: dict[str, Tensor] = {}
        for name in (TRACED, FULL) if self.full else (TRACED,):
            progress = self._progress(context, len(kernels))
            kernels[name] = entk.gram(module, inputs_N, outputs=OUTPUTS[name], memory_gib=MEMORY_GIB, progress=progress)
        errors = {name: self._error(module, inputs_N, name, kernel) for name, kernel in kernels.items()}
        residuals_NC = residual(self.train.loss, outputs_NC, labels_N)
        self._save(context, kernels)
        self._save_probe(context, errors, outputs=outputs_NC, residuals=residuals_NC, labels=labels_N, index=index_N)
        values = {"trace": kernels[TRACED].trace().item() / len(outputs_NC), "probe_loss": loss_N.mean().item()}
        values |= {"num_units": len(outputs_NC), "num_outputs": outputs_NC.shape[1], "kernel_error": errors[TRACED].value}
        for name, value in (values | self._observed(kernels, residuals_NC, labels_N)).items():
            yield Row(step=self.step(), name=name, value=value)

    def _progress(self, context: "Context", index: int) -> Callable[[int, int], None]:
        """Of one kernel after the other, as of one piece of work."""
        count = 1 + self.full
        return lambda done, total: context.progress(index * total + done, count * total)

    def _error(self, module: "nn.Module", inputs_N: "Tensor", name: str, kernel: "Tensor") -> "Estimate":
        """||kernel - exact||_F from sampled tiles in float64; a kernel in float64 is as exact as they are."""
        from workers import entk

        if self.dtype == "float64":
            return entk.Estimate(0.0, 0.0)
        return entk.kernel_error(kernel, entk.double_tiles(module, inputs_N, OUTPUTS[name]))

    def _observed(self, kernels: "dict[str, Tensor]", residuals_NC: "Tensor", labels_N: "Tensor") -> dict[str, float]:
        """What is observed of the kernels themselves (`workers/observables/`); labels are one-hot targets."""
        from workers.kernel_data import observe_kernel
        from workers.losses import values

        targets_NC = values(labels_N, residuals_NC.shape[1])
        labels = None if labels_N.is_floating_point() else labels_N
        found: dict[str, float] = {}
        for kernel in kernels.values():
            without = ("cosine_entropy",) if len(kernel) > MOST_ROWS_DECOMPOSED else ()
            found |= observe_kernel(kernel, residuals_NC, targets_NC, labels, without=without)
        return found

    def _save(self, context: "Context", kernels: "dict[str, Tensor]") -> None:
        import numpy as np

        for name, kernel in kernels.items():
            with context.file(name) as path, path.open("wb") as file:
                np.save(file, kernel.cpu().numpy())

    def _save_probe(self, context: "Context", errors: "dict[str, Estimate]", **arrays: "Tensor") -> None:
        import numpy as np

        found = {name: value.cpu().numpy() for name, value in arrays.items()}
        found |= {f"error-{name}": np.array([error.value, error.standard_error]) for name, error in errors.items()}
        with context.file(PROBE) as path, path.open("wb") as file:
            np.savez(file, allow_pickle=False, **found)
