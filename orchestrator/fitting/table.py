"""From any table to the arrays of a fit: the columns of its variables, what is left out and why, and which rows are resampled together."""

# N runs, V variables

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.laws.law import Array
from workers.errors import ConfigError, StoreError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["AUTO", "Runs", "filtered", "frame_of", "read"]

AUTO = "auto"
SEED = "seed"
# the column of our own tables that says which code made a row
CODE = "code"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """The usable rows. `cluster_N`: rows of one label are resampled together; `group`: the column that says so, None where each row is
    alone. `excluded`: reason -> rows. `digest`: of the values that are fitted, in their order. `codes`: code fingerprint -> rows, where
    the table says which code made them."""

    x_NV: Array
    y_N: Array
    weight_N: Array
    cluster_N: Array
    group: str | None
    excluded: Mapping[str, int]
    digest: str
    codes: Mapping[str, int]


def frame_of(table: Any) -> "pl.DataFrame":
    """A polars frame of a polars, pandas or Arrow table, a dict of columns, or a Parquet or CSV file."""
    import os

    import polars as pl

    if isinstance(table, str | os.PathLike):
        return _read_file(os.fspath(table))
    try:
        if isinstance(table, pl.LazyFrame):
            return table.collect()
        if isinstance(table, pl.DataFrame):
            return table
        if isinstance(table, Mapping):
            return pl.DataFrame(dict(table), strict=False)
        if type(table).__module__.startswith("pandas"):
            return pl.from_pandas(table)
        if table is None:
            raise TypeError("there is none")
        made = pl.from_arrow(table)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise ConfigError(
            "a table must be a polars, pandas or Arrow table, a dict of columns of one length, or the path of a .parquet or .csv file, "
            f"got {type(table).__name__}: {_first_line(error)}"
        ) from None
    return made.to_frame() if isinstance(made, pl.Series) else made


def _read_file(path: str) -> "pl.DataFrame":
    import polars as pl

    if not path.endswith((".parquet", ".csv")):
        sweep = "" if "/" in path or "." in path else f"; a sweep is fitted by es.load({path!r}).fit(...)"
        raise ConfigError(f"a table must be a .parquet or .csv file, got {path!r}{sweep}")
    try:
        return pl.read_parquet(path) if path.endswith(".parquet") else pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as a table: {_first_line(error)}. It must be there, readable and whole: try polars.read_"
            f"{'parquet' if path.endswith('.parquet') else 'csv'} on it"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def read(
    table: Any,
    columns: Sequence[str],
    y: str,
    *,
    group: str | None = AUTO,
    weights: str | None = None,
    where: str | None = None,
    mixed_code: bool = False,
) -> Runs:
    """The rows with finite, positive values that did not diverge, without exact copies; `where`: a condition in SQL on the columns.

    Raises StoreError where rows of different code would be mixed, unless `mixed_code`.
    """
    import numpy as np
    import polars as pl

    frame = filtered(frame_of(table), where)
    if group == AUTO:
        group = SEED if SEED in frame.columns else None
    for name in filter(None, (*columns, y, weights, group)):
        _check_column(frame, name, is_group=name == group and name not in (*columns, y, weights))
    numbers = [_numbers(frame, name) for name in (*columns, y, *([weights] if weights else []))]
    values_NC = np.column_stack(numbers) if len(frame) else np.empty((0, len(numbers)))
    label_N = frame[group].cast(pl.String).fill_null("").to_numpy() if group else np.full(len(frame), "")
    reasons_N = _reasons(frame, values_NC, label_N)
    good_N = reasons_N == ""
    counts = {reason: int((reasons_N == reason).sum()) for reason in dict.fromkeys(reasons_N[~good_N].tolist())}
    if not good_N.any():
        raise ConfigError(_nothing_left(len(frame), counts, where))
    codes = {} if CODE in (*columns, y, weights, group) else _codes(frame, good_N, mixed=mixed_code)
    values_NC, label_N = values_NC[good_N], label_N[good_N]
    num = len(columns)
    return Runs(
        x_NV=values_NC[:, :num],
        y_N=values_NC[:, num],
        weight_N=values_NC[:, num + 1] if weights else np.ones(len(values_NC)),
        cluster_N=np.unique(label_N, return_inverse=True)[1] if group else np.arange(len(values_NC)),
        group=group,
        excluded=counts,
        digest=hashlib.sha256(np.ascontiguousarray(values_NC).tobytes() + "\0".join(label_N.tolist()).encode()).hexdigest()[:32],
        codes=codes,
    )


