"""Points chosen by a kernel: greedily by predictive variance (pivoted Cholesky), and the random set of most entropy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.selection import Candidates

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Array = np.ndarray[Any, Any]

# N candidates; S chosen ones; B columns at a time; K orders; C outputs

Columns = Callable[["Array"], "Array"]
# relative to the largest diagonal: below it a variance is rounding, and divides nothing
FLOOR = 1e-12
OBSERVABLES = ("entropy", "entropy_normalised", "effective_rank", "participation_ratio", "trace", "cosine_entropy", "magnitude_variance")


@dataclass(frozen=True, slots=True, eq=False)
class Pivots:
    """Pivots (S,) with their variances given all pivots before, how many are above rounding, and the kernel's columns that it took.

    The sum of the logarithms of the first n variances is ln det of the kernel of the first n pivots.
    """

    order_S: "Array"
    variances_S: "Array"
    rank: int
    num_columns: int


def pivoted_cholesky(
    diagonal_N: "Array",
    columns: Columns,
    size: int,
    *,
    labels_N: "Array | None" = None,
    num_at_once: int = 16,
    look: Callable[[int], None] = lambda done: None,
) -> Pivots:
    """`size` points, each of the largest variance k(x, x) - k(x, S) k(S, S)^-1 k(S, x) given the ones before, S.

    That is greedy for ln det k(S, S). `columns`: indices (B,) to columns (N, B) of the positive semi-definite kernel; those of the best
    `num_at_once` candidates are asked for together, for the next pivots are mostly among them. Costs N S^2 operations and N (S + B)
    numbers, never the kernel. With `labels_N`, each class in turn. Where the kernel's rank is used up, the rest follows by rounding.
    """
    import numpy as np

    variances_N = np.array(diagonal_N, dtype=np.float64)
    floor, candidates = FLOOR * variances_N.max(initial=0.0), Candidates(len(variances_N), labels_N)
    factor_SN, kept = np.zeros((size, len(variances_N))), _Kept(columns, num_at_once)
    order: list[int] = []
    found, rank = np.zeros(size), 0
    for count in range(size):
        pivot = candidates.best(variances_N)
        found[count] = max(variances_N[pivot], 0.0)
        if found[count] > floor:
            column_N = kept.column(pivot, np.where(candidates.allowed_N(), variances_N, -np.inf))
            factor_SN[rank] = (column_N - factor_SN[:rank, pivot] @ factor_SN[:rank]) / np.sqrt(found[count])
            variances_N -= factor_SN[rank] ** 2
            rank += 1
        candidates.take(pivot)
        order.append(pivot)
        look(len(order))
    return Pivots(np.array(order, dtype=np.int64), found, rank, kept.num_columns)


class _Kept:
    """Columns of a kernel, asked for together with those that are likely to be next, each once."""

    def __init__(self, columns: Columns, num_at_once: int) -> None:
        self.columns, self.num_at_once, self.num_columns = columns, num_at_once, 0
        self.waiting: dict[int, Array] = {}

    def column(self, pivot: int, scores_N: "Array") -> "Array":
        import numpy as np

        if pivot not in self.waiting:
            best = np.argsort(-scores_N, kind="stable")[: 4 * self.num_at_once]
            others = [int(one) for one in best if one != pivot and int(one) not in self.waiting and np.isfinite(scores_N[one])]
            asked = np.array([pivot, *others[: self.num_at_once - 1]])
            self.num_columns += len(asked)
            self.waiting |= dict(zip(asked.tolist(), np.asarray(self.columns(asked), dtype=np.float64).T.copy(), strict=True))
        return self.waiting.pop(pivot)


def most_entropy(orders_KS: "Array", kernels: Sequence["Array"]) -> "tuple[Array, Array]":
    """For each size the order (S,) whose first points have the kernel of most entropy, and that entropy (S,); the first of equals.

    `kernels`: of each order (S, S). All beginnings of all orders are decomposed: K S^4 / 4 operations in all.
    """
    import numpy as np

    from workers.kernel_data import spectrum_of
    from workers.observables.entropy import entropy

    size = orders_KS.shape[1]
    if len(kernels) != len(orders_KS) or any(kernel.shape != (size, size) for kernel in kernels):
        raise ConfigError(f"there must be a kernel ({size}, {size}) for each of {len(orders_KS)} orders, got {[k.shape for k in kernels]}")
    entropies_KS = np.array([[entropy(spectrum_of(kernel[:n, :n])) for n in range(1, size + 1)] for kernel in kernels])
    best_S = entropies_KS.argmax(0)
    return best_S, entropies_KS[best_S, np.arange(size)]


def observed(kernel_SS: "Array", labels_S: "Array | None") -> dict[str, float]:
    """What the studies of data selection look at (D11, D13): observables of the traced kernel of a set, `<observable>_traced`, and the
    entropy of its labels, `label_entropy`, in nats."""
    import numpy as np

    from workers.kernel_data import rounding, spectrum_of
    from workers.spectrum_data import call, required, shannon

    inputs = {"spectrum": spectrum_of(kernel_SS, precision=rounding(kernel_SS)), "kernel_RR": kernel_SS}
    found = {f"{name}_traced": call(required()[name][0], inputs) for name in OBSERVABLES}
    if labels_S is not None:
        found["label_entropy"] = shannon(np.unique(labels_S, return_counts=True)[1] / len(labels_S))
    return found


def traced_columns(network: "nn.Module", inputs_N: "Tensor", memory_gib: float = 1.0) -> Columns:
    """Columns of the traced kernel (D1) of a pool, from B indices to (N, B), in the precision of the network."""
    import torch

    from workers import entk

    def columns(index_B: "Array") -> "Array":
        asked = inputs_N[torch.from_numpy(index_B).to(inputs_N.device)]
        found: Array = entk.gram(network, inputs_N, asked, outputs="traced", memory_gib=memory_gib).cpu().numpy()
        return found

    return columns


def traced_diagonal(network: "nn.Module", inputs_N: "Tensor", num_at_once: int = 1024) -> "Array":
    """The diagonal (N,) of the traced kernel, ||J_n||_F^2 / C, without the kernel; of networks with outputs (N, C)."""
    import numpy as np
    import torch

    from workers import entk

    found = []
    for some in inputs_N.split(num_at_once):
        with torch.no_grad():
            num_outputs = network(some[:2]).shape[-1]
        each = torch.eye(num_outputs, dtype=inputs_N.dtype, device=inputs_N.device)[:, None].expand(-1, len(some), -1)
        found.append(entk.squared_gradient_norms(network, some, each).mean(0))
    return np.asarray(torch.cat(found).cpu().numpy(), dtype=np.float64)
