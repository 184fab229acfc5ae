"""Long arrays of tokens, in memory-mapped files, as sequences of inputs and the tokens that follow them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.samples import Samples

if TYPE_CHECKING:
    import numpy as np

    Tokens = np.ndarray[Any, Any]

# N sequences of T tokens; L tokens in a row

_BLOCK = 2**24


def sequences(train_L: "Tokens", test_L: "Tokens", length: int, vocabulary_size: int) -> Samples:
    """Sequences (N, T) that follow each other without overlap, N = (L - 1) // T, and as targets the same moved on by one token.

    They are views: nothing is read. ConfigError where a split is shorter than one sequence.
    """
    for name, tokens in (("training", train_L), ("test", test_L)):
        if len(tokens) <= length:
            raise ConfigError(
                f"the {name} split has {len(tokens)} tokens, and a sequence of data.sequence_length={length} and the token after it are "
                f"{length + 1}; take shorter sequences or more text"
            )
    (train_inputs, train_targets), (test_inputs, test_targets) = _cut(train_L, length), _cut(test_L, length)
    return Samples(
        train_inputs=train_inputs,
        train_targets=train_targets,
        test_inputs=test_inputs,
        test_targets=test_targets,
        num_outputs=vocabulary_size,
        sample_name="sequences",
        unit_name="tokens",
    )


def _cut(tokens_L: "Tokens", length: int) -> "tuple[Tokens, Tokens]":
    num = (len(tokens_L) - 1) // length
    return tokens_L[: num * length].reshape(num, length), tokens_L[1 : num * length + 1].reshape(num, length)


def mapped(path: Path, dtype: str) -> "Tokens":
    """The tokens (L,) of a file, mapped into memory: a `.npy` says its own type, other files are little-endian numbers of `dtype`."""
    import numpy as np

    tokens: Tokens
    try:
        if path.suffix == ".npy":
            tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            tokens = np.memmap(path, np.dtype(dtype).newbyteorder("<"), mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"{path} is no array of {dtype} tokens ({error}); data.dtype= says which whole numbers a .bin file holds"
        ) from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ConfigError(f"{path} holds an array of shape {tokens.shape} and type {tokens.dtype}; it must be (L,) whole numbers")
    return tokens


def largest(tokens_L: "Tokens", stop: int | None = None) -> int:
    """The largest of the first `stop` tokens (None: all), read block by block."""
    return max(int(tokens_L[start : min(start + _BLOCK, stop or len(tokens_L))].max()) for start in range(0, stop or len(tokens_L), _BLOCK))
