"""Values chosen from the results of another sweep: the best learning rate of each width, for derived settings."""

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from orchestrator import grid
from orchestrator.expression import Lookup
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.grid import Axis
    from orchestrator.results import Results
    from orchestrator.store import Store

_USAGE = "best('lr_scan', 'learning_rate', by=['width'], of='test_loss', goal='min')"


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked of a sweep: the value of `setting` at which the scalar `of` is best, for each value of the axes `by`.

    Seeds are put together by their median or mean (`across`). The scalar is that of a task's last step.
    """

    sweep: str
    setting: str
    by: tuple[str, ...] = ()
    of: str = "test_loss"
    goal: str = "min"
    across: str = "median"
    mixed_code: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("goal", ("min", "max")), ("across", ("median", "mean")), ("mixed_code", (True, False))):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} of best(...) must be {' or '.join(map(str, allowed))}, got {getattr(self, name)!r}; as in {_USAGE}"
                )

    @classmethod
    def of_call(cls, args: Sequence[Any], given: Mapping[str, Any]) -> "Query":
        """The query of a call; ConfigError for words that it does not take."""
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise UnknownName(f"best(...) takes no {name!r}{nearest(name, known)} It takes {', '.join(known)}, as in {_USAGE}")
        values = {**dict(zip(known[:2], args)), **given}
        by = values.get("by", ())
        by = (by,) if isinstance(by, str) else tuple(by)
        texts = [values.get("sweep"), values.get("setting"), *by]
        if len(args) > 2 or not all(isinstance(one, str) for one in texts):
            raise ConfigError(f"best(...) takes the names of a sweep and of a setting, and by= a list of axes, as in {_USAGE}")
        return cls(**{**values, "by": by})

    def __str__(self) -> str:
        return f"best {self.setting} by {self.goal} {self.of} ({self.across}) for each {', '.join(self.by) or 'sweep'} in {self.sweep!r}"


@dataclass(slots=True)
class Choices:
    """What was chosen so far. `open_sweep`: the results of a sweep by name, and whether code may be mixed; None: there is no store.

    `kept`: records of an earlier revision, whose values stay.
    """

    open_sweep: "Callable[[str, bool], Results] | None" = None
    kept: Sequence[Mapping[str, Any]] = ()
    notes: list[str] = field(default_factory=list)
    _read: dict[Query, dict[str, Any]] = field(default_factory=dict)
    _used: dict[str, dict[str, Any]] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """For the manifest: each query with its table, and the results that it was read from."""
        return list(self._used.values())

    def best(self, args: list[Any], given: dict[str, Any]) -> Callable[[Lookup], Any]:
        """A call in an expression, as a function of a point's settings."""
        query = Query.of_call(args, given)
        return lambda lookup: self._value(query, tuple(lookup(name) for name in query.by))

    def _value(self, query: Query, at: tuple[Any, ...]) -> Any:
        for record in self._records_of(query):
            for *values, chosen in record["table"]:
                if tuple(values) == at:
                    self._use(query, record)
                    return chosen
        there = "; ".join(", ".join(f"{name}={value}" for name, value in zip(query.by, row)) for row in record["table"])
        words = ", ".join(f"{name}={value}" for name, value in zip(query.by, at))
        if list(at) in record["diverged"]:
            raise ConfigError(
                f"every run of sweep {query.sweep!r} at {words} diverged, so there is no {query} there; "
                f"`eigensweep add {query.sweep} {words.replace(', ', ' ')} {query.setting}=...` computes it with other values"
            )
        raise ConfigError(
            f"sweep {query.sweep!r} has no result at {words}, of which to take the {query}; it has {there or 'none'}: "
            f"`eigensweep add {query.sweep} {words.replace(', ', ' ')}` computes it"
        )

    def _use(self, query: Query, record: Mapping[str, Any]) -> None:
        """Take up the record; a note where it was kept, and what it was read from was taken back or is other by now."""
        if (text := json.dumps(record)) in self._used:
            return
        self._used[text] = dict(record)
        if self.open_sweep is not None and record in self.kept and not _still_holds(query, record, self.open_sweep):
            self.notes.append(
                f"{query}: revision {record['revision']}, of which it was chosen, has not the same results any more; what had this choice "
                "keeps it: `eigensweep submit` of the same sweep chooses anew"
            )

    def _records_of(self, query: Query) -> Iterator[Mapping[str, Any]]:
        """What was kept, and only where that does not do, what the results say now."""
        yield from (one for one in self.kept if one["query"] == str(query))
        yield self._record(query)

    def _record(self, query: Query) -> dict[str, Any]:
        if query not in self._read:
            if self.open_sweep is None:
                raise ConfigError(f"the {query} needs a store with that sweep; give one with --root DIR or EIGENSWEEP_ROOT")
            self._read[query] = _read(query, self.open_sweep(query.sweep, query.mixed_code), self.notes)
        return self._read[query]


def choices(store: "Store", kept: Sequence[Mapping[str, Any]] = ()) -> Choices:
    """Choices from the sweeps of a store."""

    def opened(name: str, mixed_code: bool) -> "Results":
        from orchestrator.results import load

        return load(name, store.root, mixed_code=mixed_code)

    return Choices(opened, kept)


