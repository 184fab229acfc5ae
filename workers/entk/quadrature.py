"""Sums over a spectrum that nobody computed, by Lanczos quadrature: trace, entropy, density, and where in the spectrum a residual lies.

G. H. Golub and G. Meurant, Matrices, Moments and Quadrature (2010); S. Ubaru, J. Chen and Y. Saad, Fast estimation of tr(f(A)) via
stochastic Lanczos quadrature, SIAM J. Matrix Anal. Appl. 38 (2017) 1075. The known largest eigenpairs are taken out first, and count
exactly.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from workers.entk import checks
from workers.entk.operators import Operator, apply, as_operator
from workers.errors import ConfigError, Diverged

# R rows of the kernel; K known eigenpairs; V probes or starts; S steps and nodes; C outputs; G points

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error over the probes; 0 where it is exact."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Density:
    """A spectrum as nodes and weights: K known eigenvalues of weight 1, and S nodes of each probe, whose weights sum to R - K on average.

    `known_trace`, `known_frobenius`: exact, or None: then they are estimated from the same probes. Nodes up to `noise_floor` count as 0
    (D11); a floor amid the spectrum is resolved only as finely as the nodes lie.
    """

    eigenvalues_K: Tensor
    nodes_VS: Tensor
    weights_VS: Tensor
    noise_floor: float
    num_rows: int
    known_trace: float | None
    known_frobenius: float | None

    def sum_of(self, function: Function) -> Estimate:
        """Sum of a function over all eigenvalues: sum_k f(lambda_k), for an elementwise function."""
        return self._mean(self._sums(function))

    @property
    def trace(self) -> Estimate:
        """Sum of the eigenvalues, those under the noise floor too where it is known."""
        return self.sum_of(torch.clone) if self.known_trace is None else Estimate(self.known_trace, 0.0)

    @property
    def frobenius(self) -> Estimate:
        """||Theta||_F, the root of the sum of squared eigenvalues."""
        if self.known_frobenius is not None:
            return Estimate(self.known_frobenius, 0.0)
        squares = self.sum_of(torch.square)
        root = math.sqrt(squares.value)
        return Estimate(root, squares.standard_error / (2 * root) if root > 0 else math.nan)

    @property
    def entropy(self) -> Estimate:
        """Von Neumann entropy -sum p ln p of p = lambda / trace, in nats; NaN for a kernel that is zero."""
        sums_V, traces_V = self._sums(torch.special.entr), self._sums(torch.clone)
        weighted, total = self._mean(sums_V).value, self._mean(traces_V).value
        if total <= 0:
            return Estimate(math.nan, math.nan)
        # -sum p ln p = Q / T + ln T; by the delta method its error is that of its linear part in each probe's Q and T
        linear_V = sums_V / total + traces_V * (1 / total - weighted / total**2)
        return Estimate(weighted / total + math.log(total), self._mean(linear_V).standard_error)

    @property
    def effective_rank(self) -> Estimate:
        """exp of the entropy (D11)."""
        entropy = self.entropy
        return Estimate(math.exp(entropy.value), math.exp(entropy.value) * entropy.standard_error)

    def smoothed(self, points_G: Tensor, width: float = 0.1) -> tuple[Tensor, Tensor]:
        """Eigenvalues per unit of ln lambda at positive points (G,), under a Gaussian of `width` in it, and their standard errors (G,)."""
        found = [self.sum_of(partial(_bump, point=point, width=width)) for point in points_G.double()]
        return torch.tensor([one.value for one in found]), torch.tensor([one.standard_error for one in found])

    def _sums(self, function: Function) -> Tensor:
        """The sum that each probe gives (V,)."""
        known, nodes_VS = (torch.where(values > self.noise_floor, values, 0.0) for values in (self.eigenvalues_K, self.nodes_VS))
        return function(known).sum() + (self.weights_VS * function(nodes_VS)).sum(1)

    def _mean(self, sums_V: Tensor) -> Estimate:
        """The mean over probes; where the trace is known, with what their errors in it tell."""
        if self.known_trace is None:
            return _mean(sums_V)
        traces_V = self.eigenvalues_K.sum() + (self.weights_VS * self.nodes_VS).sum(1)
        return _controlled_mean(sums_V, traces_V - self.known_trace)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ResidualDensity:
    """Where a residual lies in the spectrum: sum_k gamma_k^2 delta(lambda - lambda_k) as nodes, ascending, with weights that sum to 1.

    A Gauss quadrature: exact for polynomials of degree 2 S - 1. NaN weights where there is no residual.
    """

    nodes_S: Tensor
    weights_S: Tensor

    def mean_of(self, function: Function) -> float:
        """sum_k gamma_k^2 f(lambda_k) for an elementwise function."""
        return float((self.weights_S * function(self.nodes_S)).sum())

    @property
    def rayleigh_quotient(self) -> float:
        """u^T Theta u / ||u||^2 = chi_pos x trace (D3), exact."""
        return self.mean_of(lambda values: values)

    def quantile(self, share: float) -> float:
        """The least node at and under which at least this share of the squared residual lies."""
        index = int((self.weights_S.cumsum(0) < share * (1 - 1e-12)).sum())
        return float(self.nodes_S[min(index, len(self.nodes_S) - 1)])

    def smoothed(self, points_G: Tensor, width: float = 0.1) -> Tensor:
        """Share of the squared residual per unit of ln lambda at positive points (G,), under a Gaussian of `width` in ln lambda."""
        return torch.stack([(self.weights_S * _bump(self.nodes_S, point, width)).sum() for point in points_G.double()])


def density(
    operator: Operator,
    eigenvalues_K: Tensor,
    eigenvectors_RK: Tensor,
    *,
    noise_floor: float,
    num_probes: int = 32,
    num_steps: int = 32,
    block_size: int = 16,
    seed: int = 0,
    state: Mapping[str, Tensor] | None = None,
    save: Callable[[dict[str, Tensor]], None] | None = None,
) -> Density:
    """The density of a spectrum whose largest eigenpairs are known, from random probes in their complement.

    `block_size` probes go through the operator together and hold num_steps x R numbers each. `save` is called after each block with the
    nodes and weights so far, (V, S); with them as `state` the next probes follow. ConfigError for fewer than four probes.
    """
    for name, value in (("num_probes", num_probes), ("num_steps", num_steps), ("block_size", block_size)):
        checks.count(name, value)
    if num_probes < 4:
        raise ConfigError(f"num_probes must be at least 4 for a standard error, got {num_probes}")
    probes_RV = _without(eigenvectors_RK, _signs(operator, num_probes, seed))
    found = {name: value.to(operator.device) for name, value in (state or {}).items()}
    for start in range(len(found["nodes"]) if found else 0, num_probes, block_size):
        part = quadrature(operator, probes_RV[:, start : start + block_size], num_steps, eigenvectors_RK)
        found = {name: torch.cat([found[name], value]) if found else value for name, value in zip(("nodes", "weights"), part)}
        if save:
            save(found)
    stored_RR = operator.double() if isinstance(operator, Tensor) else None
    return Density(
        eigenvalues_K=eigenvalues_K,
        nodes_VS=found["nodes"],
        weights_VS=found["weights"],
        noise_floor=noise_floor,
        num_rows=operator.shape[0],
        known_trace=None if stored_RR is None else float(stored_RR.trace()),
        known_frobenius=None if stored_RR is None else float(torch.linalg.matrix_norm(stored_RR)),
    )


def residual_density(operator: Operator, residual: Any, *, num_steps: int = 64) -> ResidualDensity:
    """The density of a residual (N, C), by Lanczos started at it; for a traced kernel at each of its C outputs, which are averaged (D1)."""
    starts_RC = starts(residual, operator.shape[0]).to(operator.device)
    nodes_CS, weights_CS = quadrature(operator, starts_RC, num_steps)
    nodes_S, order_S = nodes_CS.flatten().sort()
    return ResidualDensity(nodes_S=nodes_S, weights_S=weights_CS.flatten()[order_S] / starts_RC.square().sum())


def starts(residual: Any, num_rows: int) -> Tensor:
    """A residual (N, C) of torch or NumPy in float64 as columns (R, 1) for a full kernel, (R, C) for a traced one; else ConfigError."""
    found = torch.as_tensor(residual).detach().to(torch.float64)
    if not found.isfinite().all():
        raise Diverged("the residual has numbers that are not finite; the network behind it diverged")
    if num_rows not in (found.numel(), found.shape[:-1].numel()):
        raise ConfigError(
            f"a residual of shape {tuple(found.shape)} does not fit a kernel of {num_rows} rows; give (N, C), with {num_rows} = N C or N"
        )
    return found.reshape(num_rows, -1)


def trace(kernel: Any, *, num_probes: int = 32, seed: int = 0) -> Estimate:
    """The trace: exact for a stored kernel, else Hutchinson's estimate from random signs."""
    operator = as_operator(kernel)
    if isinstance(operator, Tensor):
        return Estimate(float(operator.diagonal().double().sum()), 0.0)
    signs_RV = _signs(operator, num_probes, seed)
    return _mean((signs_RV * apply(operator, signs_RV)).sum(0))


