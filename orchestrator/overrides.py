"""Command-line settings in Hydra's grammar: `key=value`, lists, `range(0,4)`, `choice(...)`, `+key`, `~key`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.errors import ConfigError


class Spaced(float):
    """A number of geomspace or linspace: rounded where the setting is a whole number."""


_HELP = "a value is key=value, a list key=[1,2], an axis key=1,2 or 'key=range(0,4)'; quote what the shell would read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One word of the command line. `values` where it is an axis; `glob` holds the patterns of `glob(...)`."""

    line: str
    key: str
    value: Any = None
    values: tuple[Any, ...] | None = None
    glob: Any = None
    delete: bool = False


def parse(lines: Sequence[str]) -> list[Override]:
    """The words in Hydra's grammar; ConfigError for one that cannot be read or a key given twice."""
    found = [parse_one(line) for line in lines]
    for i, one in enumerate(found):
        if any(one.key == other.key for other in found[:i]):
            raise ConfigError(f"{one.key!r} is given twice, the second time as {one.line!r}; keep one of the two")
    return found


def parse_one(line: str) -> Override:
    """One word; ConfigError where it cannot be read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, ValueType
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(line)
        key = f"{parsed.key_or_group}@{parsed.package}" if parsed.package else parsed.key_or_group
        if parsed.is_delete():
            return Override(line=line, key=key, delete=True)
        if not parsed.is_sweep_override():
            return Override(line=line, key=key, value=parsed.value())
        if parsed.value_type == ValueType.INTERVAL_SWEEP:
            raise ConfigError(f"{line!r}: an interval has no end of values; give a list or range(start,stop,step)")
        if isinstance(parsed.value(), Glob):
            return Override(line=line, key=key, values=(), glob=parsed.value())
        return Override(line=line, key=key, values=tuple(parsed._convert_value(one) for one in parsed.sweep_iterator()))
    except HydraException as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"cannot read {line!r} ({text}); {_HELP}") from None


def axis_values(path: str, given: Any) -> list[Any]:
    """Values of an axis as a sweep's file gives them: a list, `range(0,4)` or another text of Hydra's grammar, geomspace or linspace."""
    if isinstance(given, list):
        return given
    if isinstance(given, str):
        one = parse_one(f"axis={given}")
        if one.glob is not None:
            raise ConfigError(f"axis {path}: glob(...) is for the command line; list the names")
        return list(one.values) if one.values is not None else [one.value]
    if isinstance(given, Mapping) and len(given) == 1:
        (kind, numbers), *_ = given.items()
        if kind in ("geomspace", "linspace") and isinstance(numbers, list) and len(numbers) == 3:
            return _spaced(path, kind, *numbers)
    if isinstance(given, Mapping):
        raise ConfigError(f"axis {path} must be a list, a text such as range(0,4), or {{geomspace: [start, stop, num]}}, got {dict(given)}")
    return [given]


def _spaced(path: str, kind: str, start: Any, stop: Any, num: Any) -> list[float]:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (start, stop))
    if not numbers or not isinstance(num, int) or num < 2 or (kind == "geomspace" and (start <= 0 or stop <= 0)):
        allowed = "numbers above 0" if kind == "geomspace" else "numbers"
        raise ConfigError(f"axis {path}: {kind} takes [start, stop, num], {allowed} and num at least 2, got {[start, stop, num]}")
    between = [i / (num - 1) for i in range(1, num - 1)]
    if kind == "linspace":
        inner = [start + (stop - start) * t for t in between]
    else:
        inner = [math.exp(math.log(start) + math.log(stop / start) * t) for t in between]
    return [Spaced(one) for one in (start, *inner, stop)]
