"""Axes and rules as files and command lines write them: flattened, in their types, and refused where they make no tasks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.grid import Axis, Point, free_type
from orchestrator.overrides import Spaced
from orchestrator.paths import Setting, Tree
from workers.errors import ConfigError


def typed_axes(values: Mapping[str, list[Any]], free: set[str], tree: Tree, trees: Sequence[Tree]) -> Iterator[Axis]:
    """The axes with values in their types. `free`: those that are no settings; `trees`: one for each combination of plug-ins."""
    for path, written in values.items():
        if path in tree.settings and tree.settings[path].is_plugin:
            yield Axis(path, path, "str", tuple(written), is_group=True)
        elif path in free:
            plain = tuple(float(value) if isinstance(value, Spaced) else value for value in written)
            yield Axis(path, path, free_type(path, plain), plain, is_free=True)
        else:
            settings = [one.resolve(path) for one in trees]
            refuse_as_axis(settings[0])
            first, *_ = [[_coerced(setting, value) for value in written] for setting in settings]
            rounded = any(isinstance(value, Spaced) for value in written)
            yield Axis(path, path, settings[0].type_name, tuple(dict.fromkeys(first) if rounded else first))


def flat_axes(axes: Any, path: str = "", where: str = "grid") -> Iterator[tuple[str, Any]]:
    """Axes or rules by their path, whether written `model.width: [...]` or nested."""
    if not isinstance(axes, Mapping):
        example = "an axis a line, as in `model.width: [16, 32]`" if where == "grid" else "a setting a line, as in `num_steps: 100 * width`"
        raise ConfigError(f"sweep.{where} must hold {example}, got {axes!r}")
    for key, value in axes.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and not {"geomspace", "linspace"} & set(value):
            yield from flat_axes(value, name, where)
        else:
            yield name, value


def zip_lists(given: Any) -> list[list[str]]:
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in given):
        raise ConfigError(f"sweep.zip must be a list of lists of axes, as in [[model.width, train_size]], got {given!r}")
    return given


def own_points(options: dict[str, str], axes: list[Axis], points: list[Point]) -> list[Point]:
    """The points of one combination of plug-ins."""
    groups = [(i, axis) for i, axis in enumerate(axes) if axis.is_group]
    return [point for point in points if all(axis.values[point[i]] == options[axis.path] for i, axis in groups)] if options else points


def refuse_as_axis(setting: Setting) -> Setting:
    """The setting; ConfigError for a setting that has no values, or whose values make no tasks of their own."""
    if not setting.is_leaf:
        raise ConfigError(f"axis {setting.path} holds settings, not a value; sweep one of them, as in {setting.path}.NAME")
    if not setting.field.metadata.get("identity", True):
        raise ConfigError(f"{setting.path} changes no result (it is no part of a task's identity), so it cannot be an axis; give one value")
    return setting


def _coerced(setting: Setting, value: Any) -> Any:
    """An axis value in its type; a spaced number is rounded for a whole-number setting."""
    if setting.declared is int and isinstance(value, Spaced):
        value = round(value)
    return setting.coerce(float(value) if isinstance(value, Spaced) else value)
