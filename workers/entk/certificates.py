"""How far a spectrum can be trusted: the kernel's own error, and how well the eigenpairs fulfil what defines them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.entk.operators import Operator, apply, as_operator
from workers.entk.quadrature import Estimate
from workers.errors import ConfigError, Diverged

# R rows of the kernel; K eigenpairs; V probes; I, J rows and columns of a tile

ExactTile = Callable[[Tensor, Tensor], Tensor]
TILE_SIZE, NUM_TILES, NUM_PROBES = 32, 16, 16
# rounding of sums that are longer than the kernel has rows
LEAST_ROWS = 100
LARGEST_ERROR = 0.1
PANEL = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What certifies K eigenpairs of a kernel Theta; norms are Frobenius', all in float64.

    `noise_floor`: no eigenvalue is off by more; those up to it are rounding. With `kernel_error`, the estimated norm of Theta's error
    from sampled exact tiles, it is that norm plus two standard errors (Weyl); without (None), R x eps x lambda_max in Theta's dtype.
    `residual_norm`: ||Theta Q - Q Lambda|| / ||Theta||. `orthogonality`: ||Q^T Q - 1||. Both NaN without eigenvectors.
    `trace_error`, `frobenius_error`: of sum lambda against the trace, of sum lambda^2 against ||Theta||^2, relative; NaN unless all
    eigenvalues are there. `asymmetry`: ||Theta - Theta^T|| / ||Theta||, of an operator estimated from random products.
    `psd`: no eigenvalue, or no Ritz value that was met, is below minus the noise floor.
    """

    noise_floor: float
    kernel_error: Estimate | None
    residual_norm: float
    trace_error: float
    frobenius_error: float
    orthogonality: float
    asymmetry: float
    psd: bool


def rounding_floor(operator: Operator, largest: float) -> float:
    """R x eps x lambda_max: the rounding of a kernel in its own precision, as numpy.linalg.matrix_rank has it."""
    return operator.shape[0] * torch.finfo(operator.dtype).eps * abs(largest)


def noise_floor(operator: Operator, largest: float, error: Estimate | None) -> float:
    """What an eigenvalue can be off by; never below the rounding of the eigensolver."""
    if error is None:
        return rounding_floor(operator, largest)
    solver = operator.shape[0] * torch.finfo(torch.float64).eps * abs(largest)
    # the interval of the squared norm, which is what the tiles are a mean of
    return max(solver, math.sqrt(error.value**2 + 4 * error.value * error.standard_error))


def kernel_error(kernel: Any, exact_tile: ExactTile, *, seed: int = 0) -> Estimate:
    """||Theta - exact||_F from 16 tiles, each of 32 random rows and the same columns; the diagonal, of larger entries, counts apart.

    `kernel`: a matrix, an operator, or what has `shape`, `device` and `elements(rows, columns)`, which gives (I, J).
    `exact_tile(rows, columns)` takes indices (I,) and (J,) and gives the exact (I, J) in float64; ConfigError where it does not, and
    where the error is a tenth of the norm or more, as of tiles of another kernel; Diverged where tiles are not finite.
    """
    operator, generator = kernel if hasattr(kernel, "elements") else as_operator(kernel), torch.Generator().manual_seed(seed)
    num_rows, squares, norms = operator.shape[0], [], []
    for _ in range(NUM_TILES):
        index_I = torch.randperm(num_rows, generator=generator)[:TILE_SIZE].sort().values.to(operator.device)
        exact_II = exact_tile(index_I, index_I)
        if not isinstance(exact_II, Tensor) or exact_II.dtype != torch.float64 or exact_II.shape != (len(index_I),) * 2:
            told = f"{exact_II.dtype} {tuple(exact_II.shape)}" if isinstance(exact_II, Tensor) else type(exact_II).__name__
            raise ConfigError(f"exact_tile must give a float64 tensor of shape {(len(index_I),) * 2}, got {told}")
        squares.append(_squared_norm(_tile(operator, index_I, index_I) - exact_II, num_rows))
        norms.append(_squared_norm(exact_II, num_rows))
    squares_T = torch.stack(squares)
    found, norm = float(squares_T.mean().sqrt()), float(torch.stack(norms).mean().sqrt())
    _refuse_other(found, norm)
    return Estimate(found, float(squares_T.std()) / NUM_TILES**0.5 / (2 * found) if found else 0.0)


def _squared_norm(tile_II: Tensor, num_rows: int) -> Tensor:
    """||Theta||_F^2 from a tile of random rows and the same columns."""
    square_II, size = tile_II.square(), len(tile_II)
    diagonal = square_II.trace()
    return num_rows * diagonal / size + num_rows * (num_rows - 1) * (square_II.sum() - diagonal) / max(1, size * (size - 1))


def _refuse_other(error: float, norm: float) -> None:
    if not math.isfinite(norm):
        raise Diverged("the exact tiles have numbers that are not finite; the network behind them diverged")
    # rounding in any precision is far less
    if not error <= LARGEST_ERROR * norm:
        raise ConfigError(
            f"the kernel differs from its exact tiles by {error:.3g}, and their norm is {norm:.3g}: they are of different kernels. "
            "Give tiles of the same model, samples, outputs, scales and statistics, such as double_tiles(model, x, outputs)"
        )


