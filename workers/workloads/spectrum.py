"""Eigenvalues of a kernel with their certificate, and the residual's projections on the eigenvectors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.snapshots import num_units
from workers.workload import Resources, Row, Rows, Workload, setting
from workers.workloads.gram import FULL, PROBE, TRACED, Gram

if TYPE_CHECKING:
    from workers.context import Context
    from workers.entk.certificates import Certificate


@dataclass(frozen=True, kw_only=True)
class Spectrum(Workload):
    """Eigenvalues (ascending) of the full or the traced kernel (D1), each with weight gamma_k^2 of the residual.

    The noise floor is the error of the kernel that the gram task measured (Weyl), or the rounding of one in double precision.
    Trace, entropy, effective rank and the other observables are functions of these rows (`workers/observables/`) and no settings.
    """

    version: ClassVar[int] = 2

    gram: Gram = Gram()
    kernel: str = setting("full", choices=("full", "traced"))
    num_eigenvalues: int | None = setting(None, low=1, help="the largest ones that are stored; null: all")

    def check(self) -> None:
        """The full kernel must have been stored."""
        if self.kernel == "full" and not self.gram.full:
            raise ConfigError("kernel=full needs gram.full=true, got false; or take kernel=traced")

    def resources(self) -> Resources:
        """The kernel, its eigenvectors and the products of the certificate."""
        return Resources(memory_gib=1.0 + 6 * (10 * num_units(self.gram.train, self.gram.probe_size)) ** 2 * 8 / 2**30)

    def estimated_seconds(self) -> float:
        """From one Xeon core: two seconds for 2000 rows of 10 outputs, with the third power."""
        return 0.02 + 2.0 * (num_units(self.gram.train, self.gram.probe_size) * (10 if self.kernel == "full" else 1) / 2000) ** 3

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """The table `spectra`, and rows that certify it: noise floor, residual, identities, orthogonality."""
        import numpy as np
        import torch

        from workers.entk import Estimate, spectrum

        gram, name = context.input("gram"), FULL if self.kernel == "full" else TRACED
        kernel_RR = np.load(gram.file(name))
        with np.load(gram.file(PROBE)) as arrays:
            residuals_NC, error = arrays["residuals"], Estimate(*arrays[f"error-{name}"].tolist())
        # no error was measured of a kernel in double precision, which has its rounding
        found = spectrum(torch.from_numpy(kernel_RR).to(context.device), error=error if error.value else None)
        first = max(0, found.num_rows - (self.num_eigenvalues or found.num_rows))
        weights = found.weights(residuals_NC)[first:]
        size = len(weights)
        columns = {
            "step": [self.gram.step()] * size,
            "index": range(first, first + size),
            "eigenvalue": found.eigenvalues[first:].tolist(),
            "weight": weights.tolist(),
        }
        yield Rows(table="spectra", columns=columns)
        yield Row(step=self.gram.step(), name="num_rows", value=found.num_rows)
        yield from self._certificate(found.certificate)
        for name, value in zip(("num_units", "num_outputs"), residuals_NC.shape):
            yield Row(step=self.gram.step(), name=name, value=value)

    def _certificate(self, certificate: "Certificate") -> Iterator[Row]:
        for name in ("noise_floor", "residual_norm", "trace_error", "frobenius_error", "orthogonality", "asymmetry", "psd"):
            yield Row(step=self.gram.step(), name=name, value=float(getattr(certificate, name)))
