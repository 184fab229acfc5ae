"""Long rows of tokens in files as sequences of inputs and the tokens that follow them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.reading.lazy import Stored
from workers.samples import Samples

if TYPE_CHECKING:
    import numpy as np

# N sequences of T tokens; L tokens in a row

_BLOCK = 2**22


@dataclass(frozen=True, slots=True)
class TokenFile:
    """`num_tokens` tokens (L,) of a file, the first at the byte `offset`."""

    path: Path
    dtype: "np.dtype[Any]"
    num_tokens: int
    offset: int = 0

    def part(self, start: int, stop: int) -> "TokenFile":
        """The tokens from `start` to before `stop`."""
        return replace(self, num_tokens=stop - start, offset=self.offset + start * self.dtype.itemsize)

    def sequences(self, length: int, first: int) -> Stored:
        """Sequences (N, T) from the token `first` on, N = (L - 1) // T."""
        num = (self.num_tokens - 1) // length
        return Stored(self.path, self.dtype, (num, length), offset=self.offset + first * self.dtype.itemsize)

    def extremes(self) -> tuple[int, int]:
        """The smallest and the largest token, read block by block."""
        import numpy as np

        found: list[int] = []
        for start in range(0, self.num_tokens, _BLOCK):
            num, offset = min(_BLOCK, self.num_tokens - start), self.offset + start * self.dtype.itemsize
            tokens = np.fromfile(self.path, self.dtype, num, offset=offset)
            found += [int(tokens.min()), int(tokens.max())]
        return min(found), max(found)


def sequences(train: TokenFile, test: TokenFile, length: int, vocabulary_size: int) -> Samples:
    """Sequences (N, T) that follow each other without overlap, N = (L - 1) // T, and as targets the same moved on by one token.

    They are read where they are taken. ConfigError where a split is shorter than one sequence.
    """
    for name, tokens in (("training", train), ("test", test)):
        if tokens.num_tokens <= length:
            raise ConfigError(
                f"the {name} split has {tokens.num_tokens} tokens, and a sequence of data.sequence_length={length} and the token after it "
                f"are {length + 1}; take shorter sequences or more text"
            )
    return Samples(
        train_inputs=train.sequences(length, 0),
        train_targets=train.sequences(length, 1),
        test_inputs=test.sequences(length, 0),
        test_targets=test.sequences(length, 1),
        num_outputs=vocabulary_size,
        sample_name="sequences",
        unit_name="tokens",
    )


def token_file(path: Path, dtype: str) -> TokenFile:
    """The tokens of a file: a `.npy` says its own type, other files are little-endian numbers of `dtype`."""
    import numpy as np

    if path.suffix == ".npy":
        return _npy(path)
    kind, size = np.dtype(dtype).newbyteorder("<"), path.stat().st_size
    if size % kind.itemsize:
        raise ConfigError(f"{path} is no array of {dtype} tokens ({size} bytes); data.dtype= says which whole numbers a .bin file holds")
    return TokenFile(path, kind, size // kind.itemsize)


def _npy(path: Path) -> TokenFile:
    import numpy as np

    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} is no readable .npy file ({error})") from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ConfigError(f"{path} holds an array of shape {tokens.shape} and type {tokens.dtype}; it must be (L,) whole numbers")
    return TokenFile(path, tokens.dtype, len(tokens), tokens.offset)
