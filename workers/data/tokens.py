"""Token files that a user has, such as nanoGPT's `train.bin` and `val.bin`, of which only what is taken is read."""

import contextlib
import functools
from dataclasses import dataclass, replace
from pathlib import Path

from workers.errors import ConfigError
from workers.reading.token_sequences import TokenFile, sequences, token_file
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

SPLITS = (("train",), ("val", "valid", "validation", "test"))
SUFFIXES = (".bin", ".npy")
NUM_CHECKED = 2**24
CURE = (
    "data.path= takes a folder with train.bin and val.bin (or test.bin; also .npy), or one such file, whose last data.test_fraction is "
    "the test split"
)


@dataclass(frozen=True, kw_only=True)
class Tokens(Data):
    """Sequences of tokens from files of whole numbers. Of 10^9 tokens only those are read that are trained or tested on.

    Without a `vocabulary_size` all tokens are read once for the largest; with one, the first 2^24 of each split are checked against it.
    None may be negative.
    """

    path: str | None = setting(None, identity=False, help="folder with train.bin and val.bin, or one .bin or .npy file")
    dtype: str = setting("uint16", choices=("uint16", "uint32", "int32", "int64"), help="of .bin files")
    sequence_length: int = setting(128, low=1, unit="tokens")
    vocabulary_size: int | None = setting(None, low=1, help="null: the largest token, plus one")
    test_fraction: float = setting(0.05, above=0, high=0.9, help="of one file: its last part")

    def files(self) -> list[Path]:
        """The training and the test file, or the one for both."""
        if self.path is None:
            raise ConfigError(f"data=tokens needs a path; {CURE}")
        given = Path(self.path)
        if given.is_file():
            return [given]
        return [_found(given, names) for names in SPLITS]

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(N, T), from the sizes of the files; None where they are absent, or hold no tokens."""
        with contextlib.suppress(ConfigError, OSError):
            samples = sequences(*_splits(self, tuple(self.files())), self.sequence_length, 1)
            return samples.train_inputs.shape, samples.test_inputs.shape
        return None

    def held_bytes(self) -> int:
        """None."""
        return 0

    def load(self) -> Samples:
        """Sequences (N, T) with the tokens that follow (N, T)."""
        return _read(self, tuple(map(local, self.files())))


def _found(folder: Path, names: tuple[str, ...]) -> Path:
    wanted = [f"{name}{suffix}" for name in names for suffix in SUFFIXES]
    for name in wanted:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"no {wanted[0]} (nor {', '.join(wanted[1:])}) at {folder}; {CURE}")


def _splits(data: Tokens, paths: tuple[Path, ...]) -> tuple[TokenFile, TokenFile]:
    """The training and the test split."""
    first, *others = [token_file(path, data.dtype) for path in paths]
    if others:
        return first, others[0]
    # the training split ends before the test split begins, also with its last target
    cut = max(0, first.num_tokens - max(data.sequence_length + 1, round(data.test_fraction * first.num_tokens)))
    return first.part(0, cut), first.part(cut, first.num_tokens)


@functools.lru_cache(maxsize=4)
def _read(data: Tokens, paths: tuple[Path, ...]) -> Samples:
    splits = _splits(data, paths)
    samples = sequences(*splits, data.sequence_length, data.vocabulary_size or 1)
    looked_at = [split.part(0, min(split.num_tokens, NUM_CHECKED)) if data.vocabulary_size else split for split in splits]
    ends = [token for split in looked_at for token in split.extremes()]
    if min(ends) < 0:
        raise ConfigError(
            f"{', '.join(map(str, paths))} hold the token {min(ends)}, and tokens are 0 or more; save the text without marks such as "
            f"-100 for targets that do not count, or check data.dtype={data.dtype}"
        )
    found = 1 + max(ends)
    if data.vocabulary_size and found > data.vocabulary_size:
        raise ConfigError(
            f"{', '.join(map(str, paths))} hold the token {found - 1}, and data.vocabulary_size={data.vocabulary_size} allows 0 to "
            f"{data.vocabulary_size - 1}; take a larger one, or check data.dtype={data.dtype}"
        )
    return replace(samples, num_outputs=data.vocabulary_size or found)
