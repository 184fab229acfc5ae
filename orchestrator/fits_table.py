"""The table `fits`: one row a fit, with all that was chosen, found and not found, in a fixed Arrow schema."""

# B resamples, P parameters, D derived numbers

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import files
from workers.errors import Garbled

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from orchestrator.fit import Fit

__all__ = ["COLUMNS", "fit_id", "keep", "plain", "read", "row", "schema", "write"]

FORMAT = "1"
_REMOVE = "remove it: a fit is made again in a second from the same table"
# column -> (Arrow type, unit, description); columns are only added, and nullable; no name is a word of SQL
COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "fit_id": ("string", "", "hash of the input and of all choices: equal for the same fit made again"),
    "law": ("string", "", "name of the law"),
    "law_version": ("int32", "", "raised when the numbers of the law change"),
    "law_settings": ("string", "", "its settings, as JSON"),
    "variables": ("string", "", "variable of the law -> column, as JSON"),
    "y": ("string", "", "column that is fitted"),
    "choice": ("string", "", "which runs these are, such as axis values, as JSON"),
    "row_filter": ("string", "", "row filter, a condition in SQL"),
    "weight_column": ("string", "", "column of weights"),
    "group_column": ("string", "", "column whose equal values are resampled together"),
    "input_hash": ("string", "", "of the values that are fitted, in their order"),
    "codes": ("string", "", "code fingerprint -> runs, as JSON, where the table has a column code"),
    "estimator": ("string", "", "as given: huber, hoffmann, least_squares, lad, or huber with a delta"),
    "delta": ("float64", "see space", "of the Huber loss as used; infinite for least squares, 0 for least absolute deviations"),
    "space": ("string", "", "residuals of ln y (log) or of y / y0, y0 the geometric mean (linear)"),
    "fixed": ("string", "", "parameter -> value that was held, as JSON"),
    "reference": ("string", "units of x", "variable -> x0, as JSON"),
    "ranges": ("string", "units of x", "variable -> least and largest value, as JSON"),
    "equation": ("string", "", "the law with its values and intervals"),
    "parameter_names": ("list<string>", "", "in the order of all lists below"),
    "parameter_values": ("list<float64>", "units of x and y", "of the parameters"),
    "parameter_low": ("list<float64>", "units of x and y", "lower ends of their intervals, NaN where there are none"),
    "parameter_high": ("list<float64>", "units of x and y", "upper ends of their intervals"),
    "derived_names": ("list<string>", "", "numbers that follow from the parameters"),
    "derived_values": ("list<float64>", "units of x and y", ""),
    "derived_low": ("list<float64>", "units of x and y", "lower ends of their intervals"),
    "derived_high": ("list<float64>", "units of x and y", "upper ends of their intervals"),
    "covariance": (
        "list<float64>",
        "units of x and y",
        "of the replicates of the reported parameters, row by row, not widened; empty where there are none",
    ),
    "bootstrap": ("list<list<float64>>", "units of x and y", "a list of replicates for each parameter, then for each derived number"),
    "num_bootstrap": ("int32", "", "replicates"),
    "unit": ("string", "", "what was resampled: seed, run, or nothing"),
    "widening": ("float64", "", "by which deviations of the replicates are multiplied to give the intervals"),
    "confidence": ("float64", "", "of the intervals"),
    "objective": ("float64", "see space", "minimised sum: of squares halved, of Huber's losses, or of absolute values"),
    "converged": ("bool", "", "whether the solver's last step was below its tolerance"),
    "num_starts": ("int32", "", "starts that were refined"),
    "num_agree": ("int32", "", "of these, how many ended at this minimum"),
    "condition": ("float64", "", "number of J'J in units of each parameter"),
    "r_squared": ("float64", "", "of logarithms"),
    "residual_sd": ("float64", "ln y", "of the residuals, degrees of freedom taken off"),
    "robust_sd": ("float64", "see space", "1.4826 median absolute residual"),
    "held_out_error": ("float64", "", "mean of ln(predicted / observed) of the largest runs, fitted without them, as a relative error"),
    "held_out_rmsle": ("float64", "ln y", "its root mean square"),
    "held_out_points": ("int32", "", "runs held out"),
    "num_points": ("int32", "", "runs that were fitted"),
    "num_clusters": ("int32", "", "seeds, or runs of their own"),
    "excluded": ("string", "", "reason -> rows left out, as JSON"),
    "warnings": ("list<string>", "", "what a reader of the fit must know"),
    "versions": ("string", "", "package -> version, as JSON"),
    "created": ("timestamp[us]", "UTC", "by the clock of the host"),
}


def schema() -> "pa.Schema":
    """The Arrow schema, with the unit and meaning of each column in its metadata."""
    import pyarrow as pa

    fields = [
        pa.field(name, _arrow_type(type_), metadata={"description": description, **({"unit": unit} if unit else {})})
        for name, (type_, unit, description) in COLUMNS.items()
    ]
    return pa.schema(fields, metadata={"eigensweep.table": "fits", "eigensweep.format": FORMAT})


def _arrow_type(text: str) -> "pa.DataType":
    import pyarrow as pa

    if text.startswith("list<"):
        return pa.list_(_arrow_type(text[5:-1]))
    return pa.timestamp("us", tz="UTC") if text == "timestamp[us]" else pa.type_for_alias(text)


