"""The kernel along a training: what is observed of it on a fixed probe set at log-spaced steps, and how far it has moved."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.models.mlp import Mlp
from workers.schedule import log_spaced_steps
from workers.snapshots import check_loss, check_probe, network_and_probe
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.train import Train

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from workers.context import Context

MEMORY_GIB = 1.0


@dataclass(frozen=True, kw_only=True)
class KernelDynamics(Workload):
    """All observables of the kernel at `num_kernels` steps of a training, in one task that keeps no kernel.

    Those of a kernel and of its spectrum at each step; those of two kernels against that of initialisation; `linearisation_gap` and
    `relative_weight_change` since then; and `infinite_width_distance` where the kernel of infinite width is known.
    """

    version: ClassVar[int] = 2

    train: Train = Train()
    num_kernels: int = setting(2, low=2, help="log-spaced steps, the first and the last always; train.num_snapshots must keep them")
    probe_size: int = setting(16, low=2, help="samples N of the probe set")
    kernel: str = setting("full", choices=("full", "traced"))
    driving: bool = setting(False, help="J diag(factors of the learning rate) J^T, which drives training with muP (D8), not the raw J J^T")
    dtype: str = setting("float64", choices=("float32", "float64"))

    def steps(self) -> tuple[int, ...]:
        """The steps at which there is a kernel."""
        return log_spaced_steps(self.train.num_steps, self.num_kernels)

    def check(self) -> None:
        """The training must keep a snapshot of each step, of a loss without a temperature; no more samples than the test set has."""
        check_loss(self.train)
        check_probe(self.train, self.probe_size)
        if missing := sorted(set(self.steps()) - set(self.train.snapshot_steps())):
            raise ConfigError(
                f"num_kernels={self.num_kernels} needs snapshots of the steps {', '.join(map(str, self.steps()))}, and train.num_snapshots="
                f"{self.train.num_snapshots} does not keep {', '.join(map(str, missing))}; take train.num_snapshots={self.num_kernels}"
            )

    def resources(self) -> Resources:
        """Two kernels, eigenvectors and their products."""
        return Resources(memory_gib=3.0 + 8 * (10 * self.probe_size) ** 2 * 8 / 2**30)

    def estimated_seconds(self) -> float:
        """From one Xeon core, with the third power of the rows."""
        return 0.3 + self.num_kernels * (0.05 + 6.0 * (self.probe_size * (10 if self.kernel == "full" else 1) / 2000) ** 3)

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows by step, as the classes `Gram`, `Spectrum` and `Motion` have them; names of the traced kernel's end in `_traced`."""
        start = None
        for count, step in enumerate(self.steps()):
            module, inputs_N, targets_N, _ = network_and_probe(context, self.train, step, self.probe_size, self.dtype)
            seen = _Seen(self, module, inputs_N, targets_N)
            for name, value in (seen.values() | ({} if start is None else seen.since(start, step))).items():
                yield Row(step=step, name=name, value=value)
            start = start or seen
            context.progress(count + 1, len(self.steps()))


class _Seen:
    """A network at one step, with its kernel on the probe set."""

    def __init__(self, settings: KernelDynamics, module: "nn.Module", inputs_N: "Tensor", targets_N: "Tensor") -> None:
        import torch

        from workers import entk
        from workers.layers import rate_factors
        from workers.losses import residual

        self.settings, self.module, self.inputs_N, self.targets_N = settings, module, inputs_N, targets_N
        with torch.no_grad():
            self.outputs_NC = module(inputs_N)
        self.residuals_NC = residual(settings.train.loss, self.outputs_NC, targets_N)
        scales = rate_factors(module, normalised=settings.train.optimizer.normalised) if settings.driving else {}
        self.kernel_RR = entk.gram(module, inputs_N, outputs=settings.kernel, memory_gib=MEMORY_GIB, scales=scales or None)

    def values(self) -> dict[str, float]:
        """Of this kernel alone."""
        from workers import entk
        from workers.kernel_data import observe_kernel, of_spectrum
        from workers.losses import loss_per_unit, values
        from workers.spectrum_data import observe

        labels_N = None if self.targets_N.is_floating_point() else self.targets_N
        targets_NC = values(self.targets_N, self.residuals_NC.shape[-1])
        loss_N = loss_per_unit(self.settings.train.loss, self.outputs_NC, self.targets_N)
        found = {"probe_loss": float(loss_N.mean()), "num_units": len(self.inputs_N), "num_outputs": self.residuals_NC.shape[-1]}
        found |= observe(of_spectrum(entk.spectrum(self.kernel_RR), self.residuals_NC))
        return found | observe_kernel(self.kernel_RR, self.residuals_NC, targets_NC, labels_N) | self._infinite_width()

    def since(self, start: "_Seen", step: int) -> dict[str, float]:
        """Against the network of initialisation."""
        from workers.kernel_data import observe_pair
        from workers.observables.linearisation_gap import linearisation_gap
        from workers.observables.relative_weight_change import relative_weight_change

        suffix = "_traced" if self.settings.kernel == "traced" else ""
        found = {f"{name}{suffix}": value for name, value in observe_pair(start.kernel_RR, self.kernel_RR, num_steps=step).items()}
        before, after = start._weights(), self._weights()
        if before.keys() != after.keys():  # frozen on the way: another network
            return found
        return found | {
            "linearisation_gap": linearisation_gap(self._outputs_of, before, after),
            "relative_weight_change": relative_weight_change(before, after),
        }

    def _weights(self) -> "dict[str, torch.Tensor]":
        return dict(self.module.named_parameters())

    def _outputs_of(self, weights: "Mapping[str, Tensor]") -> "Tensor":
        from torch.func import functional_call

        return functional_call(self.module, dict(weights), (self.inputs_N,))  # type: ignore[no-any-return]

    def _infinite_width(self) -> dict[str, float]:
        """Relative distance to the kernel of infinite width, of the same form."""
        import torch

        from workers.infinite_width import ACTIVATIONS, mlp_kernel

        model = self.settings.train.model
        if not isinstance(model, Mlp) or model.parameterisation != "ntk" or model.activation not in ACTIVATIONS:
            return {}
        limit_RR = mlp_kernel(model, self.inputs_N)
        if self.settings.kernel == "full":
            limit_RR = torch.kron(limit_RR, torch.eye(self.outputs_NC.shape[-1]).to(limit_RR))
        return {"infinite_width_distance": float((self.kernel_RR - limit_RR).norm() / limit_RR.norm())}
