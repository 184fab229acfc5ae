"""The grid: axes, their product or zip, and the filter that leaves points out."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from workers.errors import ConfigError, UnknownName, nearest

Point = tuple[int, ...]

_DOTTED = re.compile(r"""('[^']*'|"[^"]*")|([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)""")


@dataclass(frozen=True, slots=True)
class Axis:
    """One swept setting: its short name, full path, type name and values; `is_group`: it chooses a plug-in.

    `is_free`: it is no setting, but a quantity that others are derived from. `formula`: what its values are derived by.
    """

    name: str
    path: str
    type: str
    values: tuple[Any, ...]
    is_group: bool = False
    is_free: bool = False
    formula: str = ""


def named(axes: Iterable[Axis]) -> list[Axis]:
    """The axes under names that tell them apart: the last part of the path, or as many as it takes, joined with `_`."""
    axes = list(axes)
    depth = dict.fromkeys((axis.path for axis in axes), 1)
    while True:
        names = {axis.path: "_".join(axis.path.split(".")[-depth[axis.path] :]) for axis in axes}
        taken = list(names.values())
        double = [path for path, name in names.items() if taken.count(name) > 1 and depth[path] < path.count(".") + 1]
        if not double:
            return [dataclasses.replace(axis, name=names[axis.path]) for axis in axes]
        for path in double:
            depth[path] += 1


def check(axes: Sequence[Axis]) -> None:
    """ConfigError for an axis given twice, or one without values."""
    seen: set[str] = set()
    for axis in axes:
        if axis.path in seen:
            raise ConfigError(f"axis {axis.path} is given twice; keep one of the two")
        seen.add(axis.path)
        if not axis.values:
            raise ConfigError(f"axis {axis.path} has no values, so the grid is empty; give it at least one, as in {axis.name}=1,2")


def points(axes: Sequence[Axis], zips: Sequence[Sequence[str]] = (), filter: str = "") -> list[Point]:
    """Index tuples of the grid's points, one index an axis, the first axis slowest; ConfigError where none is left."""
    check(axes)
    groups = _zip_groups(axes, zips)
    if all(len(group) == 1 for group in groups):
        found = list(itertools.product(*(range(len(axis.values)) for axis in axes)))
    else:
        found = _product_of_groups(axes, groups)
    if filter:
        found = filtered(axes, found, filter)
    return found


def _zip_groups(axes: Sequence[Axis], zips: Sequence[Sequence[str]]) -> list[list[int]]:
    """Positions of the axes that go together, in the order of their first."""
    position = {axis.path: i for i, axis in enumerate(axes)}
    together = [[position[path] for path in paths] for paths in zips]
    used = [i for group in together for i in group]
    for i in used:
        if used.count(i) > 1:
            raise ConfigError(f"axis {axes[i].path} is zipped twice; name it in one list of `zip` only")
    for group in together:
        lengths = {axes[i].path: len(axes[i].values) for i in group}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{path} has {length}" for path, length in lengths.items())
            raise ConfigError(f"zipped axes must have equally many values: {text}")
    groups = sorted([*together, *([i] for i in range(len(axes)) if i not in used)], key=min)
    for group in groups:
        _refuse_double([axes[i] for i in group])
    return groups


def _refuse_double(axes: Sequence[Axis]) -> None:
    """ConfigError where the same values come twice; a zipped axis may repeat one if the axes beside it differ."""
    seen: set[str] = set()  # values of a field's own type may be lists, but their texts tell them apart
    for values in zip(*(axis.values for axis in axes)):
        if repr(values) in seen:
            shown = ", ".join(f"{axis.path}={value!r}" for axis, value in zip(axes, values))
            one = f"axis {axes[0].path} has the value {values[0]!r} twice" if len(axes) == 1 else f"zipped axes have {shown} twice"
            raise ConfigError(f"{one}; each value makes one point, keep one of them")
        seen.add(repr(values))


def _product_of_groups(axes: Sequence[Axis], groups: Sequence[Sequence[int]]) -> list[Point]:
    found = []
    for choice in itertools.product(*(range(len(axes[group[0]].values)) for group in groups)):
        point = [0] * len(axes)
        for group, index in zip(groups, choice):
            for axis in group:
                point[axis] = index
        found.append(tuple(point))
    return found


def filtered(axes: Sequence[Axis], found: list[Point], filter: str) -> list[Point]:
    """The points for which the SQL condition holds."""
    import polars as pl

    columns = {}
    for axis, indices in zip(axes, zip(*found)):
        column = [axis.values[i] for i in indices]
        columns[axis.path] = columns[axis.name] = column
    try:
        kept = pl.DataFrame(columns, strict=False).select(pl.sql_expr(_quoted(filter, axes)).alias("kept"))["kept"]
    except UnknownName:
        raise
    except Exception as error:
        raise _explained(filter, axes, error) from None
    if kept.dtype != pl.Boolean:
        raise ConfigError(f"filter {filter!r} must be a condition such as `width < 64`, it gives {kept.dtype}")
    mask = [bool(one) for one in (kept.to_list() * len(found) if len(kept) == 1 else kept.to_list())]
    left = list(itertools.compress(found, mask))
    if not left:
        raise ConfigError(f"filter {filter!r} leaves none of the {len(found)} points of the grid; loosen it")
    return left


def _quoted(filter: str, axes: Sequence[Axis]) -> str:
    """The condition with dotted paths replaced by the axis that they mean."""

    def quote(match: re.Match[str]) -> str:
        return match[0] if match[1] else f'"{find(match[2], axes).path}"'

    return _DOTTED.sub(quote, filter)


def find(path: str, axes: Sequence[Axis]) -> Axis:
    """The axis of a short name, a full path or the end of exactly one; UnknownName with the nearest."""
    exact = [axis for axis in axes if path in (axis.path, axis.name)]
    found = exact or [axis for axis in axes if axis.path.endswith(f".{path}")]
    if len(found) != 1:
        raise UnknownName(f"no axis {path!r}{nearest(path, [axis.name for axis in axes])} Axes are {_names(axes)}")
    return found[0]


def _explained(filter: str, axes: Sequence[Axis], error: Exception) -> ConfigError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if type(error).__name__ == "ColumnNotFoundError":
        missing = re.sub(r'.*?"([^"]*)".*', r"\1", text)
        return UnknownName(f"filter {filter!r} names {missing!r}{nearest(missing, [axis.name for axis in axes])} Axes are {_names(axes)}")
    return ConfigError(
        f"cannot use filter {filter!r}: {text}. It is an SQL condition over the axes {_names(axes)}, such as `width < 64 or seed = 0`"
    )


def _names(axes: Sequence[Axis]) -> str:
    return ", ".join(axis.name for axis in axes) or "none"


def words(filter: str) -> set[str]:
    """The names in a filter, and the parts of dotted ones; quoted texts are none."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'", "", filter)))


def free_type(name: str, values: Sequence[Any]) -> str:
    """Type of an axis that is no setting; ConfigError unless it holds numbers, or texts."""
    kinds = {type(value) for value in values}
    if kinds <= {int}:
        return "int"
    if kinds <= {int, float}:
        return "float"
    if kinds == {str}:
        return "str"
    raise ConfigError(
        f"{name} is no setting but a quantity that others are derived from: its values must be numbers or texts, got {values}"
    )
