"""The spectrum of a kernel, stored or not, with its certificate: whole, its largest part, or as a density."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.entk import certificates, quadrature
from workers.entk.certificates import Certificate, ExactTile
from workers.entk.lanczos import Progress, Save, check_count, lanczos
from workers.entk.operators import Operator, as_operator
from workers.entk.quadrature import Density, Estimate, ResidualDensity
from workers.errors import ConfigError, Diverged

# R rows of the kernel; K eigenpairs; N units; C outputs


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spectrum:
    """The K largest eigenvalues, ascending, of a kernel of R rows, in float64; eigenvectors (R, K) in columns, or None."""

    eigenvalues: Tensor
    eigenvectors: Tensor | None
    certificate: Certificate
    num_rows: int

    @property
    def is_whole(self) -> bool:
        """Whether every eigenvalue is there."""
        return len(self.eigenvalues) == self.num_rows

    @property
    def noise_floor(self) -> float:
        """Eigenvalues up to it are rounding."""
        return self.certificate.noise_floor

    @property
    def above_noise(self) -> Tensor:
        """Which eigenvalues (K,) are not rounding."""
        return self.eigenvalues > self.noise_floor

    def weights(self, residual: Any) -> Tensor:
        """gamma_k^2 (K,): the fraction of the squared residual (N, C) along each eigenvector (D1, D3); NaN where there is no residual.

        For a traced kernel, of N rows, the squares are summed over outputs. ConfigError without eigenvectors, or for another size.
        """
        if self.eigenvectors is None:
            raise ConfigError("weights need eigenvectors: spectrum(K, eigenvectors=True), or take residual_density(K, residual)")
        residual_RS = quadrature.starts(residual, self.num_rows).to(self.eigenvectors.device)
        return (self.eigenvectors.T @ residual_RS).square().sum(1) / residual_RS.square().sum()


def spectrum(
    K: Any,
    k: int | None = None,
    *,
    eigenvectors: bool = True,
    exact_tile: ExactTile | None = None,
    error: Estimate | None = None,
    tolerance: float | None = None,
    basis_size: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
    state: Mapping[str, Tensor] | None = None,
    callback: Callable[[Progress], None] | None = None,
    save: Save | None = None,
) -> Spectrum:
    """All eigenvalues of a symmetric kernel K (R, R), or the k largest: of a matrix of torch or NumPy, or of an operator.

    Whole spectra, and the largest part where that is cheaper, come from `torch.linalg.eigh` in float64, else from block Lanczos, to which
    `tolerance` and what follows go (see `lanczos`). `eigenvectors=False` saves their time, and leaves what they certify NaN.
    `exact_tile`: the noise floor from sampled exact tiles (see `double_tiles`) instead of the kernel's precision; `error`:
    from what `kernel_error` found before, such as beside a kernel that was stored.

    ConfigError where a kernel is not symmetric, or not positive semidefinite beyond its noise floor, where all eigenvalues of an
    operator are asked for, or for an error that is none; Diverged where it is not finite or a solver does not converge.

    >>> found = spectrum(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> [round(value, 6) for value in found.eigenvalues.tolist()]
    [1.0, 3.0]
    """
    operator = as_operator(K)
    num_rows = _checked(operator, k)
    _check_error(error, exact_tile)
    skewness = certificates.asymmetry(operator, seed=seed)
    certificates.refuse_asymmetric(operator, skewness)
    if isinstance(operator, Tensor) and is_whole_cheaper(num_rows, k, eigenvectors=eigenvectors):
        values_R, vectors_RR = _whole(operator, eigenvectors=eigenvectors)
        smallest = float(values_R[0])
    else:
        largest = lanczos(
            operator,
            k or num_rows,
            tolerance=tolerance,
            basis_size=basis_size,
            max_products=max_products,
            seed=seed,
            state=state,
            callback=callback,
            save=save,
        )
        values_R, vectors_RR, smallest = largest.eigenvalues_K, largest.eigenvectors_RK if eigenvectors else None, largest.lowest
    if exact_tile is not None:
        error = certificates.kernel_error(operator, exact_tile, seed=seed)
    certificates.refuse_negative(operator, smallest, float(values_R.abs().max()), error)
    first = len(values_R) - (k or len(values_R))
    return Spectrum(
        eigenvalues=values_R[first:],
        eigenvectors=None if vectors_RR is None else vectors_RR[:, first:],
        certificate=certificates.certify(operator, values_R, vectors_RR, smallest=smallest, asymmetry=skewness, error=error),
        num_rows=num_rows,
    )


def density(
    K: Any,
    largest: Spectrum | int = 50,
    *,
    num_probes: int = 32,
    num_steps: int = 32,
    block_size: int = 16,
    tolerance: float | None = None,
    seed: int = 0,
    state: Mapping[str, Tensor] | None = None,
    save: Callable[[dict[str, Tensor]], None] | None = None,
) -> Density:
    """The spectral density of a kernel or operator: entropy, effective rank, trace and any sum over eigenvalues, with standard errors.

    `largest`: how many of the largest eigenvalues are computed and count exactly, or a spectrum of this kernel with its eigenvectors. The
    others come from random probes, `block_size` at once (num_steps x R numbers of 8 bytes each); below 20 probes intervals are Student's.
    `save` is called after each block of probes with a state, from which a call with the same settings goes on.
    What lies under the noise floor counts as 0 (D11): for a large kernel in single precision give a spectrum with `exact_tile`.
    """
    operator = as_operator(K)
    if not isinstance(largest, Spectrum) and (not isinstance(largest, int) or isinstance(largest, bool) or largest < 0):
        raise ConfigError(f"largest must be a number of eigenvalues, at least 0, or a Spectrum of this kernel, got {largest!r}")
    if isinstance(largest, int):
        num_rows = _checked(operator, max(1, largest))
        largest = spectrum(operator, min(largest, num_rows) or 1, tolerance=tolerance, seed=seed)
    if largest.eigenvectors is None or largest.num_rows != operator.shape[0]:
        raise ConfigError("density needs a spectrum of the same kernel with its eigenvectors: spectrum(K, k, eigenvectors=True)")
    return quadrature.density(
        operator,
        largest.eigenvalues,
        largest.eigenvectors,
        noise_floor=largest.noise_floor,
        num_probes=num_probes,
        num_steps=num_steps,
        block_size=block_size,
        seed=seed,
        state=state,
        save=save,
    )


def residual_density(K: Any, residual: Any, *, num_steps: int = 64) -> ResidualDensity:
    """Where in the spectrum of a kernel or operator a residual (N, C) lies, from Lanczos started at it (D1, D3).

    For a traced kernel, of N rows, the C outputs are averaged. Its first moment is the Rayleigh quotient chi_pos x trace.
    """
    operator = as_operator(K)
    _checked(operator, 1)
    return quadrature.residual_density(operator, residual, num_steps=num_steps)


def is_whole_cheaper(num_rows: int, num_eigenvalues: int | None, *, eigenvectors: bool) -> bool:
    """Whether a dense solver takes less time than block Lanczos for the largest eigenvalues of a stored kernel.

    Measured on one core with spectra that have no gaps, the slowest for Lanczos: it wins from 1024 rows on up to a twentieth of the
    eigenpairs (0.12 s against 0.17 s, 4096 rows: 2.4 s against 13.7 s), and without eigenvectors up to a hundredth.
    """
    return num_eigenvalues is None or num_rows < 1024 or num_eigenvalues * (20 if eigenvectors else 100) > num_rows


def _checked(operator: Operator, num_eigenvalues: int | None) -> int:
    """The rows of a square and finite kernel."""
    rows, columns = operator.shape
    if rows != columns:
        raise ConfigError(f"eigenvalues are those of a square kernel, got one of shape {(rows, columns)}; take K(X, X)")
    # one pass without a mask of the kernel's size; what overflows here is looked at again
    if isinstance(operator, Tensor) and not operator.sum(dtype=torch.float64).isfinite() and not operator.isfinite().all():
        raise Diverged(f"the kernel has {int((~operator.isfinite()).sum())} entries that are no numbers; the network behind it diverged")
    if num_eigenvalues is None and not isinstance(operator, Tensor):
        raise ConfigError(
            f"all {rows} eigenvalues of an operator would need its matrix; give the number of the largest, or take density(operator)"
        )
    if num_eigenvalues is not None:
        check_count(num_eigenvalues, rows)
    return rows


def _check_error(error: Estimate | None, exact_tile: ExactTile | None) -> None:
    if error is not None and exact_tile is not None:
        raise ConfigError("exact_tile measures the kernel's error and error gives it: give one of the two")
    if error is None:
        return
    if not isinstance(error, Estimate) or not (0.0 <= error.value < math.inf and 0.0 <= error.standard_error < math.inf):
        raise ConfigError(
            f"error must be an Estimate of a norm, with numbers that are finite and not negative, got {error!r}; "
            "kernel_error(K, exact_tile) gives one"
        )


def _whole(stored_RR: Tensor, *, eigenvectors: bool) -> tuple[Tensor, Tensor | None]:
    matrix_RR = stored_RR.double()
    try:
        if eigenvectors:
            values_R, vectors_RR = torch.linalg.eigh(matrix_RR)
            return values_R, vectors_RR
        return torch.linalg.eigvalsh(matrix_RR), None
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise Diverged(f"the eigensolver did not converge: {error}") from error
