"""Mutual information of two classes by the entropies of their kernels (ZnNL's notebook)."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from workers.kernel_data import class_entropies
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def neural_mutual_information(
    traced_NN: "Kernel", labels_N: "Kernel", first: Collection[int], second: Collection[int], *, normalised: bool = True
) -> float:
    """I = S(X) + S(Y) - S(X and Y) of the units with labels in `first` and in `second`; normalised, 2 I / (S(X) + S(Y)).

    1 for equal classes, but not 0 for unlike ones: n equal and orthogonal gradients in each give ln n - ln 2. `class_divergence` has
    fixed ends. NaN where neither class has entropy.
    """
    of_first, of_second, of_both, _ = class_entropies(traced_NN, labels_N, first, second)
    information, most = of_first + of_second - of_both, of_first + of_second
    return ratio(2.0 * information, most) if normalised else information