def diagonal(kernel: Any, *, num_probes: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The diagonal (R,) and its standard errors: exact for a stored kernel, else estimated from random signs.

    C. Bekas, E. Kokiopoulou and Y. Saad, An estimator for the diagonal of a matrix, Appl. Numer. Math. 57 (2007) 1214.
    """
    operator = as_operator(kernel)
    if isinstance(operator, Tensor):
        exact_R = operator.diagonal().double()
        return exact_R, torch.zeros_like(exact_R)
    signs_RV = _signs(operator, num_probes, seed)
    found_RV = signs_RV * apply(operator, signs_RV)
    return found_RV.mean(1), found_RV.std(1) / num_probes**0.5


def quadrature(operator: Operator, starts_RV: Tensor, num_steps: int, deflated_RK: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nodes and weights (V, S) of v^T f(Theta) v for each start v, by as many Lanczos runs side by side.

    With `deflated_RK`, orthonormal columns, of the operator between projections on their complement, where the starts must lie.
    """
    num_rows, num_starts = starts_RV.shape
    num_steps = min(num_steps, num_rows)
    basis_VSR = starts_RV.new_zeros(num_starts, num_steps, num_rows)
    projected_VSS = starts_RV.new_zeros(num_starts, num_steps, num_steps)
    norms_V = starts_RV.norm(dim=0)
    newest_VR = _divided(starts_RV.T, norms_V, torch.zeros_like(norms_V))
    scale_V = torch.zeros_like(norms_V)
    for step in range(num_steps):
        basis_VSR[:, step] = newest_VR
        image_VR = _without(deflated_RK, apply(operator, newest_VR.T)).T
        scale_V = torch.maximum(scale_V, image_VR.norm(dim=1))
        so_far = basis_VSR[:, : step + 1]
        inside_VS = (so_far @ image_VR[..., None]).squeeze(-1)
        image_VR = image_VR - (inside_VS[:, None] @ so_far).squeeze(1)
        # twice, as in block Lanczos: lost orthogonality would count eigenvalues again
        image_VR = image_VR - ((so_far @ image_VR[..., None]).mT @ so_far).squeeze(1)
        beta_V = image_VR.norm(dim=1)
        newest_VR = _divided(image_VR, beta_V, num_rows * torch.finfo(torch.float64).eps * scale_V)
        projected_VSS[:, step, step] = inside_VS[:, step]
        if step + 1 < num_steps:
            projected_VSS[:, step + 1, step] = beta_V
    if not torch.isfinite(projected_VSS).all():
        raise Diverged("products with the kernel are not finite; the network behind it diverged")
    nodes_VS, vectors_VSS = torch.linalg.eigh(projected_VSS)
    return nodes_VS, vectors_VSS[:, 0].square() * norms_V[:, None].square()


def _divided(vectors_VR: Tensor, norms_V: Tensor, least_V: Tensor) -> Tensor:
    """Unit vectors, and zeros for those no longer than `least_V`: nothing leads out of an invariant subspace."""
    return torch.where((norms_V > least_V)[:, None], vectors_VR / norms_V[:, None], 0.0)


def _without(vectors_RK: Tensor | None, block_RV: Tensor) -> Tensor:
    return block_RV if vectors_RK is None else block_RV - vectors_RK @ (vectors_RK.T @ block_RV)


def _signs(operator: Operator, num_probes: int, seed: int) -> Tensor:
    generator = torch.Generator(operator.device).manual_seed(seed)
    bits = torch.randint(2, (operator.shape[1], num_probes), generator=generator, device=operator.device)
    return 2.0 * bits.to(torch.float64) - 1.0


def _mean(values_V: Tensor) -> Estimate:
    return Estimate(float(values_V.mean()), float(values_V.std()) / len(values_V) ** 0.5)


def _controlled_mean(values_V: Tensor, errors_V: Tensor) -> Estimate:
    """The mean, less what the probes' known errors in another sum explain of it: the intercept of a regression, with its error."""
    num, mean_error = len(values_V), errors_V.mean()
    squares = (errors_V - mean_error).square().sum()
    slope = torch.where(squares > 0, ((errors_V - mean_error) * values_V).sum() / squares, 0.0)
    leverage = 1 / num + torch.where(squares > 0, mean_error.square() / squares, 0.0)
    rest_V = values_V - slope * errors_V
    variance = rest_V.var() * (num - 1) / (num - 2)
    return Estimate(float(rest_V.mean()), float((variance * leverage).sqrt()))


def _bump(values: Tensor, point: Tensor, width: float) -> Tensor:
    """A Gaussian of area one in ln lambda; 0 for eigenvalues that are not positive."""
    distance = (values.clamp(min=torch.finfo(torch.float64).tiny).log() - point.log()) / width
    return (-0.5 * distance.square()).exp() / (width * math.sqrt(2 * math.pi))
