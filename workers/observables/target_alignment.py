"""Alignment of the kernel with the targets (Cristianini et al. 2001, kernel-target alignment)."""

from typing import TYPE_CHECKING

from workers.kernel_data import alignment_with

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def target_alignment(kernel_RR: "Kernel", targets_NC: "Kernel") -> float:
    """<Theta, Y Y^T> / (||Theta|| ||Y Y^T||) with Frobenius norms, in [0, 1].

    Y is (N, C) beside a traced kernel, and one column (N C, 1) beside a full one: then y^T Theta y / (||y||^2 ||Theta||).
    """
    return alignment_with(kernel_RR, targets_NC)
