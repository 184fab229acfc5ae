"""Products of many pairs of matrices, by the library that uses most of the processor; what one pair gives does not depend on the others."""

import torch  # noqa: TID253  (imported by `workers.ensembles.stacked` alone)
from torch import Tensor  # noqa: TID253

# E pairs; (N, K) times (K, M)

# products of fewer terms go through one batched call: a call for each pair takes longer than its arithmetic
_FEWEST_TERMS = 2**20


def batched_product(first_ENK: Tensor, second_EKM: Tensor, out: Tensor | None = None) -> Tensor:
    """(E, N, M), in `out` where that is convenient: large tensors that are new cost as much as their arithmetic.

    Where all pairs share a factor, which is then expanded to (E, ...), it is one product of larger matrices. In float32 on a CPU oneDNN
    computes what is large enough, on one thread or with a shared factor: it uses all of a processor of any maker, as MKL does not. All
    else is torch's batched product.
    """
    terms = first_ENK[0].numel() * second_EKM.shape[2]
    if terms < _FEWEST_TERMS or first_ENK.device.type != "cpu" or first_ENK.dtype != torch.float32 or not _has_onednn():
        return torch.bmm(first_ENK, second_EKM, out=out)
    if first_ENK.stride(0) == 0:
        rows_NEM = _times(first_ENK[0], second_EKM.mT.reshape(-1, second_EKM.shape[1]))
        return rows_NEM.view(-1, len(second_EKM), second_EKM.shape[2]).transpose(0, 1)
    if second_EKM.stride(0) == 0:
        return _times(first_ENK.reshape(-1, first_ENK.shape[2]), second_EKM[0].mT).view(*first_ENK.shape[:2], -1)
    if torch.get_num_threads() > 1:  # they share the pairs, not each pair
        return torch.bmm(first_ENK, second_EKM, out=out)
    return torch.stack([_times(one, other) for one, other in zip(first_ENK.unbind(), second_EKM.mT.unbind(), strict=True)], out=out)


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _times(first_NK: Tensor, second_MK: Tensor) -> Tensor:
    """first second^T (N, M)."""
    return torch.ops.mkldnn._linear_pointwise.default(first_NK, second_MK, None, "none", [], "")  # type: ignore[no-any-return]
