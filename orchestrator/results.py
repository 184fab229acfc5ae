"""What a sweep has computed, as lazy tables with typed axis columns, also while it runs."""

import functools
import warnings
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import attempts, collect, dataset, gather, schema
from orchestrator import ledger as ledgers
from orchestrator.attempts import Costs
from orchestrator.dataset import Manifest
from orchestrator.ledger import Ledger
from orchestrator.store import Store
from orchestrator.task_result import TaskResult
from workers import taskdir
from workers.errors import StoreError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit
    from orchestrator.grid import Axis
    from orchestrator.status import Status

MAX_CANDIDATES = 8

# of an attempt, what `tasks` shows beside the result that it committed
_OF_ATTEMPT = ("host", "device", "started", "seconds", "peak_memory_mib")


def load(name: str, root: str | PathLike[str] | None = None, *, mixed_code: bool = False) -> "Results":
    """The results of a sweep as they are now: the dataset, and the commits that are not yet in it.

    Raises StoreError where results of different code would be mixed, unless `mixed_code`.
    """
    store = Store.open(root)
    manifest, ledger = dataset.newest(store), ledgers.read(store.root)
    results = Results(store, name, store.manifest(name, ledger.revision_of(name)), manifest, ledger)
    if not mixed_code:
        results.check_code()
    return results


