"""Large arrays on the CPU in huge pages."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_BYTES = 4 * 2**20
ALIGNMENT = 64


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor with the dtype and device of another.

    NumPy asks the kernel for huge pages, torch does not: to fill 400 MB of new memory took 68 ms of processor time instead of 155.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < SMALLEST_BYTES:
        return like.new_empty(tuple(shape)).detach()
    import numpy as np

    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return torch.from_numpy(raw[start : start + size]).view(like.dtype).view(tuple(shape))
