"""Average top-1 error of downstream tasks against validation loss: error = epsilon - k exp(-gamma loss) (Gadre et al. 2024, equation 5)."""

# B resamples, N points, P internal parameters (ln epsilon, ln k, ln gamma), G rates of the start's grid

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fitting.projection import best_of
from orchestrator.laws.law import Array, Law, Term


@dataclass(frozen=True, kw_only=True)
class TaskError(Law):
    """`epsilon` is the error of a model that knows nothing."""

    def variables(self) -> tuple[str, ...]:
        """The loss that the error is predicted from."""
        return ("loss",)

    def scale(self, u_NV: Array) -> Array:
        """The lower the loss the larger the run."""
        scale_N: Array = -u_NV[:, 0]
        return scale_N

    def terms(self) -> tuple[Term, ...]:
        """Error of chance, amplitude, and rate in 1 / loss."""
        rate = Term(name="gamma", log=True, x_power=-1, low=-12.0, high=6.0)
        return (Term.amplitude("epsilon"), Term.amplitude("k"), rate)

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """The best rates of a grid, with the two linear terms solved for."""
        import numpy as np

        rate_G = np.linspace(-4.0, 4.0, 161)
        fall_GN = np.exp(-np.exp(rate_G)[:, None] * np.exp(u_NV[:, 0]))
        weight_N = np.exp(-v_N)
        columns_GN2 = np.stack([np.broadcast_to(weight_N, fall_GN.shape), -fall_GN * weight_N], axis=-1)
        gram_G22 = np.matmul(columns_GN2.transpose(0, 2, 1), columns_GN2) + 1e-13 * np.eye(2)
        solved_G2 = np.linalg.solve(gram_G22, columns_GN2.sum(axis=1)[:, :, None])[:, :, 0]
        error_G = ((np.matmul(columns_GN2, solved_G2[:, :, None])[:, :, 0] - 1) ** 2).sum(axis=1)
        theta_GP = np.column_stack([np.log(np.maximum(solved_G2, 1e-12)), rate_G])
        return best_of(theta_GP, np.where((solved_G2 > 0).all(axis=1), error_G, np.inf), rate_G.shape)

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """The logarithm of the difference, where that is positive, and its analytic derivatives."""
        import numpy as np

        loss_N = np.exp(u_NV[:, 0])
        rate_B1 = np.exp(theta_BP[:, 2:3])
        top_B1 = np.exp(theta_BP[:, :1])
        fall_BN = np.exp(np.clip(theta_BP[:, 1:2] - rate_B1 * loss_N, -300.0, 300.0))
        total_BN = np.maximum(top_B1 - fall_BN, 1e-9 * top_B1)
        derivatives = [top_B1 / total_BN, -fall_BN / total_BN, rate_B1 * loss_N * fall_BN / total_BN]
        return np.log(total_BN), np.stack(derivatives, axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`error = epsilon - k exp(-gamma loss)`."""
        return f"{y} = {values['epsilon']} - {values['k']} exp(-{values['gamma']} {columns['loss']})"
