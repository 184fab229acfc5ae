"""Engines for the eigenvalues of a tiled kernel: which one fits a question and a machine, and why."""

import dataclasses
from dataclasses import dataclass

from workers.errors import ConfigError
from workers.sharded import scalapack

ENGINES = ("whole", "scalapack", "lanczos")
# the kernel in double precision, its eigenvectors, and what the solver works with
COPIES_WHOLE = 4
# block Lanczos is the cheaper way for fewer eigenpairs than one in so many rows, of so many rows at least
ROWS_PER_VECTOR, FEWEST_ROWS_OF_LANCZOS = 20, 1024
# one process is not slower than several up to so many rows
MOST_ROWS_WHOLE = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a kernel: its `num_eigenvalues` largest (None: all), `num_vectors` of their eigenvectors, and the entropy."""

    num_eigenvalues: int | None
    num_vectors: int
    num_probes: int = 32
    error: "tuple[float, float]" = (0.0, 0.0)  # of the kernel, with its standard error; 0: only rounding is known

    def takes_few(self, num_rows: int) -> bool:
        """Whether the eigenvectors are so few that Lanczos finds them for less than a solver of the whole spectrum takes for them."""
        return num_rows >= FEWEST_ROWS_OF_LANCZOS and ROWS_PER_VECTOR * self.num_vectors <= num_rows


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is: ranks in all, memory in GiB of one of them and of one process alone, and why ScaLAPACK cannot run ("": it can)."""

    num_ranks: int
    rank_gib: float
    alone_gib: float
    no_scalapack: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it and no other."""

    engine: str
    reason: str


def choose(question: Question, num_rows: int, dtype: str, machine: Machine, engine: str = "auto") -> Choice:
    """The engine for a question; ConfigError where none can answer, with what would do.

    "whole": LAPACK in one process, all eigenvalues. "scalapack": all eigenvalues, by MPI ranks. "lanczos": the largest by block Lanczos,
    with products by all ranks, and the entropy by deflated quadrature. A few eigenvectors come from Lanczos for the first two also.
    """
    against = {
        "whole": _against_whole(num_rows, machine),
        "scalapack": _against_scalapack(question, num_rows, dtype, machine),
        "lanczos": "" if question.num_eigenvalues is not None else "it finds the largest eigenvalues, and all are asked for",
    }
    few = question.num_eigenvalues is not None and dataclasses.replace(question, num_vectors=question.num_eigenvalues).takes_few(num_rows)
    order = ["lanczos", "whole", "scalapack"] if few else ["whole", "scalapack", "lanczos"]
    if not few and num_rows > MOST_ROWS_WHOLE and machine.num_ranks > 1:
        order = ["scalapack", "whole", "lanczos"]
    for name in order if engine == "auto" else [engine]:
        if not against[name]:
            passed = [f"not {other}: {against[other]}" for other in order[: order.index(name)] if engine == "auto"]
            asked = "all" if question.num_eigenvalues is None else f"the {question.num_eigenvalues:,} largest"
            return Choice(name, "; ".join([f"{asked} of {num_rows:,} eigenvalues", *passed]))
    reasons = "; ".join(f"{name}: {against[name]}" for name in (order if engine == "auto" else [engine]))
    raise ConfigError(f"no engine can find these eigenvalues of {num_rows:,} rows. {reasons}. num_eigenvalues= asks for the largest alone")


def _against_whole(num_rows: int, machine: Machine) -> str:
    needed = COPIES_WHOLE * 8 * num_rows**2 / 2**30
    return "" if needed <= machine.alone_gib else f"one process needs {needed:.1f} GiB, resources.memory_gib leaves {machine.alone_gib:.1f}"


def _against_scalapack(question: Question, num_rows: int, dtype: str, machine: Machine) -> str:
    if machine.no_scalapack:
        return machine.no_scalapack
    vectors = 0 if question.takes_few(num_rows) else question.num_vectors
    needed = scalapack.memory_bytes_needed(num_rows, machine.num_ranks, dtype, vectors) / 2**30
    if needed <= machine.rank_gib:
        return ""
    return f"each of {machine.num_ranks} ranks needs {needed:.1f} GiB, and {machine.rank_gib:.1f} are there; more nodes need less each"
