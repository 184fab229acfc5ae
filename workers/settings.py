"""Typed settings: frozen dataclasses that check themselves, built from plain values and written back to them."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, Union

from workers.errors import ConfigError, UnknownName, nearest

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str = "",
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] = (),
    identity: bool = True,
    added: bool = False,
) -> Any:
    """A dataclass field with its allowed values.

    `low` and `high` are inclusive, `above` is exclusive. `identity=False`: never part of the task key (paths, what is
    only output). `added=True`: the field came after version 1 of its class; its default reproduces the old behaviour and it
    is left out of the key while it equals that default.
    """
    metadata = dict(help=help, unit=unit, low=low, high=high, above=above, choices=choices, identity=identity, added=added)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Fields with types, ranges and help; checked when made."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for field, type_, optional in _fields(type(self)):
            value = getattr(self, field.name)
            coerced = _coerce(value, type_, optional, field.name)
            if coerced is not value:
                object.__setattr__(self, field.name, coerced)
            if field.metadata:
                _check_range(field, coerced)
        self.check()

    def check(self) -> None:
        """Raise ConfigError where fields do not fit each other."""

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], path: str = "") -> Self:
        """An instance from nested plain values; unknown keys and wrong types raise ConfigError with their full path."""
        known = {field.name: (field, type_) for field, type_, _ in _fields(cls)}
        arguments = {}
        for name, value in values.items():
            if name == "name" and name not in known and issubclass(cls, Plugin):
                continue
            if name not in known:
                raise UnknownName(
                    f"no setting {_join(path, name)!r}{nearest(name, known)} "
                    f"{path or cls.__name__} has: {', '.join(sorted(known)) or 'no settings'}"
                )
            arguments[name] = _from_plain(value, known[name][1], _join(path, name))
        try:
            return cls(**arguments)
        except ConfigError as error:
            raise type(error)(f"{path}.{error}" if path else str(error)) from None

    def to_plain(self) -> dict[str, Any]:
        """Nested plain values, which `from_plain` reads back to an equal instance."""
        plain = {field.name: _to_plain(getattr(self, field.name)) for field, _, _ in _fields(type(self))}
        return {"name": self.plugin_name(), **plain} if isinstance(self, Plugin) else plain


@dataclass(frozen=True, kw_only=True)
class Plugin(Settings):
    """Settings with behaviour, found by name: `<package>/<group>/<name>.py` holds the class in CamelCase."""

    package: ClassVar[str] = "workers"
    group: ClassVar[str] = ""

    @classmethod
    def plugin_name(cls) -> str:
        """The name by which the configuration chooses it: the file's, or the full module of a user's own."""
        own, _, last = cls.__module__.rpartition(".")
        return last if own == f"{cls.package}.{cls.group}" else cls.__module__


def _read_fields(cls: type) -> tuple[tuple[dataclasses.Field[Any], Any, bool], ...]:
    """The fields of a settings class with their resolved type and whether None is allowed."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        type_, optional = _strip_none(hints[field.name])
        found.append((field, type_, optional))
    return tuple(found)


_fields: Callable[[type], tuple[tuple[dataclasses.Field[Any], Any, bool], ...]] = functools.cache(_read_fields)


def _strip_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [option for option in typing.get_args(hint) if option is not type(None)]
        if len(rest) == 1:
            return rest[0], True
        raise TypeError(f"settings take one type or None, not {hint}")
    return hint, False


def _coerce(value: Any, type_: Any, optional: bool, path: str) -> Any:
    """`value` in its field's type (`1`, `1.0` and `1e0` are one value; -0.0 is 0.0; NaN is refused)."""
    if value is None:
        if optional:
            return None
        raise ConfigError(f"{path} must be {_type_name(type_)}, got null")
    if type_ is bool:
        good = isinstance(value, bool)
    elif type_ is int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        good = isinstance(value, int) and not isinstance(value, bool)
    elif type_ is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise ConfigError(f"{path} must be a finite number, got {value}")
            return value if isinstance(value, float) and value != 0.0 else float(value) + 0.0
        good = False
    elif type_ is str and isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # Hydra's grammar reads the words nan and inf as numbers
    elif type_ is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # and a text of digits, such as the step of a snapshot, as a whole number
    elif typing.get_origin(type_) is tuple:
        if isinstance(value, list | tuple):
            (element, _) = typing.get_args(type_)
            new = tuple(_coerce(one, element, False, f"{path}[{i}]") for i, one in enumerate(value))
            return value if isinstance(value, tuple) and all(one is own for one, own in zip(new, value, strict=True)) else new
        good = False
    elif typing.get_origin(type_) is dict:
        if isinstance(value, Mapping):
            return _mapping(value, typing.get_args(type_)[1], path)
        good = False
    else:
        good = isinstance(value, type_)
    if not good:
        raise ConfigError(f"{path} must be {_type_name(type_)}{' or null' if optional else ''}, got {value!r}")
    return value


def _mapping(values: Mapping[Any, Any], type_: Any, path: str) -> dict[str, Any]:
    """A mapping whose keys are texts and whose values have one type; `Any`: whatever JSON holds."""
    for key in values:
        if not isinstance(key, str):
            raise ConfigError(f"{path} must have texts as keys, got {key!r}; put it in quotes")
    return {
        key: _plain(value, f"{path}.{key}") if type_ is Any else _coerce(value, type_, False, f"{path}.{key}")
        for key, value in values.items()
    }


def _plain(value: Any, path: str) -> Any:
    """The value, of plain types only and with finite numbers."""
    if isinstance(value, Mapping):
        return _mapping(value, Any, path)
    if isinstance(value, list | tuple):
        return [_plain(one, f"{path}[{i}]") for i, one in enumerate(value)]
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{path} must be a text, a number, true, false, a list or keys and values, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} must be a finite number, got {value}")
    return value


def _check_range(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    given = field.metadata.get
    values = value if isinstance(value, tuple) else tuple(value.values()) if isinstance(value, dict) else (value,)
    for one in values:
        if (given("low") is not None and one < given("low")) or (given("high") is not None and one > given("high")):
            raise ConfigError(f"{field.name} must be {_range_text(field)}, got {one!r}")
        if given("above") is not None and one <= given("above"):
            raise ConfigError(f"{field.name} must be above {given('above')}, got {one!r}")
        choices: tuple[Any, ...] = given("choices") or ()
        if choices and one not in choices:
            hint = nearest(one, choices) if isinstance(one, str) else "."
            raise ConfigError(f"{field.name} must be one of {', '.join(map(str, choices))}, got {one!r}{hint}")


def _range_text(field: dataclasses.Field[Any]) -> str:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and high is not None:
        return f"between {low} and {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def _from_plain(value: Any, type_: Any, path: str) -> Any:
    if isinstance(type_, type) and issubclass(type_, Settings) and isinstance(value, Mapping):
        if issubclass(type_, Plugin) and type_.group and "name" in value:
            from workers import plugins

            type_ = plugins.load(type_.group, str(value["name"]), type_.package)
        return type_.from_plain(value, path)
    return value


def _to_plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_plain()
    if isinstance(value, dict):
        return {key: _to_plain(one) for key, one in value.items()}
    return [_to_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _type_name(type_: Any) -> str:
    if typing.get_origin(type_) is tuple:
        return f"a list of {_type_name(typing.get_args(type_)[0])}"
    if typing.get_origin(type_) is dict:
        return "keys and values, as in {key: value}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(type_, f"a {getattr(type_, '__name__', type_)}")
