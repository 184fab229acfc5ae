"""What workers of a pool do in tests; each call can be told by the files that it leaves."""

import errno
import functools
import os
import signal
import time
from pathlib import Path

kept: dict[str, int] = {}


def double(x: float) -> float:
    return 2 * x


def who(number: int) -> int:
    """The process that does it."""
    return os.getpid()


def count(name: str) -> list[int]:
    """How often this very process has been asked for `name`."""
    kept[name] = kept.get(name, 0) + 1
    return [os.getpid(), kept[name]]


def fail(message: str, kind: str = "ValueError") -> None:
    from workers import errors

    full = functools.partial(OSError, errno.ENOSPC)
    torch_s = functools.partial(RuntimeError, "DefaultCPUAllocator: can't allocate memory:")
    kinds = {"ValueError": ValueError, "MemoryError": MemoryError, "Diverged": errors.Diverged, "OSError": full, "torch": torch_s}
    raise kinds[kind](message)


def give(what: str) -> object:
    return {"set": {1}, "nan": float("nan"), "long": "x" * 300_000, "exit": SystemExit}[what]


def leave() -> None:
    raise SystemExit("left")


def die(folder: str, number: int, times: int) -> int:
    """Dies by SIGKILL in its first `times` attempts; each one leaves a file."""
    attempts = [path for path in Path(folder).iterdir() if path.name.startswith(f"{number}-")]
    Path(folder, f"{number}-{len(attempts)}").touch()
    if len(attempts) < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait(folder: str, number: int) -> int:
    """Begins (a file `began-N`), and ends when there is a file `go`."""
    Path(folder, f"began-{number}").write_text(str(os.getpid()))
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return number


def meet(folder: str, number: int, parties: int) -> int:
    """Ends when so many have begun, which takes as many workers; the process that does it."""
    Path(folder, f"met-{number}").touch()
    while len(list(Path(folder).glob("met-*"))) < parties:
        time.sleep(0.01)
    return os.getpid()


def fill(mib: int) -> int:
    """Takes and touches so much memory."""
    return len(bytearray(mib * 2**20))


def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def nap(seconds: float) -> None:
    time.sleep(seconds)
