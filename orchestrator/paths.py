"""The tree of settings below a workload: full and short paths, and the plug-in chosen at each place."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest
from workers.settings import Plugin, Settings, _check_range, _coerce, _fields
from workers.workload import Workload

_HYDRA_GROUPS = {"models": "model", "optimizers": "optimizer", "workloads": "workload", "launchers": "launcher"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One field below the workload. `cls`: the class that stands there, for a plug-in, an input or nested settings."""

    path: str
    field: dataclasses.Field[Any]
    declared: Any
    optional: bool
    cls: type[Settings] | None
    owner: type[Settings]

    @property
    def is_leaf(self) -> bool:
        """Whether it holds a value and no further settings."""
        return not (isinstance(self.declared, type) and issubclass(self.declared, Settings))

    @property
    def is_plugin(self) -> bool:
        """Whether the class itself can be chosen, by name."""
        return isinstance(self.declared, type) and issubclass(self.declared, Plugin) and bool(self.declared.group)

    @property
    def group(self) -> str:
        """Hydra's name of the plug-in's group: `model` for `workers/models/`."""
        group: str = self.declared.group
        return _HYDRA_GROUPS.get(group, group.rpartition(".")[2].removesuffix("s"))

    @property
    def type_name(self) -> str:
        """`int`, `float`, `str`, `bool` or `list`."""
        return "str" if self.is_plugin else getattr(self.declared, "__name__", "list") if isinstance(self.declared, type) else "list"

    def coerce(self, value: Any) -> Any:
        """`value` in the field's type; ConfigError with the full path where it cannot be or is out of range."""
        parent = self.path.rpartition(".")[0]
        try:
            value = _coerce(value, self.declared, self.optional, self.field.name)
            if self.field.metadata:
                _check_range(self.field, value)
        except ConfigError as error:
            hint = "; an axis is written with commas, 1,2, not as a list" if isinstance(value, list) and self.type_name != "list" else ""
            raise ConfigError(f"{parent}.{error}{hint}" if parent else f"{error}{hint}") from None
        return value


class Tree:
    """All settings of a workload once its plug-ins are chosen (`choices`: full path -> name)."""

    def __init__(self, target: type[Workload], choices: Mapping[str, str] | None = None) -> None:
        self.target = target
        self.settings = {setting.path: setting for setting in _walk(target, "", dict(choices or {}))}
        self._by_suffix: dict[str, list[str]] = {}
        for path in self.settings:
            for suffix in _suffixes(path):
                self._by_suffix.setdefault(suffix, []).append(path)

    def resolve(self, path: str) -> Setting:
        """The setting of a full path (the target's name may stand before it), or of the end of exactly one.

        UnknownName with the nearest where none ends so, ConfigError where several do.
        """
        if path in self.settings:
            return self.settings[path]
        found = self._by_suffix.get(path, [])
        first, _, rest = path.partition(".")
        if not found and first == self.target.plugin_name() and rest in self.settings:
            return self.settings[rest]
        if len(found) == 1:
            return self.settings[found[0]]
        if found:
            raise ConfigError(f"{path!r} is ambiguous: it may be {' or '.join(sorted(found))}; write more of the path")
        raise UnknownName(
            f"no setting {path!r}{nearest(path, self._like(path))} {self.target.__name__} has: {', '.join(self.names()) or 'no settings'}"
        )

    def ends_in(self, name: str) -> bool:
        """Whether the path of any setting ends so."""
        return name in self._by_suffix

    def short(self, path: str) -> str:
        """The shortest end of a full path that still means it."""
        return next(suffix for suffix in _suffixes(path) if self._means(suffix) == path)

    def names(self) -> list[str]:
        """The shortest name of each leaf and each plug-in below the workload."""
        return sorted(self.short(path) for path, setting in self.settings.items() if setting.is_leaf or setting.is_plugin)

    def _like(self, path: str) -> list[str]:
        """Names as long as `path`, which one may have meant; else all short ones."""
        depth = path.count(".")
        return [suffix for suffix, found in self._by_suffix.items() if suffix.count(".") == depth and len(found) == 1] or self.names()

    def _means(self, suffix: str) -> str | None:
        if suffix in self.settings:
            return suffix
        found = self._by_suffix[suffix]
        return found[0] if len(found) == 1 else None


def _walk(cls: type[Settings], path: str, choices: dict[str, str], given: Settings | None = None) -> Iterator[Setting]:
    """`given`: the default that stands here in the settings above; its values go before the defaults of its class."""
    for field, declared, optional in _fields(cls):
        full = f"{path}.{field.name}" if path else field.name
        if type(given) is cls:
            field = copy.copy(field)
            field.default = getattr(given, field.name)
        below = _class_at(full, field, declared, choices)
        yield Setting(full, field, declared, optional, below, cls)
        if below is not None:
            yield from _walk(below, full, choices, field.default if isinstance(field.default, Settings) else None)


def _class_at(path: str, field: dataclasses.Field[Any], declared: Any, choices: dict[str, str]) -> type[Settings] | None:
    if not (isinstance(declared, type) and issubclass(declared, Settings)):
        return None
    if path in choices and issubclass(declared, Plugin):
        cls = plugins.load(declared.group, choices[path], declared.package)
        if not issubclass(cls, declared):
            raise ConfigError(f"{path} must be a {declared.__name__}, and {choices[path]} is not: {cls.__module__}.{cls.__name__}")
        return cls
    if isinstance(field.default, Settings):
        return type(field.default)
    return None if field.default is None or declared.__subclasses__() else declared


def _suffixes(path: str) -> Iterator[str]:
    """`c`, `b.c`, `a.b.c` of `a.b.c`."""
    parts = path.split(".")
    for start in range(len(parts) - 1, -1, -1):
        yield ".".join(parts[start:])


def with_value(settings: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of `settings` with the field at `path` changed, checked at every level."""
    name, rest = path[0], path[1:]
    return dataclasses.replace(settings, **{name: with_value(getattr(settings, name), rest, value) if rest else value})
