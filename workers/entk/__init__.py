"""The empirical neural tangent kernel of any PyTorch model (D1)."""

from workers.entk.jacobians import gram_full, gram_traced, jacobian, trace_over_outputs
from workers.entk.kernels import gram, loss_gram
from workers.entk.planning import MemoryCap

__all__ = ["MemoryCap", "gram", "gram_full", "gram_traced", "jacobian", "loss_gram", "trace_over_outputs"]
