"""Real text: a dictionary or the kernel's documentation from Debian, or a user's own files."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.errors import ConfigError
from workers.reading.text_data import TextData, text_samples
from workers.samples import Samples
from workers.staging import local
from workers.workload import setting

# where the packages put their files, and where `make setup` does
SHARES = (Path("/usr/share"), Path(sys.prefix) / "share")
PACKAGES = {"gcide": "dict-gcide", "linux_doc": "linux-doc-6.1"}
PLACES = {"gcide": "dictd/gcide.dict.dz", "linux_doc": "doc/linux-doc-6.1/html/_sources"}
SUFFIXES = (".txt", ".md", ".rst", ".gz", ".dz")
PIECE_BYTES = 2**16


@dataclass(frozen=True, kw_only=True)
class Text(TextData):
    """Text in documents of at most 64 KiB: a file, or where it is longer, its pieces, cut at the ends of lines.

    Every `test_every`-th document is one of the test split, so no document is in both; two pieces of one long file may be. Each ends with a
    token of its own. `gcide`: 40 MB of an English dictionary; `linux_doc`: 24 MB of the kernel's documentation, most of it English.
    """

    source: str = setting("gcide", choices=tuple(PACKAGES), help="a Debian package; without a path")
    path: str | None = setting(None, identity=False, help="a text file, or a folder of .txt, .md, .rst files, also .gz; instead of source")

    def sources(self) -> list[Path]:
        """The text files, by name."""
        place = Path(self.path) if self.path else _installed(self.source)
        if place.is_file():
            return [place]
        found = sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES and path.is_file()) if place.is_dir() else []
        if not found:
            raise ConfigError(
                f"no text at {place}: data.path= must be a text file that exists, or a folder with {', '.join(SUFFIXES)} files in it"
            )
        return found

    def documents(self, split: str) -> Iterator[bytes]:
        """The documents of a split, in the order of the files' names."""
        number = 0
        for path in self.sources():
            for piece in _pieces(_content(local(path))):
                number += 1
                if (number % self.test_every == 0) == (split == "test"):
                    yield piece

    def load(self) -> Samples:
        """Sequences (N, T) with the tokens that follow (N, T); the first call on a machine makes the tokens."""
        return text_samples(self)


def _installed(source: str) -> Path:
    for share in SHARES:
        if (share / PLACES[source]).exists():
            return share / PLACES[source]
    raise ConfigError(
        f"no {PLACES[source]} in {' or '.join(map(str, SHARES))}: it comes with Debian's package {PACKAGES[source]}; `make texts` or "
        f"`sudo apt-get install {PACKAGES[source]}` gives it, or give data.path= a text file or a folder of them"
    )


def _content(path: Path) -> bytes:
    import gzip
    import zlib

    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read ({error}); fetch it again") from error


def _pieces(text: bytes) -> Iterator[bytes]:
    """Pieces of at most 64 KiB that end where a line does, or anywhere where none does; none of an empty text."""
    start = 0
    while start < len(text):
        stop = min(len(text), start + PIECE_BYTES)
        if stop < len(text):
            stop = text.rfind(b"\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop
