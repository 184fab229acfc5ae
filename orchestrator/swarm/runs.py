"""What swarm studies read out of results: a row a deployment with its axes by plain names, and its tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.study_tables import at_end, by_step
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.grid import Axis
    from orchestrator.results import Results

# what an axis that is none stands for
_FIXED = {"shape": "sphere"}

__all__ = ["AXES", "SCALARS", "axis", "deployments", "learning", "setting", "settings_of", "table"]

DEPLOY, TRAIN = "swarm_deploy", "swarm_train"
SCALARS = ("success", "mean_distance", "time_to_source", "revolutions_per_hour", "mean_reward")
# plain name -> the last part of the setting, and whether it is the training's; None: whichever there is
AXES: Mapping[str, tuple[str, bool | None]] = {
    "trained": ("temperature_kelvin", True),
    "deployed": ("temperature_kelvin", False),
    "seed": ("seed", True),
    "radius": ("radius", None),
    "speed": ("speed_body_lengths", None),
    "shape": ("shape", None),
    "temperatures": ("temperatures", True),
    "temperature_range": ("temperature_range", True),
}


def axis(axes: "Sequence[Axis]", leaf: str, *, of_training: bool | None = None) -> str | None:
    """The name of the axis of a setting by its last part; where a deployment has one of its own too, the one that is asked for."""
    found = [(one.name, one.path.startswith("train.")) for one in axes if one.path.rpartition(".")[2] == leaf]
    if of_training is not None and len(found) > 1:
        found = [one for one in found if one[1] == of_training] or found
    return found[0][0] if found else None


def deployments(results: "Results", axes: Sequence[str]) -> "tuple[pl.DataFrame, int]":
    """A row a deployment that did not diverge: key, the `axes` by their plain names, and SCALARS; and how many diverged.

    Raises ConfigError where an axis is no column, or there is no deployment yet.
    """
    import polars as pl

    every = by_step(results, SCALARS).filter(pl.col("workload") == DEPLOY)
    if every.is_empty():
        raise ConfigError(f"no deployment of {results.name} has ended yet")
    good = at_end(every.filter(pl.col("status") != "diverged"), SCALARS)
    diverged = every.filter(pl.col("status") == "diverged")["key"].n_unique()
    return _named(good, axes, results).select("key", *axes, *SCALARS), diverged


def learning(results: "Results", axes: Sequence[str], names: Sequence[str] = ("mean_return", "mean_distance")) -> "pl.DataFrame":
    """A row a training and episode: key, step, the `axes`, and the scalars `names`."""
    import polars as pl

    frame = by_step(results, names).filter(pl.col("workload") == TRAIN)
    return _named(frame, axes, results).select("key", "step", *axes, *names)


def table(results: "Results", name: str, axes: Sequence[str], keys: Sequence[str] | None = None) -> "pl.LazyFrame":
    """A table of the deployments with the `axes` by their plain names; `keys`: of these tasks alone. ConfigError where there is none.

    Of several swarms or groups of agents of one policy, the first stands for it: a training counts once.
    """
    import polars as pl

    rows = results.table(f"{DEPLOY}.{name}")
    if keys is not None:
        rows = rows.filter(pl.col("key").is_in(list(keys)))
    several = set(rows.collect_schema().names()) & {"environment", "group"}
    return _renamed(rows.filter(pl.col(name) == 0 for name in several) if several else rows, axes, results)


def _named(frame: "pl.DataFrame", axes: Sequence[str], results: "Results") -> "pl.DataFrame":
    return _renamed(frame.lazy(), axes, results).collect()


def _renamed(rows: "pl.LazyFrame", axes: Sequence[str], results: "Results") -> "pl.LazyFrame":
    import polars as pl

    found = {plain: axis(results.axes, AXES[plain][0], of_training=AXES[plain][1]) for plain in axes}
    lacking = [AXES[plain][0] for plain, name in found.items() if name is None and plain not in _FIXED]
    if lacking:
        raise ConfigError(f"the sweep {results.name} has no axis {' nor '.join(lacking)}: put it into sweep.grid, if with one value only")
    # a table with such a column itself has the axis under another name
    known = set(rows.collect_schema().names())
    given = {
        plain: pl.lit(_FIXED[plain]) if name is None else pl.col(f"{name}_axis" if f"{name}_axis" in known else name)
        for plain, name in found.items()
    }
    return rows.with_columns(own.alias(plain) for plain, own in given.items())


def settings_of(results: "Results", key: str) -> dict[str, Any]:
    """All settings of a task, nested; empty where it has none."""
    import polars as pl

    rows = results.tasks().filter(pl.col("key") == key).select("settings").collect()
    found: dict[str, Any] = json.loads(rows["settings"][0]) if len(rows) else {}
    return found


def setting(settings: Mapping[str, Any], leaf: str, default: float) -> float:
    """The first number of that name, the deployment's own before its training's; `default` where there is none."""
    return next((float(value) for name, value in _leaves(settings) if name == leaf and _is_number(value)), default)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    # what stands in `train` comes last
    for name, value in sorted(settings.items(), key=lambda one: one[0].startswith("train")):
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value
