"""How far the kernel of a perceptron is from that of infinite width, on the same probe set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.models.mlp import Mlp
from workers.workload import Resources, Row, Workload
from workers.workloads.gram import PROBE, TRACED, Gram
from workers.workloads.train import Train

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class InfiniteWidth(Workload):
    """||Theta - Theta_inf|| / ||Theta_inf|| and other observables of the traced kernel (D1) against the analytic one, in float64.

    Of an MLP in NTK parameterisation with ReLU or erf (see `workers.infinite_width.mlp_kernel`).
    """

    version: ClassVar[int] = 1

    gram: Gram = Gram(train=Train(model=Mlp(parameterisation="ntk")), snapshot="init", full=False)

    def check(self) -> None:
        """The analytic kernel must be known."""
        model = self.gram.train.model
        if not isinstance(model, Mlp) or model.parameterisation != "ntk" or model.activation not in ("relu", "erf"):
            raise ConfigError(
                "infinite_width needs model=mlp with model.parameterisation=ntk and model.activation=relu or erf, got "
                f"model={model.plugin_name()} with {getattr(model, 'parameterisation', 'none')} and {getattr(model, 'activation', 'none')}"
            )

    def resources(self) -> Resources:
        """Two kernels with eigenvectors, as for their motion."""
        return Resources(memory_gib=1.0 + 10 * self.gram.probe_size**2 * 8 / 2**30)

    def estimated_seconds(self) -> float:
        """Mostly the data."""
        return 0.3

    def run(self, context: "Context") -> Iterator[Row]:
        """A row an observable of two kernels, the analytic one being the reference, at the step of `gram`."""
        import numpy as np
        import torch

        from workers.infinite_width import mlp_kernel
        from workers.kernel_data import observe_pair

        gram = context.input("gram")
        with np.load(gram.file(PROBE)) as arrays:
            index_N = arrays["index"]
        inputs_N, _ = self.gram.train.data.load().test(index_N, context.device, torch.float64)
        model = self.gram.train.model
        assert isinstance(model, Mlp)
        analytic_NN = mlp_kernel(model, inputs_N).cpu().numpy()
        for name, value in observe_pair(analytic_NN, np.load(gram.file(TRACED))).items():
            yield Row(step=self.gram.step(), name=f"{name}_traced", value=value)
        yield Row(step=self.gram.step(), name="num_rows", value=len(analytic_NN))
