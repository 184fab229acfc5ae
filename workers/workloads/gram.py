"""The empirical neural tangent kernel of a trained network on a fixed probe set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.subsets import probe
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.train import Train, snapshot_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from workers.context import Context

FULL, TRACED, PROBE = "gram-full.npy", "gram-traced.npy", "probe.npz"
JACOBIAN_GIB = 0.5


@dataclass(frozen=True, kw_only=True)
class Gram(Workload):
    """The exact kernel of one snapshot, full and traced (D1), on images of the test set that depend on the data alone.

    Files: `gram-traced.npy` (N, N); with `full`, `gram-full.npy` (N C, N C), row n C + c; and `probe.npz` with outputs and residuals
    (N, C), labels and indices (N,).
    """

    version: ClassVar[int] = 1

    train: Train = Train()
    snapshot: str = setting("final", help="init, final, or the number of a step that train.num_snapshots keeps")
    probe_size: int = setting(16, low=1, help="images N of the probe set")
    full: bool = setting(True, help="store the full kernel too")
    dtype: str = setting("float64", choices=("float32", "float64"))

    def check(self) -> None:
        """The snapshot must be one that the training keeps, under one name."""
        steps = self.train.snapshot_steps()
        allowed = ["init", "final", *map(str, steps[1:-1])]
        if self.snapshot not in allowed:
            raise ConfigError(
                f"snapshot must be one of {', '.join(allowed)}, got {self.snapshot!r}; "
                "train.num_snapshots keeps more, and the first and last are called init and final"
            )

    def step(self) -> int:
        """The step of the snapshot."""
        named = {"init": 0, "final": self.train.num_steps}
        return named[self.snapshot] if self.snapshot in named else int(self.snapshot)

    def resources(self) -> Resources:
        """Two chunks of Jacobian, and the kernel a few times."""
        return Resources(memory_gib=1.0 + 3 * JACOBIAN_GIB + 4 * (10 * self.probe_size) ** 2 * 8 / 2**30)

    def estimated_seconds(self) -> float:
        """From one Xeon core and 28 x 28 images; the products of Jacobians grow with the square of the probe set."""
        return 0.1 + 4e-6 * getattr(self.train.model, "width", 32) * self.probe_size**2

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows `trace` (tr / (N C)), `probe_loss`, `num_units` and `num_outputs`."""
        import numpy as np
        import torch

        from workers import entk
        from workers.losses import loss_per_unit

        dtype = getattr(torch, self.dtype)
        module = self._module(context).to(context.device, dtype)
        inputs_N, labels_N, index_N = self._probe(context.device, dtype)
        with torch.no_grad():
            outputs_NC = module(inputs_N)
            loss_N = loss_per_unit(self.train.loss, outputs_NC, labels_N)
        num_outputs, chunk = outputs_NC.shape[1], _num_at_once(module, outputs_NC)
        if self.full:
            full = entk.gram_full(module, inputs_N, num_at_once=chunk)
            traced = entk.trace_over_outputs(full, num_outputs)
            with context.file(FULL) as path, path.open("wb") as file:
                np.save(file, full.cpu().numpy())
        else:
            traced = entk.gram_traced(module, inputs_N, num_at_once=chunk)
        with context.file(TRACED) as path, path.open("wb") as file:
            np.save(file, traced.cpu().numpy())
        self._save_probe(context, outputs_NC, labels_N, index_N)
        for name, value in (("trace", traced.trace() / len(traced)), ("probe_loss", loss_N.mean())):
            yield Row(step=self.step(), name=name, value=value.item())
        yield Row(step=self.step(), name="num_units", value=len(inputs_N))
        yield Row(step=self.step(), name="num_outputs", value=num_outputs)

    def _module(self, context: "Context") -> "nn.Module":
        train, name = context.input("train"), snapshot_name(self.step())
        if name not in train.file_names:
            raise ConfigError(
                f"the train task {train.commit.key} kept no {name}; it has {', '.join(train.file_names)}. Which snapshots are kept "
                "is not part of a task's key: retract that task and submit again with the larger train.num_snapshots"
            )
        return self.train.load_snapshot(train.file(name))

    def _probe(self, device: str, dtype: "torch.dtype") -> "tuple[Tensor, Tensor, Tensor]":
        import torch

        images = self.train.data.load()
        if self.probe_size > len(images.test_labels):
            raise ConfigError(
                f"probe_size must be at most {len(images.test_labels)}, the test images of this data set, got {self.probe_size}"
            )
        index_N = probe(len(images.test_labels), self.probe_size)
        inputs_N = torch.from_numpy(images.test_images[index_N]).to(device, dtype)
        return inputs_N, torch.from_numpy(images.test_labels[index_N]).to(device), torch.from_numpy(index_N)

    def _save_probe(self, context: "Context", outputs_NC: "Tensor", labels_N: "Tensor", index_N: "Tensor") -> None:
        import numpy as np

        from workers.losses import residual

        residuals_NC = residual(self.train.loss, outputs_NC, labels_N)
        arrays = {"outputs": outputs_NC, "residuals": residuals_NC, "labels": labels_N, "index": index_N}
        with context.file(PROBE) as path, path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{name: value.cpu().numpy() for name, value in arrays.items()})


def _num_at_once(module: "nn.Module", outputs_NC: "Tensor") -> int:
    """Samples whose Jacobian takes at most JACOBIAN_GIB."""
    num_params = sum(weights.numel() for weights in module.parameters())
    return max(1, int(JACOBIAN_GIB * 2**30 / (num_params * outputs_NC.shape[1] * outputs_NC.element_size())))
