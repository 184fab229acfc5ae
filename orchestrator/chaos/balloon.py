"""Planted as `sitecustomize.py` on the Python path of a chaos run's jobs: at a signal a task takes more memory than it asked for.

So a task runs out of memory from outside: neither its settings nor the code that runs them know of it. Imports nothing of ours.
"""

import contextlib
import importlib
import os
import signal
import sys
import time
from types import FrameType

SIGNAL = signal.SIGRTMIN + 1
MOST_MIB = "most-mib"  # a file beside this one: where nobody minds, the balloon ends there

_BLOCK_MIB = 16
_BLOCK_SECONDS = 0.02  # slow enough for a watchdog that looks ten times a second
_HOLD_SECONDS = 2.0


def inflate(number: int, frame: FrameType | None) -> None:
    """Take memory until somebody ends this process, or up to the most that was allowed; then give it back."""
    with open(os.path.join(os.path.dirname(__file__), MOST_MIB)) as file:
        most = int(file.read())
    blocks = []
    for _ in range(most // _BLOCK_MIB):
        blocks.append(b"x" * (_BLOCK_MIB << 20))
        time.sleep(_BLOCK_SECONDS)
    time.sleep(_HOLD_SECONDS)


def _let_others_customise() -> None:
    """Import the `sitecustomize` that this one stands in front of, where there is one."""
    own, path = sys.modules.pop("sitecustomize"), list(sys.path)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in path if os.path.abspath(folder) != here]
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    sys.path[:] = path
    sys.modules.setdefault("sitecustomize", own)


if __name__ == "sitecustomize":
    if "workers.child" in sys.orig_argv:
        signal.signal(SIGNAL, inflate)
    _let_others_customise()
