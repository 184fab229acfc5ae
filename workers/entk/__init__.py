"""The empirical neural tangent kernel of any PyTorch model (D1)."""

from workers.entk.jacobians import gram_full, gram_traced, jacobian, trace_over_outputs

__all__ = ["gram_full", "gram_traced", "jacobian", "trace_over_outputs"]