def row(fit: "Fit") -> dict[str, Any]:
    """A fit as a row."""
    from datetime import UTC, datetime

    import numpy as np

    replicates = fit.replicates()
    reported_PB = replicates.select(fit.parameters.keys()).to_numpy().T
    enough = len(replicates) > 1
    # numbers beyond 1e154 have no square: infinity says so
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = np.atleast_2d(np.cov(reported_PB)).ravel().tolist() if enough else []
    numbers = [*fit.parameters, *fit.derived]
    return {
        "fit_id": fit_id(fit),
        **_chosen(fit),
        "delta": fit.delta,
        "ranges": _json({name: list(ends) for name, ends in fit.ranges.items()}),
        "equation": fit.equation(),
        "parameter_names": list(fit.parameters),
        **{f"parameter_{name}": [getattr(one, side) for one in fit.parameters.values()] for name, side in _SIDES.items()},
        "derived_names": list(fit.derived),
        **{f"derived_{name}": [getattr(one, side) for one in fit.derived.values()] for name, side in _SIDES.items()},
        "covariance": covariance,
        "bootstrap": [replicates[name].to_list() for name in numbers] if len(replicates) else [],
        **{name: getattr(fit, name) for name in _AS_THEY_ARE},
        "held_out_error": fit.held_out.error,
        "held_out_rmsle": fit.held_out.rmsle,
        "held_out_points": fit.held_out.num_points,
        "codes": _json(dict(fit.codes)),
        "excluded": _json(dict(fit.excluded)),
        "warnings": list(fit.warnings),
        "versions": _json(_versions()),
        "created": datetime.now(UTC),
    }


_SIDES = {"values": "value", "low": "low", "high": "high"}
_AS_THEY_ARE = """num_bootstrap unit widening objective converged num_starts num_agree condition r_squared residual_sd robust_sd
    num_points num_clusters""".split()


def _chosen(fit: "Fit") -> dict[str, Any]:
    """The input and the choices that make a fit what it is."""
    settings = {name: value for name, value in fit.law.to_plain().items() if name != "name"}
    return {
        "law": fit.law.plugin_name(),
        "law_version": fit.law.version,
        "law_settings": _json(settings),
        "variables": _json(dict(fit.columns)),
        "y": fit.y,
        "choice": _json(dict(fit.choice)),
        "row_filter": fit.where,
        "weight_column": fit.weights,
        "group_column": fit.group,
        "input_hash": fit.digest,
        "estimator": str(fit.estimator).partition(",")[0],
        "space": "linear" if fit.estimator.linear else "log",
        "fixed": _json(dict(fit.fixed)),
        "reference": _json(dict(fit.reference)),
        "confidence": fit.confidence,
    }


def fit_id(fit: "Fit") -> str:
    """Name of a fit by its input and choices, for which replicates are drawn anew; 32 hex digits."""
    return hashlib.blake2b(_json({**_chosen(fit), "asked": fit.num_bootstrap > 0}).encode(), digest_size=16).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _versions() -> dict[str, str]:
    import eigensweep

    packages = {name: metadata.version(name) for name in ("numpy", "scipy", "polars")}
    return {"eigensweep": eigensweep.__version__, **packages, "python": platform.python_version()}


def plain(fit: "Fit") -> dict[str, Any]:
    """A fit as JSON has it: the row with names beside values, without the replicates."""
    full = row(fit)
    full["parameters"] = {name: _sides(one) for name, one in fit.parameters.items()}
    full["derived"] = {name: _sides(one) for name, one in fit.derived.items()}
    for name in ("law_settings", "variables", "choice", "codes", "fixed", "reference", "ranges", "excluded", "versions"):
        full[name] = json.loads(full[name])
    hidden = {"bootstrap", *(f"{kind}_{name}" for kind in ("parameter", "derived") for name in ("names", *_SIDES))}
    return {**{name: value for name, value in full.items() if name not in hidden}, "created": full["created"].isoformat()}


def _sides(one: Any) -> dict[str, float]:
    return {side: getattr(one, side) for side in _SIDES.values()}


# -- files --------------------------------------------------------------------------------------------------------------


def write(fits: Iterable["Fit"], path: str | Path) -> Path:
    """Write a table of fits; the file appears whole or not at all."""
    import pyarrow as pa

    return _write(pa.Table.from_pylist([row(fit) for fit in fits], schema=schema()), Path(path))


def keep(fits: Sequence["Fit"], path: str | Path) -> Path:
    """Add fits to a table; one that is made again takes the place of its row. For a file with one owner: of two processes that keep fits at
    the same moment, the rows of one may have to be made again.

    Raises Garbled, and leaves the file, where that is no table of fits.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    new = pa.Table.from_pylist([row(fit) for fit in fits], schema=schema())
    try:
        old = _read(Path(path))
    except FileNotFoundError:
        return _write(new, Path(path))
    others = old.filter(pc.invert(pc.is_in(old["fit_id"], value_set=new["fit_id"].combine_chunks())))
    return _write(pa.concat_tables([others, new]), Path(path))


def read(path: str | Path) -> "pl.DataFrame":
    """The table at `path`; without rows where there is none yet. Raises Garbled where it cannot be read."""
    import polars as pl

    try:
        table = _read(Path(path))
    except FileNotFoundError:
        table = schema().empty_table()
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _read(path: Path) -> "pa.Table":
    """With the columns that there are today: one that an earlier version did not write is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path)
        if "fit_id" not in found.column_names:
            raise Garbled(f"{path} is no table of fits; {_REMOVE}")
        empty = schema().empty_table()
        return pa.concat_tables([empty, found], promote_options="default").select(empty.column_names).cast(schema())
    except pa.ArrowException as error:
        raise Garbled(f"{path} cannot be read as a table of fits ({str(error).splitlines()[0]}); {_REMOVE}") from None


def _write(table: "pa.Table", path: Path) -> Path:
    import pyarrow.parquet as pq

    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path
