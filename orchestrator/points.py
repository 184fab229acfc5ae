"""From a sweep's rows to what a fit takes: one row a run, the axis to fit along, the replicate axis and the groups."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

REPLICATE = "seed"
# the first of these that a sweep has is fitted, unless one is named
LOSSES = ("test_loss", "loss", "train_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """One row a run in `frame`: columns key, status, the axes, `x` and `y`. `groups` are the axes that tell one fit from another."""

    frame: "pl.DataFrame"
    x: str
    y: str
    replicate: str | None
    groups: Sequence[str]

    def by_group(self) -> list[tuple[dict[str, Any], "pl.DataFrame"]]:
        """Each combination of group values with its rows, in order."""
        if not self.groups:
            return [({}, self.frame)]
        parts = self.frame.partition_by(list(self.groups), as_dict=True, maintain_order=True)
        return [
            (dict(zip(self.groups, values, strict=True)), part) for values, part in sorted(parts.items(), key=lambda item: _order(item[0]))
        ]


def axis_names(results: Any) -> list[str]:
    """Short names of the axes of a sweep's results."""
    return [axis if isinstance(axis, str) else axis.name for axis in results.axes]


def last_values(scalars: "pl.DataFrame", name: str) -> "pl.DataFrame":
    """The last step's `name` of each task: one row a task, its value in the column `name`."""
    import polars as pl

    own = scalars.filter(pl.col("name") == name)
    last = own.filter(pl.col("step") == pl.col("step").max().over("key"))
    return last.drop("name", *({name} & set(last.columns))).rename({"value": name})


def points(results: Any, *, x: str | None = None, y: str | None = None, choice: Mapping[str, Any] | None = None) -> Points:
    """The last `y` of every run, with the axis `x` (default: the numeric axis with most decades) and the axes that group the runs.

    `x` may also be a scalar that each run has, such as num_params. `choice` keeps the runs with these axis values.
    """
    import polars as pl

    scalars = results.scalars().collect()
    for name, value in (choice or {}).items():
        scalars = scalars.filter(pl.col(name).cast(pl.String) == str(value))
    y = y or _default_loss(scalars)
    frame = last_values(scalars, _known(y, scalars))
    axes = [name for name in axis_names(results) if name in frame.columns and frame[name].drop_nulls().n_unique() > 1]
    x = x or _longest_axis(frame, axes)
    if x not in frame.columns:
        frame = frame.join(last_values(scalars, _known(x, scalars, axes)).select("key", x), on="key", how="left")
    replicate = REPLICATE if REPLICATE in axes else None
    groups = [name for name in axes if name not in (x, replicate) and not _moves_x(frame, name, x, axes)]
    # names before numbers: the names make panels and the numbers colours
    groups.sort(key=lambda name: frame[name].dtype.is_numeric())
    frame = frame.sort([*groups, x, *([replicate] if replicate else [])])
    return Points(frame=frame, x=x, y=y, replicate=replicate, groups=groups)


def fit_points(found: Points, **options: Any) -> tuple[list["Fit"], list[str]]:
    """A fit for each group, and why there is none for the others."""
    from orchestrator.fit import fit

    fits, notes = [], []
    for choice, part in found.by_group():
        try:
            fits.append(fit(part, x=found.x, y=found.y, group=found.replicate, choice=choice, **options))
        except UnknownName:
            raise
        except ConfigError as error:
            notes.append(", ".join(f"{name}={value}" for name, value in choice.items()) + (": " if choice else "") + str(error))
    return fits, notes


def fit_sweep(results: Any, **options: Any) -> list["Fit"]:
    """Fits of a sweep from options as texts: `law`, `law.<setting>`, `x`, `y`, those of `fit`, and an axis with a value to choose runs."""
    axes = axis_names(results)
    choice = {name: options.pop(name) for name in list(options) if name in axes}
    found = points(results, x=options.pop("x", None), y=options.pop("y", None), choice=choice)
    fits, notes = fit_points(found, **_fit_options(options, axes))
    if not fits:
        raise ConfigError("; ".join(notes) or "no runs to fit; see `eigensweep status`")
    return fits


def _fit_options(options: Mapping[str, Any], axes: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments of `fit` from texts."""
    from workers import plugins

    typed = {name: _value(value) for name, value in options.items()}
    settings = {name.removeprefix("law."): typed.pop(name) for name in list(typed) if name.startswith("law.")}
    allowed = ("law", "estimator", "confidence", "num_bootstrap", "random_seed")
    for name in typed:
        if name not in allowed:
            known = ("x", "y", *allowed, "law.<setting>", *axes)
            raise UnknownName(f"no option {name!r} of a fit{nearest(name, known)} There are {', '.join(known)}")
    if isinstance(law := typed.pop("law", "power"), str):
        law = plugins.load("laws", law, "orchestrator").from_plain(settings, "law")
    return {**typed, "law": law}


def _value(text: Any) -> Any:
    """A number or a truth value from a text; other texts stay."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _default_loss(scalars: "pl.DataFrame") -> str:
    names = scalars["name"].unique().to_list()
    for name in (*LOSSES, *sorted(name for name in names if "loss" in name)):
        if name in names:
            return str(name)
    raise ConfigError(f"which scalar to fit? Name it by y=...; the sweep has {', '.join(sorted(names)) or 'no scalars yet'}")


def _known(name: str, scalars: "pl.DataFrame", axes: Sequence[str] = ()) -> str:
    names = sorted(scalars["name"].unique().to_list())
    if name not in names:
        known = [*axes, *names]
        raise UnknownName(
            f"no scalar{' or axis' if axes else ''} {name!r}{nearest(name, known)} The sweep has {', '.join(known) or 'none yet'}"
        )
    return name


def _longest_axis(frame: "pl.DataFrame", axes: Sequence[str]) -> str:
    """The positive numeric axis with at least three values and the most decades, else num_params."""
    best, name = (0.0, 0), "num_params"
    for axis in axes:
        values = frame[axis].drop_nulls().unique()
        if axis == REPLICATE or not values.dtype.is_numeric() or len(values) < 3 or float(values.min()) <= 0:  # type: ignore[arg-type]
            continue
        length = (round(math.log10(float(values.max()) / float(values.min())), 6), len(values))  # type: ignore[arg-type]
        if length > best:
            best, name = length, axis
    return name


def _moves_x(frame: "pl.DataFrame", axis: str, x: str, axes: Sequence[str]) -> bool:
    """Whether x is a size that the numeric `axis` sets (width sets num_params): such an axis is no group."""
    import polars as pl

    if not frame[axis].dtype.is_numeric() or x in axes:
        return False
    others = [name for name in axes if name != axis]
    values = frame.group_by(others).agg(pl.col(x).n_unique())[x] if others else frame.select(pl.col(x).n_unique())[x]
    return bool((values > 1).any())


def _order(values: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    """Sorts mixed values: numbers, then texts, then what is absent."""
    return tuple((isinstance(value, str), "" if value is None else value) if value is not None else (True, "") for value in values)