class Results:
    """The results of one sweep. Every table is a polars LazyFrame that holds this sweep's tasks only.

    Axes are columns by their short names (`<name>_axis` where the table has such a column itself), null where an axis does not
    reach a task. Diverged tasks are there, with status "diverged".
    """

    def __init__(self, store: Store, name: str, body: dict[str, Any], manifest: Manifest, ledger: Ledger) -> None:
        self.name = name
        self._store = store
        self._body = body
        self._manifest = manifest
        self._ledger = ledger

    def __repr__(self) -> str:
        count = f"{len(self._tasks):,} of {len(self._body['keys']):,} tasks"
        return f"<Results of sweep {self.name!r}: {count}, axes {', '.join(self.axis_names)}>"

    @property
    def root(self) -> Path:
        """Where the store stands."""
        return self._store.root

    @functools.cached_property
    def axes(self) -> "list[Axis]":
        """The axes of the grid, with their paths and values."""
        from orchestrator.sweep import Sweep

        return list(Sweep.from_body(self._body).axes)

    @property
    def axis_names(self) -> list[str]:
        """Short names of the axes."""
        return [axis["name"] for axis in self._body["axes"]]

    @property
    def revision(self) -> int:
        """Number of the sweep's revision that this is."""
        return self._ledger.revision_of(self.name) or self._store.revisions(self.name)[-1]

    @functools.cached_property
    def _earlier(self) -> set[str]:
        """Keys of tasks that points of the grid only go on from: their rows are those points' too, so that they are in no table."""
        found, start, keys = set[str](), 0, self._body["keys"]
        for block in self._body.get("blocks", ()):
            if not block.get("is_point", True):
                found.update(keys[start : start + block["size"]])
            start += block["size"]
        return found - {keys[index] for name in ("extra_targets", "extra_points") for index in self._body.get(name, ())}

    def missing(self) -> list[tuple[str, str]]:
        """Tasks without a result, in the sweep's order: the workload, and the task in words."""
        from orchestrator.sweep import Sweep
        from orchestrator.where import describe

        done, sweep = set(self._tasks["key"].to_list()) | self._earlier, Sweep.from_body(self._body)
        return [(sweep.workload(i), f"{describe(sweep, i)} ({key[:10]})") for i, key in enumerate(sweep.keys) if key not in done]

    @property
    def codes(self) -> dict[str, int]:
        """Code fingerprint -> number of tasks that it computed."""
        return dict(Counter(self._tasks["code"].to_list()).most_common())

    @property
    def garbled(self) -> dict[str, str]:
        """Commits of this sweep that cannot be trusted, with what is wrong; they are in no table."""
        keys = set(self._body["keys"])
        found = self._manifest.garbled | self._tail.garbled
        return {name: problem for name, problem in found.items() if name.partition(".")[0] in keys and name not in self._ledger.retracted}

    def check_code(self) -> None:
        """Raise StoreError where more than one code made these results."""
        codes = self.codes
        if len(codes) > 1:
            counts = ", ".join(f"{code or 'unknown'} ({number:,} tasks)" for code, number in codes.items())
            raise StoreError(
                f"sweep {self.name!r} has results of {len(codes)} different code fingerprints: {counts}. Load them together with "
                "mixed_code=True or --mixed-code (tables have the column `code`), or `eigensweep retract` the older ones and submit again"
            )

    # -- the verbs, for this sweep --------------------------------------------------------------------------------

    def status(self) -> "Status":
        """States by axis, causes of failure, what is left."""
        from orchestrator import verbs

        return verbs.status(self.name, self.root)

    def add(self, *overrides: str, **options: Any) -> "Status":
        """Grow the sweep: `sweep.add("model.width=256")`; load again for its results."""
        from orchestrator import verbs

        return verbs.add(self.name, overrides, self.root, **options)

    def resume(self, where: str | None = None, **options: Any) -> "Status":
        """Send again what failed or was cancelled."""
        from orchestrator import verbs

        return verbs.resume(self.name, where, self.root, **options)

    def cancel(self, where: str | None = None) -> list[str]:
        """Take tasks out of the sweep's work; the tasks in words."""
        from orchestrator import verbs

        return verbs.cancel(self.name, where, self.root)

    def retract(self, where: str, reason: str = "", **options: Any) -> list[str]:
        """Take back committed results and all that was computed from them; load again to see them gone."""
        from orchestrator import verbs

        return verbs.retract(self.name, where, reason, self.root, **options)

    def logs(self, key: str) -> str:
        """What the attempts of a task printed."""
        from orchestrator import verbs

        return "\n".join(verbs.logs(self.name, key, self.root))

    def fit(self, *, keep: bool = False, **options: Any) -> "list[Fit]":
        """A fit for each combination of the axes that are not fitted along: `sweep.fit(law="power", x="width", y="test_loss")`.

        A law of several variables takes an axis or a scalar of each run for each: `sweep.fit(law="chinchilla", n="num_params",
        d="train_size", y="test_loss")`. Other options: those of `eigensweep.fit` and `law.<setting>`, `fixed.<parameter>`,
        `reference.<variable>` as the command line writes them; an axis with a value chooses runs. `keep`: also in `fits`.
        """
        from orchestrator.points import fit_sweep

        found = fit_sweep(self, **options)
        if keep:
            self.keep(found)
        return found

    def keep(self, fits: "Sequence[Fit]") -> Path:
        """Put fits into the sweep's `fits`; one that is made again takes its own place. The file; StoreError in another's store."""
        from orchestrator import fits_table

        self._store.require_mine("keep fits")
        return fits_table.keep(fits, self._fits_file)

    @property
    def _fits_file(self) -> Path:
        return self._store.sweep_dir(self.name) / "fits.parquet"

    def report(self, out: str | PathLike[str] | None = None, **options: Any) -> Path:
        """One self-contained HTML file with fits and figures; its path."""
        from orchestrator import verbs

        return verbs.report(self.name, self.root, None if out is None else Path(out), **options)

    # -- tables ---------------------------------------------------------------------------------------------------

    def scalars(self) -> "pl.LazyFrame":
        """key, step, name, value; the workload, status and code of the task; and the axes."""
        return self._with_tasks("scalars")

    def spectra(self) -> "pl.LazyFrame":
        """key, step, index, eigenvalue, weight; workload, status, code; and the axes."""
        return self._with_tasks("spectra")

    def fits(self) -> "pl.LazyFrame":
        """One row per fit of this sweep that was kept, by `eigensweep fit` or `fit(keep=True)`: see `orchestrator/fits_table.py`."""
        from orchestrator import fits_table

        return fits_table.read(self._fits_file).lazy()

    def table(self, name: str) -> "pl.LazyFrame":
        """Any table: one of ours, or a workload's own by `WORKLOAD.table` or, for the target, by `table`."""
        if name in ("tasks", "attempts", "jobs"):
            return {"tasks": self.tasks, "attempts": self.attempts, "jobs": self.jobs}[name]()
        return self._with_tasks(self._full_name(name))

    def tasks(self, *, wide: bool = False) -> "pl.LazyFrame":
        """One row per committed task, with its settings as JSON and what its attempt cost; `wide`: the last value of each scalar too."""
        tasks = self._rows("tasks")
        costs = self._rows("attempts").select("attempt", *_OF_ATTEMPT).unique("attempt", keep="any")
        tasks = tasks.join(costs, on="attempt", how="left", maintain_order="left")
        tasks = self._join(tasks, self._axes_of_tasks.drop("workload", "status", "code"))
        return self._join(tasks, self._last_scalars()) if wide else tasks

    def attempts(self) -> "pl.LazyFrame":
        """One row per ended attempt, committed or not, with what it has cost, and the axes of its task."""
        keys = self._axes_frame.lazy().select("key")
        return self._join(self.all_attempts().join(keys, on="key", how="semi"), self._axes_frame.drop("is_target"))

    def all_attempts(self) -> "pl.LazyFrame":
        """The attempts of all sweeps that are in the dataset, and those of this sweep's batches that are not yet."""
        return self._with_news("attempts", self._news[0])

    def jobs(self) -> "pl.LazyFrame":
        """One row per ended job that a scheduler was asked for, and what it has cost; of every sweep: `sweep` says whose it is."""
        return self._with_news("jobs", self._news[1])

    def _with_news(self, table: str, news: list[dict[str, Any]]) -> "pl.LazyFrame":
        """The rows of a table in the dataset, and those that will be."""
        import polars as pl

        frames = [_lazy(gather.table_of(table, news))]
        if parts := self._manifest.parts.get(table, []):
            frames.insert(0, _scan(dataset.paths(self._store, parts)))
        # columns that an earlier version did not write are null
        return pl.concat(frames, how="diagonal_relaxed")

    def costs(self) -> "pl.LazyFrame":
        """One row per ended attempt of its tasks, and per attempt's share of its job's overhead (`attempt` is null), in whatever sweep.

        `kind` is useful, continued or wasted, `cause` says why (`orchestrator.cost_table`); the measures are hours and joules.
        """
        import polars as pl

        from orchestrator import cost_table

        every, jobs = self.all_attempts().collect(), self.jobs().collect()
        gone_on_from = pl.col("key").is_in(list(self._earlier)) & pl.col("class").is_in(list(attempts.COMMITTED))
        committed = pl.concat([self._rows("tasks").select("key", "attempt").collect(), every.filter(gone_on_from).select("key", "attempt")])
        rows = cost_table.frame(every, jobs, committed, self._axes_frame["key"], self.name)
        return self._join(rows.lazy(), self._axes_frame.drop("is_target"))

    def cost(self, by: str | Sequence[str] = "workload") -> "pl.DataFrame":
        """CPU-, GPU- and node-hours by one or several of: axes, workload, kind, cause, key, batch; with the part that was wasted."""
        from orchestrator import cost_table

        return cost_table.grouped(self.costs().collect(), [by] if isinstance(by, str) else list(by))

    def files(self, table: str) -> list[Path]:
        """The Parquet files of a table (or `axes`) for DuckDB, pandas or pyarrow: the whole store's rows, as compacted last.

        Join `scalars` with `axes` on `key` to have this sweep's. What is not in the dataset yet is compacted first, where the store
        may be written; else it comes with the next `eigensweep tick`.
        """
        manifest = self._compacted()
        if table == "axes":
            return dataset.paths(self._store, [manifest.axes[self.name]] if self.name in manifest.axes else [])
        return dataset.paths(self._store, manifest.parts.get(self._full_name(table), []))

    def _compacted(self) -> Manifest:
        """The newest manifest, after a compaction where commits of this sweep or retractions wait for one."""
        old = self._tail.tables["tasks"]["key"] or self.name not in self._manifest.axes
        old = old or self._ledger.retracted != set(self._manifest.retracted)
        if old and self._store.is_mine:
            collect.compact(self._store, ledgers.read(self.root))
            return dataset.newest(self._store)
        return self._manifest

    @property
    def table_names(self) -> list[str]:
        """Tables that there are."""
        return sorted({*schema.TABLES, *self._manifest.parts, *self._tail.tables})

    def _full_name(self, table: str) -> str:
        own = f"{self._body['target']}.{table}"
        return own if own in self.table_names else schema.known_table(table, self.table_names)

    # -- one task -------------------------------------------------------------------------------------------------

    def task(self, workload: str | None = None, key: str | None = None, **axes: Any) -> TaskResult:
        """The one committed task at these axis values: of the target, or of an input's `workload`. `key`: its first letters.

        Raises UnknownName where there is none or are several, with the candidates.
        """
        import polars as pl

        every = self._axes_frame
        chosen = every.filter(pl.col("is_target") if workload is None else pl.col("workload") == workload)
        if key is not None:
            chosen = every.filter(pl.col("key").str.starts_with(key))
        elif chosen.is_empty():
            known = every["workload"].unique().to_list()
            raise UnknownName(
                f"sweep {self.name!r} has no tasks of workload {workload!r}{nearest(str(workload), known)} It has {', '.join(known)}"
            )
        found = chosen
        for name, value in axes.items():
            found = self._at(found, self._axis_column(name), value)
        if len(found) != 1:
            raise UnknownName(self._candidates(found if len(found) else chosen, len(found), {"key": key, **axes} if key else axes))
        return self._result(found["key"][0], found)

    def _axis_column(self, name: str) -> str:
        by_path = {axis["path"]: axis["name"] for axis in self._body["axes"]}
        short = by_path.get(name, name)
        if short not in self.axis_names:
            raise UnknownName(
                f"sweep {self.name!r} has no axis {name!r}{nearest(name, self.axis_names)} It has {', '.join(self.axis_names) or 'none'}"
            )
        return short if f"{short}_axis" not in self._axes_frame.columns else f"{short}_axis"

    @staticmethod
    def _at(frame: "pl.DataFrame", column: str, value: Any) -> "pl.DataFrame":
        wanted = list(value) if isinstance(value, tuple) else value
        return frame.filter([one == wanted for one in frame[column].to_list()])

    def _candidates(self, frame: "pl.DataFrame", number: int, axes: dict[str, Any]) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in axes.items()) or "nothing"
        shown = [", ".join(f"{name}={value!r}" for name, value in row.items()) for row in self._named(frame.head(MAX_CANDIDATES))]
        more = f"; and {len(frame) - len(shown):,} more" if len(frame) > len(shown) else ""
        what = "no task" if number == 0 else f"{number:,} tasks"
        return f"{what} of sweep {self.name!r} at {given}; give axes that choose one of: {'; '.join(shown)}{more}"

    def _named(self, frame: "pl.DataFrame") -> list[dict[str, Any]]:
        hidden = ("is_target",) if frame["workload"].n_unique() > 1 else ("is_target", "workload")
        if len(frame.columns) > 3:
            hidden = (*hidden, "key")
        return [{n: v for n, v in row.items() if n not in hidden and v is not None} for row in frame.to_dicts()]

    def _result(self, key: str, frame: "pl.DataFrame") -> TaskResult:
        try:
            commit = taskdir.read_commit(self.root, self._ledger.name_of(key))
        except FileNotFoundError:
            raise StoreError(
                f"task {key} ({self._named(frame)[0]}) has no result yet; see `eigensweep status {self.name}` "
                f"and `eigensweep logs {self.name} {key}`"
            ) from None
        return TaskResult(self.root, commit)

    # -- how rows come together -----------------------------------------------------------------------------------

    @functools.cached_property
    def _axes_frame(self) -> "pl.DataFrame":
        """key, workload, is_target and the axes of all tasks of the sweep."""
        import polars as pl

        part = self._manifest.axes.get(self.name)
        if part is not None and part["revision"] == self.revision:
            return pl.read_parquet(dataset.paths(self._store, [part])[0])
        return _frame(collect.axes_table(self._store, self.name, self.revision))

    @functools.cached_property
    def _in_dataset(self) -> "pl.DataFrame":
        """key, generation, workload, status, code, attempt of this sweep's tasks in the dataset, but those taken back since."""

        columns = ["key", "generation", "workload", "status", "code", "attempt"]
        parts = self._manifest.parts.get("tasks", [])
        if not parts:
            return _frame(schema.fixed("tasks").empty_table()).select(columns)
        tasks = _scan(dataset.paths(self._store, parts)).select(columns).join(self._axes_frame.lazy().select("key"), on="key", how="semi")
        frame = tasks.collect()
        if self._earlier:
            frame = frame.filter([key not in self._earlier for key in frame["key"]])
        gone = self._ledger.retracted - set(self._manifest.retracted)
        return frame.filter([name not in gone for name in _names(frame)]) if gone else frame

    @functools.cached_property
    def _tail(self) -> gather.Gathered:
        """The commits that are not in the dataset yet."""
        keys = set(self._body["keys"]) - self._earlier
        missing = self._store.done(self.name) - set(_names(self._in_dataset)) - self._ledger.retracted - self._manifest.garbled.keys()
        tail = gather.Gathered(self.root).add_named(sorted(name for name in missing if name.partition(".")[0] in keys))
        for problem in tail.garbled.values():
            warnings.warn(f"left out: {problem}", stacklevel=4)
        return tail

    @functools.cached_property
    def _tail_tables(self) -> "dict[str, pl.DataFrame]":
        import polars as pl

        tables = {name: _frame(table) for name, table in self._tail.arrow().items()}
        if self._tail.derived["key"]:
            derived = _frame(self._tail.arrow_derived())
            tables["scalars"] = pl.concat([tables["scalars"], derived]) if "scalars" in tables else derived
        return tables

    @functools.cached_property
    def _tasks(self) -> "pl.DataFrame":
        """key, workload, status and code of all committed tasks of the sweep."""
        import polars as pl

        columns = ["key", "workload", "status", "code"]
        tail = self._tail_tables.get("tasks")
        compacted = self._in_dataset.select(columns)
        return compacted if tail is None else pl.concat([compacted, tail.select(columns)])

    @functools.cached_property
    def _axes_of_tasks(self) -> "pl.DataFrame":
        return self._tasks.join(self._axes_frame.drop("workload", "is_target"), on="key", how="left", maintain_order="left")

    def _rows(self, table: str) -> "pl.LazyFrame":
        """Rows of the dataset and the tail; the dataset's of other sweeps or taken back are left out."""
        import polars as pl

        parts = self._manifest.parts.get(table, [])
        frames = []
        if parts:
            wanted = self._axes_frame if table == "attempts" else self._in_dataset
            frames.append(_scan(dataset.paths(self._store, parts)).join(wanted.lazy().select("key"), on="key", how="semi"))
        if table in self._tail_tables:
            frames.append(self._tail_tables[table].lazy())
        if not frames:
            return _lazy(schema.fixed(table).empty_table())
        return pl.concat(frames, how="diagonal_relaxed")

    def _with_tasks(self, table: str) -> "pl.LazyFrame":
        return self._join(self._rows(table), self._axes_of_tasks)

    @staticmethod
    def _join(rows: "pl.LazyFrame", tasks: "pl.DataFrame") -> "pl.LazyFrame":
        """Rows with the columns of their task beside them."""
        taken = set(rows.collect_schema().names()) - {"key"}
        renamed = tasks.rename({name: collect.axis_column(name, taken) for name in tasks.columns if name in taken})
        return rows.join(renamed.lazy(), on="key", how="left", maintain_order="left")

    def _last_scalars(self) -> "pl.DataFrame":
        import polars as pl

        last = self._rows("scalars").group_by("key", "name").agg(pl.col("value").sort_by("step").last()).collect()
        if last.is_empty():
            return last.select("key")
        return last.sort("name").pivot("name", index="key", values="value")

    @functools.cached_property
    def _news(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Attempts and jobs that are not in the dataset yet: of batches closed since, of open ones, and of the commits in the tail."""
        costs = Costs(self.root, self._ledger.batches)
        found, jobs = collect.read_closed(self._store, collect.read_news(self._store, self._manifest, self._ledger), costs)
        for token, entry in self._ledger.batches.items():
            found += attempts.rows(self.root, token, entry)
        tail = gather.Gathered(self.root, costs=costs).add_named(self._tail.names).tables["attempts"]
        committed = {*self._in_dataset["attempt"], *tail["attempt"]}
        failed = [row for row in found if row["attempt"] not in committed and row["class"] not in attempts.COMMITTED]
        return failed + [dict(zip(tail, values, strict=True)) for values in zip(*tail.values(), strict=True)], jobs


def _scan(paths: list[Path]) -> "pl.LazyFrame":
    """The rows of several parts, of which later ones may have more columns."""
    import polars as pl

    return pl.concat([pl.scan_parquet(path) for path in paths], how="diagonal_relaxed")


def _frame(table: Any) -> "pl.DataFrame":
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _lazy(table: Any) -> "pl.LazyFrame":
    return _frame(table).lazy()


def _names(frame: "pl.DataFrame") -> list[str]:
    """Commit names of rows with key and generation."""
    if not (frame["generation"] > 0).any():
        return frame["key"].to_list()
    return [taskdir.commit_name(key, generation) for key, generation in frame.select("key", "generation").rows()]
