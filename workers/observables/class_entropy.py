"""Von Neumann entropy of the class-averaged kernel (ZnNL's tensor-network kernel)."""

from typing import TYPE_CHECKING

from workers.kernel_data import class_averaged, rounding, spectrum_of

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def class_entropy(traced_NN: "Kernel", labels_N: "Kernel") -> float:
    """-sum p ln p in nats of the kernel between the classes' mean gradients; at most ln of the number of classes that are there."""
    from workers.observables.entropy import entropy

    return entropy(spectrum_of(class_averaged(traced_NN, labels_N), precision=rounding(traced_NN)))
