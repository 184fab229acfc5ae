"""The empirical neural tangent kernel of any PyTorch model (D1)."""

from workers.entk.jacobians import gram_full, gram_traced, jacobian, trace_over_outputs
from workers.entk.kernels import gram, loss_gram

__all__ = ["gram", "gram_full", "gram_traced", "jacobian", "loss_gram", "trace_over_outputs"]