def _read(query: Query, results: "Results", notes: list[str]) -> dict[str, Any]:
    """The table of the best values, from complete results; ConfigError where some are lacking or nothing can be chosen."""
    import polars as pl

    axes = _axes(query, results)
    every = results.scalars().filter(pl.col("name") == query.of).collect()
    if every.is_empty():
        names = sorted(results.scalars().select("name").unique().collect()["name"].to_list())
        raise UnknownName(
            f"sweep {query.sweep!r} has no scalar {query.of!r}{nearest(query.of, names)} It has {', '.join(names) or 'none yet'}"
        )
    _require_complete(query, results, set(every["workload"].to_list()))
    columns = [_column(axis, every) for axis in axes]
    last = _last(every).sort(columns)
    good = last.filter((pl.col("status") != "diverged") & pl.col("value").is_finite())
    _note_left_out(query, last, good, axes, columns, notes)
    *by, setting = columns
    score = pl.col("value").median() if query.across == "median" else pl.col("value").mean()
    scores = good.group_by(columns).agg(score).sort([*by, "value", setting], descending=[False] * len(by) + [query.goal == "max", False])
    best = scores.group_by(by, maintain_order=True).first() if by else scores.head(1)
    table = [list(row) for row in best.select(columns).rows()]
    scanned = sorted(last[setting].drop_nulls().unique().to_list())
    _note_edges(query, table, scanned, notes)
    record = {"query": str(query), "sweep": query.sweep, "revision": results.revision, "tasks": len(last), "table": table}
    alive = set(good.select(by).rows())
    diverged = [list(row) for row in dict.fromkeys(last.select(by).rows()) if row not in alive]
    record |= {"until": _until(results, last["key"].to_list()), "values": _digest(last), "diverged": diverged}
    notes.append(
        f"{query}, revision {results.revision}, {len(last)} runs until {record['until']}: "
        + "; ".join(", ".join([*(f"{n}={v}" for n, v in zip(query.by, row)), f"{query.setting}={row[-1]}"]) for row in table)
    )
    return record


def _axes(query: Query, results: "Results") -> "list[Axis]":
    """The axes `by` and that of the setting; ConfigError where others but seeds are scanned too."""
    found = [grid.find(name, results.axes) for name in (*query.by, query.setting)]
    others = [
        axis.path for axis in results.axes if axis not in found and not axis.formula and not axis.path.rpartition(".")[2].startswith("seed")
    ]
    if others:
        raise ConfigError(
            f"sweep {query.sweep!r} also varies {', '.join(others)}: name them in by=[...], that each has a best {query.setting}"
        )
    return found


def _column(axis: "Axis", frame: "pl.DataFrame") -> str:
    return f"{axis.name}_axis" if f"{axis.name}_axis" in frame.columns else axis.name


def _require_complete(query: Query, results: "Results", workloads: set[str]) -> None:
    missing = [words for workload, words in results.missing() if workload in workloads]
    if missing:
        shown = "; ".join(missing[:5]) + (f"; and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ConfigError(
            f"the {query} must wait: {len(missing)} of its tasks have no result yet: {shown}. `eigensweep status {query.sweep}` says why, "
            f"`eigensweep resume {query.sweep}` sends them again"
        )


def _note_left_out(
    query: Query, last: "pl.DataFrame", good: "pl.DataFrame", axes: "list[Axis]", columns: list[str], notes: list[str]
) -> None:
    left = last.join(good, on="key", how="anti")
    if good.is_empty():
        raise ConfigError(f"every run of sweep {query.sweep!r} diverged, so there is no {query}; scan other values")
    if len(left):
        rows = [
            "(" + ", ".join(f"{axis.name}={value}" for axis, value in zip(axes, row)) + ")"
            for row in left.select(columns).unique().sort(columns).rows()
        ]
        notes.append(f"{query}: {len(left)} diverged runs are left out: {', '.join(rows)}")


def _note_edges(query: Query, table: list[list[Any]], scanned: list[Any], notes: list[str]) -> None:
    if len(scanned) < 2 or isinstance(scanned[0], str | bool):
        return
    edges = [row for row in table if row[-1] in (scanned[0], scanned[-1])]
    if edges:
        rows = "; ".join(", ".join([*(f"{n}={v}" for n, v in zip(query.by, row)), f"{query.setting}={row[-1]}"]) for row in edges)
        notes.append(
            f"{query}: the best is at the edge of what was scanned, {scanned[0]} to {scanned[-1]} ({rows}); a better one may lie beyond: "
            f"`eigensweep add {query.sweep} {query.setting}=...`"
        )


def _until(results: "Results", keys: list[str]) -> str:
    """When the last of these tasks ended."""
    import polars as pl

    tasks = results.tasks().filter(pl.col("key").is_in(keys)).select("started", "seconds").collect()
    ends = [started.timestamp() if hasattr(started, "timestamp") else started for started in tasks["started"].drop_nulls().to_list()]
    return datetime.datetime.fromtimestamp(max(ends), datetime.UTC).strftime("%Y-%m-%d %H:%M UTC") if ends else "unknown"


def _last(every: "pl.DataFrame") -> "pl.DataFrame":
    """Of each task the row of its last step."""
    return every.sort("step").group_by("key", maintain_order=True).last()


def _still_holds(query: Query, record: Mapping[str, Any], open_sweep: "Callable[[str, bool], Results]") -> bool:
    """Whether the tasks of the revision that a record was read from have the same results."""
    import polars as pl

    from orchestrator.store import Store

    try:
        results = open_sweep(query.sweep, True)
        keys = Store.open(results.root).manifest(query.sweep, record["revision"])["keys"]
    except UnknownName:
        return False
    read = results.scalars().filter((pl.col("name") == query.of) & pl.col("key").is_in(keys)).collect()
    return bool(_digest(_last(read)) == record["values"])


def _digest(last: "pl.DataFrame") -> str:
    """Of the results themselves, so that others are told apart."""
    text = json.dumps(sorted(zip(last["key"].to_list(), last["value"].to_list(), last["status"].to_list())))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
