"""From a sweep's rows to what a fit takes: one row a run, the axis to fit along, the replicate axis and the groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import fit_options
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

REPLICATE = "seed"
# the first of these that a sweep has is fitted, unless one is named
LOSSES = ("test_loss", "loss", "train_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """One row a run in `frame`: columns key, status, the axes, those of `columns` (variable of a law -> axis or scalar) and `y`.

    `groups` are the axes that tell one fit from another.
    """

    frame: "pl.DataFrame"
    columns: Mapping[str, str]
    y: str
    replicate: str | None
    groups: Sequence[str]

    @property
    def x(self) -> str:
        """Column of the first variable."""
        return next(iter(self.columns.values()))

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


def _derived(results: Any) -> set[str]:
    """Axes whose values follow from the others: they tell no runs apart."""
    return {axis.name for axis in results.axes if getattr(axis, "formula", "")}


def last_values(scalars: "pl.DataFrame", name: str) -> "pl.DataFrame":
    """The last step's `name` of each task: one row a task, its value in the column `name`."""
    import polars as pl

    own = scalars.filter(pl.col("name") == name)
    last = own.filter(pl.col("step") == pl.col("step").max().over("key"))
    return last.drop("name", *({name} & set(last.columns))).rename({"value": name})


def points(
    results: Any,
    *,
    x: str | None = None,
    y: str | None = None,
    choice: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Points:
    """The last `y` of every run, with the axis `x` (default: the numeric axis with most decades) and the axes that group the runs.

    `columns` names an axis or a scalar of each run, such as num_params, for each variable of a law of several; `choice` keeps the runs
    with these axis values.
    """

    scalars = results.scalars().collect()
    for name, value in (choice or {}).items():
        scalars = _chosen(scalars, name, value)
    y = y or _default_loss(scalars)
    frame = last_values(scalars, _known(y, scalars))
    derived = _derived(results)
    every = [name for name in axis_names(results) if name in frame.columns and frame[name].drop_nulls().n_unique() > 1]
    axes = [name for name in every if name not in derived]
    columns = columns or {"x": x or _longest_axis(frame, axes)}
    for name in columns.values():
        if name not in frame.columns:
            frame = _with_scalar(frame, last_values(scalars, _known(name, scalars, every)), name, axes)
    replicate = REPLICATE if REPLICATE in axes else None
    taken = (*columns.values(), replicate)
    groups = [name for name in axes if name not in taken and not any(_moves_x(frame, name, x, axes) for x in columns.values())]
    # names before numbers: the names make panels and the numbers colours
    groups.sort(key=lambda name: frame[name].dtype.is_numeric())
    frame = frame.sort([*groups, *columns.values(), *([replicate] if replicate else [])])
    return Points(frame=frame, columns=columns, y=y, replicate=replicate, groups=groups)


def _chosen(scalars: "pl.DataFrame", name: str, value: Any) -> "pl.DataFrame":
    import polars as pl

    found = scalars.filter(pl.col(name).cast(pl.String) == str(value))
    if found.is_empty():
        known = ", ".join(map(str, scalars[name].drop_nulls().unique().sort().to_list()))
        raise ConfigError(f"no run has {name}={value}; there are {known or 'no results yet'}")
    return found


def _with_scalar(frame: "pl.DataFrame", values: "pl.DataFrame", name: str, axes: Sequence[str]) -> "pl.DataFrame":
    """Each run with its scalar; where another task has it (the training of a spectrum), by the axes that this task has."""
    import polars as pl

    if frame["key"].is_in(values["key"].implode()).any():
        return frame.join(values.select("key", name), on="key", how="left")
    shared = [axis for axis in axes if axis in values.columns and values[axis].null_count() == 0]
    if not shared or values.select(pl.struct(shared).is_duplicated().any()).item():
        raise ConfigError(f"{name} has several values for one run of {frame['workload'][0]}: choose an axis or another scalar")
    return frame.join(values.select(*shared, name), on=shared, how="left")


def fit_points(found: Points, **options: Any) -> tuple[list["Fit"], list[str]]:
    """A fit for each group, and why there is none for the others."""
    fits, why = _fits(found, {}, options)
    return fits, [f"{choice}: {reason}" if choice else reason for choice, reason in why]


def _fits(found: Points, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[list["Fit"], list[tuple[str, str]]]:
    from orchestrator.fit import fit

    # results of different code have been refused, or wanted, when they were loaded
    options = {"group": found.replicate, "mixed_code": True, **options, **found.columns}
    fits, why = [], []
    for group, part in found.by_group():
        choice = {**chosen, **group}
        try:
            fits.append(fit(part, y=found.y, choice=choice, **options))
        except UnknownName:
            raise
        except ConfigError as error:
            why.append((", ".join(f"{name}={value}" for name, value in choice.items()), str(error)))
    return fits, why


def fit_sweep(results: Any, **options: Any) -> list["Fit"]:
    """Fits of a sweep, by the options of `fit_options`, as texts or values, and an axis with a value to choose runs."""
    from orchestrator.fitting.table import filtered

    asked = fit_options.parse(options, axes=axis_names(results))
    variables = asked.law.variables()
    if missing := [name for name in variables if name not in asked.columns and variables != ("x",)]:
        raise ConfigError(
            f"the {asked.law.plugin_name()} law needs an axis or a scalar of the sweep for each of {', '.join(variables)}: "
            f"{' '.join(f'{name}=...' for name in missing)}"
        )
    found = points(results, y=asked.y, choice=asked.choice, columns=asked.columns or None)
    if filtered(found.frame, where := asked.rest.get("where")).is_empty():
        raise ConfigError(f"no run of sweep {results.name!r} is chosen by {where or asked.choice}; see `eigensweep status`")
    chosen = {name: found.frame[name][0] for name in asked.choice}
    fits, why = _fits(found, chosen, {"law": asked.law, **asked.rest})
    if not fits:
        raise ConfigError(_in_short(why))
    return fits


def _in_short(why: Sequence[tuple[str, str]]) -> str:
    """Each reason once, with the groups that it is of."""
    groups: dict[str, list[str]] = {}
    for choice, reason in why:
        groups.setdefault(reason, []).append(choice)
    return "; ".join(f"{' and '.join(choices)}: {reason}" if any(choices) else reason for reason, choices in groups.items())


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
