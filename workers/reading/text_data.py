"""What data sets of text share: settings of the tokenizer and of sequences, and tokens that are made once and kept."""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers import files
from workers.errors import ConfigError
from workers.reading import cache
from workers.reading.token_sequences import sequences, token_file
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

# of what a tokenizer is made: changes here make new files
_FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class TextData(Data):
    """Documents as sequences of tokens; a subclass says where they are (`sources`, `documents`).

    A task's key holds the content of the text (and of a given tokenizer) and these settings. It holds no version of the library
    `tokenizers`: tests compare a trained tokenizer with a golden one, and where a version gives another, `version` here is raised. Files
    in the cache are kept apart by version.
    """

    sequence_length: int = setting(128, low=1, unit="tokens", help="T; sequences do not overlap")
    tokenizer: str = setting("bytes", choices=("bytes", "bpe", "file"), help="bpe: trained on the training split; file: tokenizer_path")
    vocabulary_size: int = setting(4096, low=257, help="of bpe; bytes have 257 tokens, one of them the end of a document")
    tokenizer_path: str | None = setting(None, identity=False, help="a tokenizer.json, for tokenizer=file")
    tokenizer_mib: float = setting(
        8.0, above=0, unit="MiB", help="of bpe: about how much of the training text it is trained on, evenly spread"
    )
    test_every: int = setting(16, low=2, help="every so many-th document is one of the test split")

    def sources(self) -> list[Path]:
        """The files of the text; ConfigError where they are absent."""
        raise NotImplementedError

    def documents(self, split: str) -> Iterator[bytes]:
        """The documents of `train` or `test`, in a fixed order."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """The files of the text, and the tokenizer's where one is given."""
        if self.tokenizer != "file":
            return self.sources()
        if self.tokenizer_path is None or not Path(self.tokenizer_path).is_file():
            raise ConfigError(f"data.tokenizer=file needs data.tokenizer_path=, a tokenizer.json that exists, got {self.tokenizer_path}")
        return [*self.sources(), Path(self.tokenizer_path)]


@functools.lru_cache(maxsize=4)
def text_samples(data: TextData) -> Samples:
    """The sequences of a data set of text, kept by the process; ConfigError where a split has no document, or too few tokens for one."""
    from workers.reading import tokenization

    what = _what(data)
    tokenizer = _tokenizer(data, what)
    size = tokenization.vocabulary_of(tokenizer) if tokenizer else tokenization.NUM_BYTES + 1
    dtype = "uint16" if size <= 2**16 else "uint32"

    def write(split: str, path: Path) -> None:
        documents = data.documents(split)
        tokens = tokenization.bpe_tokens(tokenizer, documents) if tokenizer else tokenization.byte_tokens(documents)
        tokenization.write_tokens(path, tokens, dtype)

    paths = [cache.made(f"{what}-{split}.{dtype}.bin", functools.partial(write, split)) for split in ("train", "test")]
    empty = [split for split, path in zip(("train", "test"), paths) if not path.stat().st_size]
    if empty:
        raise ConfigError(
            f"data={data.plugin_name()} has no documents in its {empty[0]} split; give more text or a smaller data.test_every"
        )
    return sequences(token_file(paths[0], dtype), token_file(paths[1], dtype), data.sequence_length, size)


def _what(data: TextData) -> str:
    """A name for the tokens: of the text's content and of the settings and the library that make tokens of it."""
    from workers.reading import tokenization

    plain = {name: value for name, value in data.to_plain().items() if not name.endswith("path") and name != "sequence_length"}
    if data.tokenizer != "bpe":
        del plain["vocabulary_size"], plain["tokenizer_mib"]
    version = "" if data.tokenizer == "bytes" else tokenization.library_version()
    contents = [files.sha256(local(path)) for path in data.files()]
    return cache.name_of(_FORMAT, str(data.version), repr(sorted(plain.items())), version, *contents)


def _tokenizer(data: TextData, what: str) -> str:
    """The tokenizer's JSON; "" for bytes."""
    from workers.reading import tokenization

    if data.tokenizer == "bytes":
        return ""
    if data.tokenizer == "file":
        return tokenization.read_tokenizer(local(data.files()[-1]))

    def train(aside: Path) -> None:
        stride = math.ceil(sum(map(len, data.documents("train"))) / (data.tokenizer_mib * 2**20))
        some = itertools.islice(data.documents("train"), 0, None, max(1, stride))
        aside.write_text(tokenization.trained_bpe(some, data.vocabulary_size))

    return cache.made(f"{what}.tokenizer.json", train).read_text()
