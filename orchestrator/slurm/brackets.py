"""SLURM's short forms: `n[01-03,7]` for hosts, `123_[0-9,20-40:5%2]` for the elements of an array."""

import itertools
import re
from collections.abc import Iterator

# a hostlist can name more nodes than there are; what it names beyond is of no use
MOST_HOSTS = 100_000

_HOST = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")
_PART = re.compile(r"\[([^\]]*)\]")


def hosts(text: str) -> tuple[str, ...]:
    """The hosts that a hostlist names, in its order; none for `(null)`, `None assigned` and an empty text."""
    if not text or text.startswith(("(null", "None assigned", "N/A")):
        return ()
    found = itertools.chain.from_iterable(map(_expanded, _HOST.findall(text.replace(" ", ""))))
    return tuple(itertools.islice(found, MOST_HOSTS))


def _expanded(word: str) -> Iterator[str]:
    pieces = _PART.split(word)  # text and brackets take turns
    choices = [list(_numbers(piece)) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return map("".join, itertools.product(*choices))


def _numbers(text: str) -> Iterator[str]:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            yield from (f"{number:0{len(first)}}" for number in range(int(first), min(int(last), int(first) + MOST_HOSTS) + 1))
        else:
            yield part


def indices(text: str) -> tuple[range, ...]:
    """The indices of an array expression such as `0-9,20-40:5%2`, with or without brackets, as ranges."""
    found = []
    for part in text.strip("[]").partition("%")[0].strip("[]").split(","):
        body, _, step = part.partition(":")
        first, _, last = body.partition("-")
        # an expression that was cut short ends in `...`
        if first.isdecimal() and (not last or last.isdecimal()) and (not step or step.isdecimal()):
            found.append(range(int(first), int(last or first) + 1, int(step or 1) or 1))
    return tuple(found)
