"""The options of a fit as words, such as `law=chinchilla n=num_params fixed.E=1.8`, and what they mean to `fit`."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    from orchestrator.laws.law import Law

__all__ = ["OPTIONS", "Options", "laws", "of_words", "parse"]

# beside the law's own variables
OPTIONS = """law law.<setting> y loss group weights where estimator space fixed.<parameter> reference.<variable>
    confidence num_bootstrap random_seed""".split()
_NUMBERS = {"confidence": float, "num_bootstrap": int, "random_seed": int}
_TEXTS = ("group", "weights", "where", "space")
_OF_PARTS = ("fixed", "reference")


@dataclass(frozen=True, kw_only=True)
class Options:
    """`law` is made; `columns`: variable -> column, as far as given; `choice`: axis -> value; `rest`: the other arguments of `fit`."""

    law: "Law"
    columns: Mapping[str, str]
    y: str | None
    choice: Mapping[str, Any]
    rest: Mapping[str, Any]


def of_words(words: Sequence[str]) -> dict[str, str]:
    """`name=value` words as a mapping; ConfigError where a name is given twice."""
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in found:
            raise ConfigError(f"{name} is given twice: {name}={found[name]} and {word}")
        found[name] = value
    return found


def laws() -> dict[str, tuple[tuple[str, ...], str]]:
    """Law -> its variables, and the first line of its module."""
    found = {}
    for name in plugins.names("laws", "orchestrator"):
        law = plugins.load("laws", name, "orchestrator")
        module = __import__(law.__module__, fromlist=["__doc__"])
        found[name] = (law().variables(), (module.__doc__ or "").strip().partition("\n")[0])
    return found


def parse(given: Mapping[str, Any], *, axes: Collection[str] = ()) -> Options:
    """From texts, or values of their own type; `axes`: further names, which choose runs where no option has that name."""
    left = dict(given)
    law = _law(left)
    variables = law.variables()
    columns = {name: str(left.pop(name)) for name in variables if left.get(name) is not None}
    y, loss = (left.pop(name, None) for name in ("y", "loss"))
    if y is not None and loss is not None:
        raise ConfigError(f"y={y} and loss={loss} both name the column to fit; give one of them")
    rest: dict[str, Any] = {name: read(left.pop(name), name) for name, read in _READERS.items() if name in left}
    for group in _OF_PARTS:
        if parts := _parts(left, group):
            rest[group] = parts
    choice = {name: left.pop(name) for name in axes if name in left}
    if left:
        _refuse(next(iter(left)), law, axes)
    found = loss if y is None else y
    return Options(law=law, columns=columns, y=None if found is None else str(found), choice=choice, rest=rest)


def _law(left: dict[str, Any]) -> "Law":
    """Take the law and its settings out of the options."""
    from orchestrator.laws.law import Law

    law = left.pop("law", "power")
    settings = {name.removeprefix("law."): _value(left.pop(name)) for name in list(left) if name.startswith("law.")}
    if isinstance(law, Law):
        if settings:
            raise ConfigError(f"law.{next(iter(settings))} is given beside a law that is made already; set it there")
        return law
    made: Law = plugins.load("laws", str(law), "orchestrator").from_plain(settings, "law")
    return made


def _value(text: Any) -> Any:
    """A number or a truth value from a text; other texts stay."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be a number, got {value!r}") from None


def _whole(value: Any, name: str) -> int:
    number = _number(value, name)
    if number != number // 1 or number < 0:
        raise ConfigError(f"{name} must be a whole number, not negative, got {value!r}")
    return int(number)


def _text(value: Any, name: str) -> str | None:
    return None if value is None or str(value).lower() == "none" else str(value)


def _estimator(value: Any, name: str) -> str | float:
    read = _value(value)
    return float(read) if isinstance(read, int | float) and not isinstance(read, bool) else str(value)


_READERS = {
    **{name: _number if kind is float else _whole for name, kind in _NUMBERS.items()},
    **dict.fromkeys(_TEXTS, _text),
    "estimator": _estimator,
}


def _parts(left: dict[str, Any], group: str) -> dict[str, float]:
    """`fixed.E=1.8` words, or `fixed={"E": 1.8}`, taken out of the options."""
    whole = left.pop(group, None) or {}
    if not isinstance(whole, Mapping):
        raise ConfigError(f"{group} must map names to numbers, such as {group}={{'E': 1.8}} or the word {group}.E=1.8, got {whole!r}")
    own = [name for name in left if name.startswith(f"{group}.")]
    given = {**whole, **{name.removeprefix(f"{group}."): left.pop(name) for name in own}}
    return {name: _number(value, f"{group}.{name}") for name, value in given.items()}


def _refuse(name: str, law: "Law", axes: Collection[str]) -> None:
    known = list(dict.fromkeys([*law.variables(), *OPTIONS, *axes]))
    raise UnknownName(f"no option {name!r} of a fit{nearest(name, known)} With the {law.plugin_name()} law there are {', '.join(known)}")