def asymmetry(operator: Operator, *, seed: int = 0) -> float:
    """||Theta - Theta^T|| / ||Theta||: exact if stored, else from products with random signs; 0 for a kernel that is zero."""
    if isinstance(operator, Tensor):
        starts = range(0, len(operator), PANEL)
        # panels of the upper triangle: a difference of the whole would take as much memory as the kernel
        panels = ((operator[at : at + PANEL, at:].double(), operator[at:, at : at + PANEL].double()) for at in starts)
        difference = math.sqrt(2 * sum(float((rows - columns.T).square().triu().sum()) for rows, columns in panels))
        norm = float(torch.linalg.vector_norm(operator, dtype=torch.float64))
        return difference / norm if norm else 0.0
    num = min(NUM_PROBES, max(2, operator.shape[0]))
    generator = torch.Generator(operator.device).manual_seed(seed)
    bits = torch.randint(2, (operator.shape[0], num), generator=generator, device=operator.device)
    signs_RV = 2.0 * bits.to(torch.float64) - 1.0
    images_RV = apply(operator, signs_RV)
    norm = float(images_RV.square().sum(0).mean().sqrt())
    cross_VV = signs_RV.T @ images_RV
    return float((cross_VV - cross_VV.T).norm()) / math.sqrt(num * (num - 1)) / norm if norm else 0.0


def refuse_asymmetric(operator: Operator, found: float) -> None:
    """ConfigError where a kernel differs from its transpose by more than rounding."""
    allowed = max(operator.shape[0], LEAST_ROWS) * torch.finfo(operator.dtype).eps
    if not found <= allowed:
        raise ConfigError(
            f"the kernel is not symmetric: ||K - K^T|| / ||K|| is {found:.3g}, and at most {allowed:.3g} is rounding; "
            "a spectrum is that of K(X, X), not of a cross kernel K(X, Z)"
        )


def refuse_negative(operator: Operator, smallest: float, largest: float, error: Estimate | None) -> None:
    """ConfigError where an eigenvalue is negative beyond the noise floor; kernels of few rows may round as those of 100 do."""
    least = LEAST_ROWS * torch.finfo(operator.dtype).eps * largest if error is None else 0.0
    floor = max(noise_floor(operator, largest, error), least)
    if smallest < -floor:
        raise ConfigError(
            f"the kernel is not positive semidefinite: it has an eigenvalue {smallest:.6g}, below minus its noise floor {floor:.3g}; "
            "an empirical tangent kernel is J J^T: look for an error in its rows, or give exact_tile if it was computed in low precision"
        )


def certify(
    operator: Operator,
    eigenvalues_K: Tensor,
    eigenvectors_RK: Tensor | None,
    *,
    smallest: float,
    asymmetry: float,
    error: Estimate | None,
) -> Certificate:
    """The certificate of eigenvalues, ascending, with eigenvectors in columns. `smallest`: the smallest Ritz value that was met."""
    floor = noise_floor(operator, float(eigenvalues_K.abs().max()), error)
    squares = float(eigenvalues_K.square().sum())
    trace_error = frobenius_error = residual_norm = orthogonality = math.nan
    norm = math.sqrt(squares) or 1.0
    if isinstance(operator, Tensor):
        operator = stored_RR = operator.double()
        norm = float(torch.linalg.vector_norm(stored_RR)) or 1.0
        if len(eigenvalues_K) == len(stored_RR):
            trace = float(stored_RR.trace())
            trace_error = abs(float(eigenvalues_K.sum()) - trace) / (abs(trace) or 1.0)
            frobenius_error = abs(squares - norm**2) / norm**2 if squares else 0.0
    if eigenvectors_RK is not None:
        residual_norm = float((apply(operator, eigenvectors_RK) - eigenvectors_RK * eigenvalues_K).norm()) / norm
        gram_KK = eigenvectors_RK.T @ eigenvectors_RK
        orthogonality = float((gram_KK - torch.eye(len(gram_KK), dtype=gram_KK.dtype, device=gram_KK.device)).norm())
    return Certificate(
        noise_floor=floor,
        kernel_error=error,
        residual_norm=residual_norm,
        trace_error=trace_error,
        frobenius_error=frobenius_error,
        orthogonality=orthogonality,
        asymmetry=asymmetry,
        psd=smallest >= -floor,
    )


def _tile(operator: Any, rows: Tensor, columns: Tensor) -> Tensor:
    if isinstance(operator, Tensor):
        return operator[rows][:, columns].double()
    if hasattr(operator, "elements"):
        found: Tensor = operator.elements(rows, columns).double()
        return found
    units_SJ = torch.zeros(operator.shape[1], len(columns), dtype=torch.float64, device=operator.device)
    units_SJ[columns, torch.arange(len(columns), device=operator.device)] = 1.0
    return apply(operator, units_SJ)[rows]
