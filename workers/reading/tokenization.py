"""From documents to tokens: bytes, or byte-pair encoding by the library `tokenizers`."""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    Tokens = np.ndarray[Any, Any]

# L tokens of a document, its end included

END = "<|endoftext|>"
NUM_BYTES = 256
CURE = "BPE needs the library tokenizers: `pip install 'eigensweep[text]'`; data.tokenizer=bytes needs none"
_DOCUMENTS_AT_ONCE = 256


def byte_tokens(documents: Iterable[bytes]) -> "Iterator[Tokens]":
    """The bytes (L,) of each document and, as 256, its end."""
    import numpy as np

    for document in documents:
        yield np.append(np.frombuffer(document, np.uint8).astype(np.uint16), np.uint16(NUM_BYTES))


def bpe_tokens(tokenizer_json: str, documents: Iterable[bytes]) -> "Iterator[Tokens]":
    """Each document (L,) in the tokens of a trained tokenizer, and its end where the tokenizer has a token for that."""
    import numpy as np

    tokenizer = _library().Tokenizer.from_str(tokenizer_json)
    end = [number for name in (END, "</s>", "[EOS]", "<eos>") if (number := tokenizer.token_to_id(name)) is not None][:1]
    for some in _batched(documents):
        for encoded in tokenizer.encode_batch_fast([_text(one) for one in some], add_special_tokens=False):
            yield np.array(encoded.ids + end, np.uint32)


def trained_bpe(documents: Iterable[bytes], vocabulary_size: int) -> str:
    """A byte-level BPE tokenizer as JSON, trained on documents.

    Every text has tokens: the 256 bytes are among them. Two trainings on equal documents give equal texts; there are fewer tokens than
    `vocabulary_size` where no pair occurs twice any more.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_text(one) for one in documents), trainer)
    return str(tokenizer.to_str())


def vocabulary_of(tokenizer_json: str) -> int:
    """Tokens of a tokenizer, those that were added to it too: the largest number, plus one."""
    return 1 + int(max(_library().Tokenizer.from_str(tokenizer_json).get_vocab(with_added_tokens=True).values()))


def read_tokenizer(path: Path) -> str:
    """The JSON of a `tokenizer.json`; ConfigError where it is none."""
    try:
        text = path.read_text()
        _library().Tokenizer.from_str(text)
    except ConfigError:
        raise
    except Exception as error:  # the library raises Exception itself
        raise ConfigError(
            f"{path} is no tokenizer ({error}); data.tokenizer_path= takes a tokenizer.json of the library tokenizers"
        ) from error
    return text


def write_tokens(path: Path, tokens: "Iterable[Tokens]", dtype: str) -> None:
    """All tokens one after the other as little-endian numbers, in bounded memory."""
    import numpy as np

    with path.open("xb") as file:
        for some in tokens:
            file.write(some.astype(np.dtype(dtype).newbyteorder("<")).tobytes())


def library_version() -> str:
    """The version of `tokenizers`, by which trained tokenizers are kept apart; "" where it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version("tokenizers")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _library() -> Any:
    # a task has the cores that it was given, and its process may be copied
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: F401
    except ImportError as error:
        raise ConfigError(CURE) from error
    return tokenizers


def _text(document: bytes) -> str:
    return document.decode("utf-8", "replace")


def _batched(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    left = iter(documents)
    while some := list(itertools.islice(left, _DOCUMENTS_AT_ONCE)):
        yield some
