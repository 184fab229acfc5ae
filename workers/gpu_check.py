"""Which GPUs this process really gets, asked of the driver and of torch from inside."""

import ctypes
import os
import sys

from workers.allocation import gpu_tokens

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def unmet(tokens: list[str]) -> str:
    """In what the GPUs of this process are not those that it was given; empty: they are, as far as the driver can be asked here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if gpu_tokens(visible) != tuple(tokens):
        return f"CUDA_VISIBLE_DEVICES is {visible!r}, expected {','.join(tokens)!r}"
    return _differs("the driver", _driver_count() if tokens else None, tokens)


def torch_unmet(tokens: list[str]) -> str:
    """The same, asked of torch, which must be loaded; empty where it was built without CUDA."""
    torch = sys.modules["torch"]
    return _differs("torch", None if torch.version.cuda is None else torch.cuda.device_count(), tokens)


def _differs(who: str, count: int | None, tokens: list[str]) -> str:
    if count is None or count == len(tokens):
        return ""
    return f"{who} sees {count} GPUs under CUDA_VISIBLE_DEVICES={','.join(tokens)}, expected {len(tokens)}"


def _driver_count() -> int | None:
    """How many GPUs the driver shows; None where it is absent. Asked in a fork: who has begun with CUDA may not fork workers."""
    child = os.fork()
    if child == 0:
        os._exit(_ask_driver())
    answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer - 1 if answer > 0 else None


def _ask_driver() -> int:
    """One more than the number of GPUs; 0: it cannot be told."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        status, count = cuda.cuInit(0), ctypes.c_int(0)
        if status == 0:
            status = cuda.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 1 + count.value if status == 0 else 1 if status == _NO_DEVICE else 0
