"""Which samples are taken and in which order: permutations from a counter and a seed, so that nothing of them needs to be stored."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Indices = np.ndarray[Any, np.dtype[np.int64]]

_PROBE = int.from_bytes(hashlib.blake2b(b"eigensweep:probe", digest_size=8).digest(), "big")


def permutation(num: int, seed: int, counter: int = 0) -> "Indices":
    """A random order (num,) of 0 .. num - 1, the `counter`-th of `seed`.

    Sorts a raw Philox stream, which NumPy guarantees never to change (its shuffling it does not).
    """
    import numpy as np

    stream = np.random.Philox(key=np.array([seed, counter], dtype=np.uint64))
    return np.argsort(stream.random_raw(num), kind="stable")


def subset(num: int, size: int, seed: int) -> "Indices":
    """`size` of `num` samples; with equal seed a smaller subset is the beginning of a larger one."""
    return permutation(num, seed)[:size]


def probe(num: int, size: int) -> "Indices":
    """The probe set (size,): it depends on the number of samples alone, and a smaller one is the beginning of a larger one."""
    return permutation(num, _PROBE)[:size]


def num_batches(num_samples: int, batch_size: int) -> int:
    """Full batches in an epoch, at least one; what is left over waits for another epoch's order."""
    return max(1, num_samples // batch_size)


def num_seen(num_samples: int, batch_size: int, num_steps: int, seed: int) -> int:
    """How many different samples the first `num_steps` batches hold."""
    import numpy as np

    per_epoch, seen = num_batches(num_samples, batch_size), np.zeros(num_samples, dtype=bool)
    for epoch in range(-(-num_steps // per_epoch)):
        steps = min(per_epoch, num_steps - epoch * per_epoch)
        seen[permutation(num_samples, seed, epoch)[: steps * batch_size]] = True
        if seen.all():
            break
    return int(seen.sum())
