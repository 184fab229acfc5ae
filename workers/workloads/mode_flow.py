"""The loss and the spectral position of random features with a known power-law spectrum, without any training: the truth of D5 and D10."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.schedule import log_spaced_steps
from workers.workload import Resources, Row, Workload, setting

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class ModeFlow(Workload):
    """Gradient flow on 1/2 sum of squares with eigenvalues k^-a, of which `num_features` are there, and target energies k^-b.

    A step is a unit of time: gradient descent with rate 1, which is stable as the largest eigenvalue is 1.
    """

    version: ClassVar[int] = 1

    spectrum_exponent: float = setting(1.5, above=1, help="a")
    target_exponent: float = setting(1.8, above=1, help="b")
    num_features: int | None = setting(None, low=1, help="P: modes that the model has; null: all")
    num_modes: int = setting(20_000, low=2, help="of the target; fewer cut its tail, which late times show (D5)")
    num_steps: int = setting(1_000_000, low=8)
    num_evaluations: int = setting(200, low=8, help="log-spaced steps with rows")

    def check(self) -> None:
        """The model's modes are among the target's."""
        if self.num_features is not None and self.num_features > self.num_modes:
            raise ConfigError(f"num_features must be at most num_modes={self.num_modes}, got {self.num_features}")

    def resources(self) -> Resources:
        """A table of modes by times."""
        return Resources(memory_gib=1.0 + 3 * self.num_modes * self.num_evaluations * 8 / 2**30, walltime_minutes=10.0)

    def estimated_seconds(self) -> float:
        """Exponentials, on one Xeon core."""
        return 0.2 + 1e-8 * self.num_modes * self.num_evaluations

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows test_loss, chi_loss, chi_net, chi_pos, delta_loss by step; then beta, num_params and the exact `reach_<epsilon>` (D10)."""
        import numpy as np

        from workers.mode_flow import EPSILONS, mode_flow, power_law_modes

        steps_T = np.array(log_spaced_steps(self.num_steps, self.num_evaluations)[1:], dtype=np.float64)
        values_K, energies_K = power_law_modes(self.num_modes, self.spectrum_exponent, self.target_exponent, self.num_features)
        flow = mode_flow(values_K, energies_K, steps_T)
        columns = {"test_loss": flow.loss_T, "chi_loss": flow.chi_loss_T, "chi_pos": flow.chi_pos_T, "delta_loss": flow.delta_loss_T}
        for at, step in enumerate(steps_T):
            for name, values in columns.items():
                yield Row(step=int(step), name=name, value=float(values[at]))
            yield Row(step=int(step), name="chi_net", value=flow.chi_net)
        yield Row(step=self.num_steps, name="num_params", value=self.num_features or self.num_modes)
        yield Row(step=self.num_steps, name="beta", value=(self.target_exponent - 1.0) / self.spectrum_exponent)
        for epsilon in EPSILONS:
            yield Row(step=self.num_steps, name=f"reach_{epsilon}", value=flow.reach(steps_T, epsilon))
