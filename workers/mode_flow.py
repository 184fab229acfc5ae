"""Gradient flow of a linear model whose kernel has a power law for spectrum, mode by mode: the truth for measurements."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# of reach (D10)
EPSILONS = (0.02, 0.05, 0.1)

# K modes; T times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModeFlow:
    """Of gradient flow df/dt = -Theta (f - y) on the loss 1/2 sum of squares, from f = 0, at each time (T,).

    `loss` is half of `chi_loss` = ||u||^2, `delta_loss` = u^T Theta u = -dL/dt, `chi_net` = tr Theta, and chi_pos their quotient (D3).
    """

    loss_T: "Array"
    delta_loss_T: "Array"
    chi_net: float

    @property
    def chi_loss_T(self) -> "Array":
        """||u||^2."""
        return 2.0 * self.loss_T

    @property
    def chi_pos_T(self) -> "Array":
        """delta_loss / (chi_loss chi_net)."""
        return self.delta_loss_T / (self.chi_loss_T * self.chi_net)

    def rate_T(self, times_T: "Array") -> "Array":
        """-d ln L / d ln t = 2 tr(Theta) t chi_pos: exact, as dL/dt = -delta_loss."""
        return 2.0 * self.chi_net * times_T * self.chi_pos_T

    def reach(self, times_T: "Array", epsilon: float) -> float:
        """-log10 chi_pos at the last of the times where -d ln L / d ln t >= epsilon (D10); NaN where that is none of them, or the last."""
        import numpy as np

        falling = np.flatnonzero(self.rate_T(times_T) >= epsilon)
        ended = len(falling) > 0 and falling[-1] < len(times_T) - 1
        return -float(np.log10(self.chi_pos_T[falling[-1]])) if ended else float("nan")


def mode_flow(eigenvalues_K: "Array", energies_K: "Array", times_T: "Array") -> ModeFlow:
    """The flow for eigenvalues lambda_k and energies (y . q_k)^2 of the target: L = 1/2 sum_k energy_k exp(-2 lambda_k t), in float64."""
    import numpy as np

    left_TK = np.exp(-2.0 * np.multiply.outer(times_T, eigenvalues_K)) * energies_K
    return ModeFlow(loss_T=0.5 * left_TK.sum(1), delta_loss_T=left_TK @ eigenvalues_K, chi_net=float(eigenvalues_K.sum()))


def power_law_modes(num_modes: int, spectrum_exponent: float, target_exponent: float, num_features: int | None) -> "tuple[Array, Array]":
    """Eigenvalues k^-a and target energies k^-b (K,), k from 1; a model of `num_features` has none beyond those of its eigenvalues."""
    import numpy as np

    k = np.arange(1.0, num_modes + 1.0)
    seen = k <= (num_modes if num_features is None else num_features)
    return np.where(seen, k**-spectrum_exponent, 0.0), k**-target_exponent


def closed_form_position(times_T: "Array", chi_net: float, spectrum_exponent: float, target_exponent: float) -> "Array":
    """chi_pos(t) = beta / (2 tr t), beta = (b - 1) / a, of an endless spectrum at late times (D5)."""
    return (target_exponent - 1.0) / spectrum_exponent / (2.0 * chi_net * times_T)


def closed_form_reach(
    epsilon: float, *, num_features: int, num_modes: int = 20_000, spectrum_exponent: float = 1.5, target_exponent: float = 1.8
) -> float:
    """The reach of `num_features` random features at the end of their learning, by gradient flow at 4,001 times (D10)."""
    import numpy as np

    values_K, energies_K = power_law_modes(num_modes, spectrum_exponent, target_exponent, num_features)
    times_T = np.geomspace(1.0, 100.0 * num_features**spectrum_exponent, 4001)
    # what the model has no modes for stays, and needs no exponential
    flow = mode_flow(values_K[:num_features], energies_K[:num_features], times_T)
    rest = 0.5 * energies_K[num_features:].sum()
    return ModeFlow(loss_T=flow.loss_T + rest, delta_loss_T=flow.delta_loss_T, chi_net=flow.chi_net).reach(times_T, epsilon)