def filtered(frame: "pl.DataFrame", where: str | None) -> "pl.DataFrame":
    """The rows that a condition in SQL chooses; all without one."""
    import polars as pl

    if not where:
        return frame
    try:
        return frame.filter(pl.sql_expr(where))
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ConfigError(
            f"where must be a condition on the columns, such as \"flops < 1e20 AND model = 'mlp'\", got {where!r}: {_first_line(error)}"
        ) from None


def _check_column(frame: "pl.DataFrame", name: str, *, is_group: bool) -> None:
    if name not in frame.columns:
        hint = "; group=None where runs are not repeated" if is_group else ""
        raise UnknownName(f"no column {name!r}{nearest(name, frame.columns)} The table has: {', '.join(frame.columns)}{hint}")


def _numbers(frame: "pl.DataFrame", name: str) -> Array:
    """float64 (N,); NaN for null. Raises ConfigError for a column that holds no numbers."""
    import polars as pl

    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype in (pl.Null, pl.Boolean)):
        raise ConfigError(f"column {name!r} must hold numbers, it holds {column.dtype}, such as {column.drop_nulls().head(1).to_list()}")
    numbers_N: Array = column.cast(pl.Float64).fill_null(math.nan).to_numpy()
    return numbers_N


def _reasons(frame: "pl.DataFrame", values_NC: Array, label_N: Array) -> Array:
    """(N,) why a row is left out; empty where it is not."""
    import numpy as np
    import polars as pl

    reason_N = np.full(len(frame), "", dtype=object)
    if not len(frame):
        return reason_N
    rows = pl.DataFrame({**{str(i): values_NC[:, i] for i in range(values_NC.shape[1])}, "label": label_N})
    reason_N[~rows.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()] = "copies"
    finite_N = np.isfinite(values_NC).all(axis=1)
    reason_N[finite_N & (values_NC <= 0).any(axis=1)] = "not positive"
    reason_N[~finite_N] = "not finite"
    if "status" in frame.columns:
        reason_N[(frame["status"].cast(pl.String).fill_null("") == "diverged").to_numpy()] = "diverged"
    return reason_N


def _codes(frame: "pl.DataFrame", good_N: Array, *, mixed: bool) -> dict[str, int]:
    """Code fingerprint -> rows that are fitted."""
    import polars as pl

    if CODE not in frame.columns:
        return {}
    counted = frame[CODE].cast(pl.String).fill_null("unknown").filter(pl.Series(good_N)).value_counts(sort=True)
    codes = {str(code): int(count) for code, count in counted.rows()}
    if len(codes) > 1 and not mixed:
        counts = ", ".join(f"{code} ({number:,} rows)" for code, number in codes.items())
        raise StoreError(
            f"the table has rows of {len(codes)} different code fingerprints: {counts}. Fit them together with mixed_code=True or "
            f"`eigensweep fit --mixed-code`, or choose one: where=\"{CODE} = '{next(iter(codes))}'\""
        )
    return codes


def _nothing_left(number: int, counts: Mapping[str, int], where: str | None) -> str:
    if not number:
        return f"the table has no rows{' where ' + where if where else ''}; choose others, or see `eigensweep status` of the sweep"
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f"none of the {number} rows can be fitted: {left_out}. Logarithms need finite numbers above 0: check the columns and their units"
