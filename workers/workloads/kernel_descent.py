"""Gradient descent in function space with the kernel of a snapshot, which stands still: what a network does that learns no features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError, Diverged
from workers.schedule import log_spaced_steps
from workers.snapshots import check_snapshot, snapshot_file, snapshot_step
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.train import Train

if TYPE_CHECKING:
    from torch import Tensor

    from workers.context import Context

MOST_ROWS = 20_000

# N training samples, M test samples; C outputs; R = N C rows


@dataclass(frozen=True, kw_only=True)
class KernelDescent(Workload):
    """f <- f - learning_rate Theta u on the whole training set of `train`, from the outputs and with the full kernel of a snapshot (D9).

    Equal to training the linearised network (`frozen=linearised`) by SGD on whole batches; kernels (N C)^2 are held in memory. Theta is the
    kernel that drives it, J diag(factors of the learning rate) J^T (D8): with muP another than the raw one.
    """

    version: ClassVar[int] = 1

    train: Train = Train(train_size=64)
    snapshot: str = setting("init", help="init, final, or the number of a step that train.num_snapshots keeps")
    num_steps: int = setting(100, low=1)
    learning_rate: float = setting(0.1, above=0, help="of the mean loss; above 2 N / lambda_max it diverges for mse")
    num_evaluations: int = setting(8, low=2, help="log-spaced steps with rows; the first and the last always")
    test_size: int | None = setting(None, low=1, help="null: as many as train.test_size says")
    dtype: str = setting("float64", choices=("float32", "float64"))

    def check(self) -> None:
        """The snapshot must be one that the training keeps; its training set must be small enough for a kernel in memory."""
        check_snapshot(self.train, self.snapshot)
        shapes = self.train.data.shapes()
        if (size := self.train.train_size or (shapes[0][0] if shapes else 0)) > MOST_ROWS:
            raise ConfigError(
                f"train.train_size must be at most {MOST_ROWS} for a kernel in memory, got {size}; frozen=linearised needs none"
            )

    def resources(self) -> Resources:
        """Both kernels in double precision, twice while they are made."""
        rows = 10 * (self.train.train_size or 1000)
        return Resources(memory_gib=2.0 + 2 * rows * (rows + 10 * (self.test_size or self.train.test_size or 1000)) * 8 / 2**30)

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows of the losses and, on the training set, of chi_loss, chi_net, chi_pos_self and delta_loss_self (D3) by step."""
        import torch

        from workers import entk
        from workers.layers import rate_factors
        from workers.losses import loss_per_unit, residual

        loss, dtype, samples = self.train.loss, getattr(torch, self.dtype), self.train.data.load()
        step = snapshot_step(self.train, self.snapshot)
        module = self.train.load_snapshot(snapshot_file(context.input("train"), step)).to(context.device, dtype)
        inputs_N, targets_N = self.train.training_set(samples, context.device, dtype)
        inputs_M, targets_M = self.train.test_set(samples, context.device, dtype)
        inputs_M, targets_M = inputs_M[: self.test_size], targets_M[: self.test_size]
        with torch.no_grad():
            outputs_NC, outputs_MC = module(inputs_N), module(inputs_M)
        self._check_rows(outputs_NC)
        scales = rate_factors(module, normalised=False) or None
        own_RR, cross = entk.gram(module, inputs_N, scales=scales), entk.gram(module, inputs_M, inputs_N, scales=scales)
        chi_net = float(own_RR.trace()) / len(inputs_N)
        evaluated = set(log_spaced_steps(self.num_steps, self.num_evaluations))
        for at in range(self.num_steps + 1):
            residual_R = residual(loss, outputs_NC, targets_N).flatten()
            change_R = own_RR @ residual_R / len(inputs_N)
            if at in evaluated:
                context.progress(at, self.num_steps)
                losses = {"train_loss": loss_per_unit(loss, outputs_NC, targets_N), "test_loss": loss_per_unit(loss, outputs_MC, targets_M)}
                yield from self._rows(at, losses, residual_R, change_R, chi_net, len(inputs_N))
                if not targets_M.is_floating_point():
                    yield Row(step=at, name="test_accuracy", value=float((outputs_MC.argmax(-1) == targets_M).double().mean()))
            outputs_NC = outputs_NC - self.learning_rate * change_R.view_as(outputs_NC)
            outputs_MC = outputs_MC - self.learning_rate * (cross @ residual_R / len(inputs_N)).view_as(outputs_MC)

    def _rows(
        self, step: int, losses: "dict[str, Tensor]", residual_R: "Tensor", change_R: "Tensor", chi_net: float, num_units: int
    ) -> Iterator[Row]:
        for name, loss_N in losses.items():
            yield Row(step=step, name=name, value=float(loss_N.double().mean()))
        chi_loss, delta_loss = float(residual_R.square().sum()) / num_units, float(residual_R @ change_R) / num_units
        found = {"chi_loss": chi_loss, "chi_net": chi_net, "delta_loss_self": delta_loss}
        for name, value in (found | {"chi_pos_self": delta_loss / (chi_loss * chi_net) if chi_loss > 0 else float("nan")}).items():
            yield Row(step=step, name=name, value=value)
        if not all(loss_N.isfinite().all() for loss_N in losses.values()):
            raise Diverged(f"the loss is no number at step {step}; try a smaller learning_rate")

    def _check_rows(self, outputs_NC: "Tensor") -> None:
        if outputs_NC.numel() > MOST_ROWS:
            raise ConfigError(
                f"the kernel of {outputs_NC.shape[0]} samples with {outputs_NC[0].numel()} outputs has {outputs_NC.numel()} rows, and "
                f"{MOST_ROWS} are held in memory; take a smaller train.train_size, or frozen=linearised, which needs no kernel"
            )
