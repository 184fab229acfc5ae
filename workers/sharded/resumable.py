"""The largest eigenvalues of a sharded kernel and the density of the others, going on from what a killed attempt has left."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers import files
from workers.context import Context
from workers.sharded.engines import Question
from workers.sharded.findings import certificate, certificate_of, known_error

if TYPE_CHECKING:
    from torch import Tensor

    from workers.entk import Density, Progress, Spectrum
    from workers.sharded.products import ShardedKernel

# of the time, at most, that goes into saving
MOST_SAVING = 0.03
LANCZOS, DENSITY = "lanczos", "density"
# by it a rank tells the task, which waits, from which checkpoint it goes on
RESUMED = "resumed-"


def find_largest(
    context: Context, kernel: "ShardedKernel", question: Question, *, every_seconds: float
) -> "tuple[Spectrum, Density | None]":
    """The largest eigenpairs, and the density of the others where there are any; in the first rank, whose `context` keeps checkpoints.

    A checkpoint is written after a block of Lanczos or of probes where `every_seconds` have passed since the last, or 33 times what that
    took (0: after every block); a later attempt goes on from the newest. At the warning one is written after the block, and Interrupted
    raised. Their steps count products with a vector, those of earlier attempts too.
    """
    from workers import entk

    saved = context.restore()
    done, stage = (saved.step, saved.meta["stage"]) if saved else (0, "")
    tensors: Mapping[str, Tensor] = saved.tensors if saved else {}
    if saved:
        files.publish(context.folder / f"{RESUMED}{done:012d}.json", files.encode({}))
        context.log(f"goes on after {done:,} products with a vector by earlier attempts")
    saving = _Saving(context, kernel, done - kernel.num_products, every_seconds)
    if stage == DENSITY:
        spectrum = _loaded(tensors, question, kernel.shape[0])
    else:
        spectrum = entk.spectrum(
            kernel,
            question.num_eigenvalues,
            error=known_error(question),
            state=tensors if stage == LANCZOS else None,
            callback=lambda progress: context.log(_told(progress)),
            save=lambda _, state: saving(LANCZOS, lambda: state(shared=True)),
        )
    return spectrum, None if spectrum.is_whole else _density(kernel, spectrum, question, tensors, saving)


def _density(
    kernel: "ShardedKernel", spectrum: "Spectrum", question: Question, tensors: "Mapping[str, Tensor]", saving: "_Saving"
) -> "Density":
    from workers import entk

    known = _saved(spectrum)
    state = {name: tensors[name] for name in ("nodes", "weights") if name in tensors}
    saving(DENSITY, lambda: known | state)
    return entk.density(
        kernel, spectrum, num_probes=question.num_probes, state=state, save=lambda found: saving(DENSITY, lambda: known | found)
    )


@dataclass(slots=True)
class _Saving:
    """Checkpoints, whose steps are the products that `kernel` has counted, and `done` before them."""

    context: Context
    kernel: "ShardedKernel"
    done: int
    every_seconds: float
    saved_at: float = field(default_factory=time.monotonic)
    took: float = 0.0

    def __call__(self, stage: str, tensors: "Callable[[], Mapping[str, Tensor]]") -> None:
        step, began = self.done + self.kernel.num_products, time.monotonic()
        if self.context.stopping:
            self.context.stop_here(step, tensors(), stage=stage)
        if self.every_seconds and began - self.saved_at < max(self.every_seconds, self.took / MOST_SAVING):
            return
        self.context.checkpoint(step, tensors(), stage=stage)
        self.saved_at = time.monotonic()
        self.took = self.saved_at - began


def _told(progress: "Progress") -> str:
    norm = float(progress.residual_norms_K.max())
    return (
        f"{progress.num_converged} of {len(progress.ritz_values_K)} eigenpairs after {progress.num_products:,} products of Lanczos; "
        f"the largest residual norm is {norm:.3g}"
    )


def _saved(spectrum: "Spectrum") -> "dict[str, Tensor]":
    import torch

    assert spectrum.eigenvectors is not None
    numbers = torch.tensor(list(certificate(spectrum).values()), dtype=torch.float64)
    return {"eigenvalues": spectrum.eigenvalues, "eigenvectors": spectrum.eigenvectors, "certificate": numbers}


def _loaded(tensors: "Mapping[str, Tensor]", question: Question, num_rows: int) -> "Spectrum":
    from workers.entk import Spectrum

    return Spectrum(
        eigenvalues=tensors["eigenvalues"],
        eigenvectors=tensors["eigenvectors"],
        certificate=certificate_of(tensors["certificate"].tolist(), question),
        num_rows=num_rows,
    )
