"""Cross entropy of many classes on a CPU, whose backward pass writes one array of logits where torch's writes two."""

from typing import Any

import torch  # noqa: TID253  (imported by losses of large vocabularies alone)
from torch import Tensor  # noqa: TID253

# N units; V classes


class CrossEntropy(torch.autograd.Function):
    """-log softmax(f)_y (N,) of logits (N, V) and labels (N,); has second derivatives and forward ones, and none under `torch.func`."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        logarithms_NV = torch.log_softmax(logits_NV, -1)
        ctx.save_for_backward(logits_NV, logarithms_NV, labels_N)
        ctx.save_for_forward(logarithms_NV, labels_N)
        return -logarithms_NV.gather(1, labels_N[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_N,), (logits_NV, logarithms_NV, labels_N) = gradients, ctx.saved_tensors
        scale_N1, places_N1 = gradient_N[:, None], labels_N[:, None]
        if torch.is_grad_enabled():  # what is saved of the result has no graph
            return (logits_NV.softmax(-1) * scale_N1).scatter_add(1, places_N1, -scale_N1), None
        return logarithms_NV.exp().mul_(scale_N1).scatter_add_(1, places_N1, -scale_N1), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent_NV, (logarithms_NV, labels_N) = tangents[0], ctx.saved_tensors
        mean_N: Tensor = (logarithms_NV.exp() * tangent_NV).sum(-1)
        own_N: Tensor = tangent_NV.gather(1, labels_N[:, None])[:, 0]
        return mean_N - own_N


def cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """By the above, and by torch's own within `torch.func`'s transforms; labels are in 0 .. V - 1."""
    if torch._C._are_functorch_transforms_active():
        return torch.nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
    found: Tensor = CrossEntropy.apply(logits_NV, labels_N)  # type: ignore[no-untyped-call]
    return found
