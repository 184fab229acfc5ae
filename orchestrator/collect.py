"""Compacts what is newly committed into the dataset: a next manifest, linked into place, beside the parts of the earlier ones."""

import contextlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator import attempts, dataset, gather, schema
from orchestrator import ledger as ledgers
from orchestrator.attempts import Closed, Costs, Row
from orchestrator.dataset import Manifest, Part
from orchestrator.ledger import Ledger
from orchestrator.store import Store
from workers import files, taskdir

if TYPE_CHECKING:
    import pyarrow as pa

# commits read at once: bounds the memory of a first compaction of a large store
CHUNK = 50_000


@dataclass(slots=True)
class News:
    """What the ledger says since the last manifest: the batches that were closed."""

    closed: dict[str, Closed] = field(default_factory=dict)


def compact(store: Store, ledger: Ledger, *, full: bool = False) -> int | None:
    """Write the next manifest of the dataset and its ledger entry; its number, or None where there is nothing new (or another did it).

    New commits are known from hints and closed batches; `full` lists every commit of the store, as the first compaction does. `ledger`
    is brought up to date in place.
    """
    base = dataset.newest(store)
    taken = dataset.numbers(store)
    if ledger.number < base.ledger_number:
        ledgers.read(store.root, ledger)
    news = read_news(store, base, ledger)
    full = full or base.number == 0 or taken[-1] != base.number
    known, new = _new_names(store, base, _candidates(store, base, ledger, news, full))
    draft = _Draft(store, {table: list(parts) for table, parts in base.parts.items()})
    try:
        body = _next(draft, base, ledger, news, new, max(taken, default=0) + 1)
    except BaseException:
        draft.discard_but(None)
        raise
    # an error from here on may come after the link: then the parts are named, and gc knows the orphans
    if body is not None and not files.publish(dataset.manifest_path(store, body.number), files.encode(body.to_body())):
        body = None
    draft.discard_but(body)
    if body is not None:
        _note(store, ledger, body.number)
    _fold_hints(store, ledger, known if body is None else known.union(draft.names))
    return None if body is None else body.number


def _next(draft: "_Draft", base: Manifest, ledger: Ledger, news: News, new: set[str], number: int) -> Manifest | None:
    """The manifest after `base`, with its parts written; None where nothing changed."""
    num_gone = draft.drop(_gone_keys(draft.store, base, ledger))
    observables = gather.observables_fingerprint()
    if observables != base.observables:
        draft.observe_again()
    costs = Costs(draft.store.root, ledger.batches)
    of_attempts, of_jobs = read_closed(draft.store, news, costs)
    draft.add_commits(sorted(new), costs)
    draft.add_rows("attempts", _without_commit(draft.store, base, of_attempts, draft.attempts))
    draft.add_rows("jobs", of_jobs)
    axes = draft.axes(base.axes, ledger)
    if not (draft.changed or axes != base.axes or draft.garbled != base.garbled):
        return None
    draft.merge()
    return Manifest(
        number=number,
        parts=draft.parts,
        axes=axes,
        retracted=sorted(ledger.retracted),
        garbled=draft.garbled,
        observables=observables,
        num_commits=base.num_commits - num_gone + len(draft.names),
        ledger_number=ledger.number,
        folded=ledger.to_body(),
    )


def _note(store: Store, ledger: Ledger, number: int) -> None:
    while not ledgers.append(store.root, ledger, {"kind": "compaction", "manifest": number}):
        ledgers.read(store.root, ledger)


def _fold_hints(store: Store, ledger: Ledger, known: set[str]) -> None:
    covered = known | ledger.retracted
    for name in store.sweep_names():
        store.fold_hints(name, covered)


# -- what is new ------------------------------------------------------------------------------------------------------


def read_news(store: Store, base: Manifest, ledger: Ledger) -> News:
    """The closed batches between a manifest and the ledger."""
    news = News()
    submissions = ledgers.spread(base.folded.get("batches", {}))
    for number in range(base.ledger_number + 1, ledger.number + 1):
        body = files.read(store.root / "ledger" / f"{number:08d}.json")
        if body["kind"] == "submission":
            submissions.update(ledgers.jobs_of(body))
        elif body["kind"] == "closed":
            for closing in ledgers.closings(body):
                token = closing["token"]
                entry = submissions.pop(token, {})
                news.closed.setdefault(token, Closed(entry, closing["outcomes"], closing.get("job", {})))
    return news


def _candidates(store: Store, base: Manifest, ledger: Ledger, news: News, full: bool) -> set[str]:
    """Names of commits that may be new."""
    hints = itertools.chain.from_iterable(store.hints(name) for name in files.names(store.root / "sweeps"))
    closed = (ledger.name_of(key) for one in news.closed.values() for key in one.keys)
    names = {*hints, *closed, *base.garbled, *(store.commit_names() if full else ())}
    # neither what was taken back nor, while this ledger does not say so yet, what came after it: both would have the same key
    return {name for name in names if name == ledger.name_of(name.partition(".")[0])}


def _new_names(store: Store, base: Manifest, candidates: set[str]) -> tuple[set[str], set[str]]:
    """The candidates that the dataset has, and those that it lacks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not base.parts.get("tasks"):
        return set(), candidates
    names = commit_names(store, base)
    known = set(names.filter(pc.is_in(names, value_set=pa.array(sorted(candidates), pa.string()))).to_pylist())
    return known, candidates - known


def commit_names(store: Store, manifest: Manifest) -> "pa.ChunkedArray":
    """Names of all commits in the dataset."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = dataset.read(store, manifest.parts["tasks"], ["key", "generation"])
    generation = rows["generation"]
    if not pc.any(pc.greater(generation, 0)).as_py():
        return rows["key"]
    later = pc.binary_join_element_wise(rows["key"], pc.cast(generation, pa.string()), ".")
    return pc.if_else(pc.equal(generation, 0), rows["key"], later)


def _gone_keys(store: Store, base: Manifest, ledger: Ledger) -> list[str]:
    """Keys of the commits that were taken back since the last manifest and stand in it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = sorted(ledger.retracted - set(base.retracted))
    if not gone or not base.parts.get("tasks"):
        return []
    names = commit_names(store, base)
    found = names.filter(pc.is_in(names, value_set=pa.array(gone, pa.string()))).to_pylist()
    return [name.partition(".")[0] for name in found]


def read_closed(store: Store, news: News, costs: Costs) -> tuple[list[Row], list[Row]]:
    """Rows of the attempts of all closed batches, and of their jobs; `costs` learns them too."""
    of_attempts, of_jobs = [], []
    for token, closed in news.closed.items():
        found = attempts.rows(store.root, token, closed.entry, closed)
        costs.add(token, closed.entry, found)
        of_attempts += found
        job = attempts.job_row(token, closed, found)
        if job is not None:
            of_jobs.append(job if found else job | {"idle_tasks": json.dumps(closed.keys)})
    return of_attempts, of_jobs


def _without_commit(store: Store, base: Manifest, rows: list[Row], committed: set[str]) -> list[Row]:
    """The attempts that did not commit: neither in the dataset nor just read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = [row for row in rows if row["attempt"] not in committed and row["class"] not in attempts.COMMITTED]
    if not rows or not base.parts.get("tasks"):
        return rows
    earlier = dataset.read(store, base.parts["tasks"], ["attempt"])["attempt"]
    names = pa.array([row["attempt"] for row in rows], pa.string())
    known = set(earlier.filter(pc.is_in(earlier, value_set=names)).to_pylist())
    return [row for row in rows if row["attempt"] not in known]


# -- parts ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """The manifest to come: its parts, the commits newly in it with their attempts, and what is garbled."""

    store: Store
    parts: dict[str, list[Part]]
    names: list[str] = field(default_factory=list)
    attempts: set[str] = field(default_factory=set)
    garbled: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    _written: list[Part] = field(default_factory=list)

    def drop(self, keys: list[str]) -> int:
        """Leave out the rows of these tasks; their attempts did happen and stay. The number of tasks left out."""
        import pyarrow as pa

        if keys:
            self.changed = True
            gone = pa.array(keys, pa.string())
            for table, parts in self.parts.items():
                if table not in schema.KEPT:
                    self.parts[table] = dataset.without(self.store, parts, gone, self._writer(table))
        return len(keys)

    def observe_again(self) -> None:
        """Compute the observables of all stored spectra in place of the earlier ones."""
        if not self.parts.get("spectra"):
            return
        self.changed = True
        self.parts["scalars"] = [part for part in self.parts.get("scalars", []) if not part.get("derived")]
        columns = self._observed()
        if columns["key"]:
            self._add("scalars", schema.table_from("scalars", columns, schema.fixed("scalars")), derived=True)

    def _observed(self) -> gather.Columns:
        import polars as pl

        spectra = pl.from_arrow(dataset.read(self.store, self.parts["spectra"]))
        scalars = pl.from_arrow(dataset.read(self.store, self.parts["scalars"]))
        assert isinstance(spectra, pl.DataFrame)
        assert isinstance(scalars, pl.DataFrame)
        own = scalars.join(spectra.select("key").unique(), on="key", how="semi").partition_by("key", as_dict=True)
        columns: gather.Columns = {name: [] for name in schema.TABLES["scalars"]}
        for (key,), rows in spectra.partition_by("key", as_dict=True).items():
            mine = own[(key,)].to_dict(as_series=False) if (key,) in own else {}
            found = gather.observed(str(key), mine, rows.to_dict(as_series=False))
            columns["key"] += [key] * len(found["name"])
            for name, values in found.items():
                columns[name] += values
        return columns

    def add_commits(self, names: list[str], costs: Costs) -> None:
        """Rows of the commits, in parts of at most CHUNK."""
        _sync_folders(self.store, names)
        for start in range(0, len(names), CHUNK):
            found = gather.Gathered(self.store.root, costs=costs).add_named(names[start : start + CHUNK])
            self.garbled |= found.garbled
            self.names += found.names
            self.attempts.update(found.tables["tasks"]["attempt"])
            for table, rows in found.arrow().items():
                self._add(table, rows)
            if found.derived["key"]:
                self._add("scalars", found.arrow_derived(), derived=True)

    def add_rows(self, table: str, rows: list[Row]) -> None:
        """Rows of what no commit says: attempts without one, and jobs."""
        if rows:
            self._add(table, gather.table_of(table, rows))

    def merge(self) -> None:
        """Put small parts together where there are many."""
        for table, parts in self.parts.items():
            self.parts[table] = dataset.merged(self.store, parts, self._writer(table))

    def axes(self, earlier: dict[str, Part], ledger: Ledger) -> dict[str, Part]:
        """The axes table of every sweep: written once a revision."""
        axes = {}
        for name in self.store.sweep_names():
            revision = ledger.revision_of(name) or self.store.revisions(name)[-1]
            axes[name] = earlier.get(name, {})
            if axes[name].get("revision") != revision:
                write = self._writer("axes", f"axes/{name}")
                axes[name] = {**write(axes_table(self.store, name, revision)), "revision": revision}
        return axes

    def discard_but(self, body: Manifest | None) -> None:
        """Remove the parts written for nothing."""
        named = {part["file"] for part in body.all_parts()} if body else set()
        dataset.discard(self.store, [part for part in self._written if part["file"] not in named])

    def _add(self, table: str, rows: "pa.Table", *, derived: bool = False) -> None:
        part = self._writer(table)(rows)
        self.parts.setdefault(table, []).append({**part, "derived": True} if derived else part)
        self.changed = True

    def _writer(self, table: str, subfolder: str | None = None) -> dataset.Write:
        def write(rows: "pa.Table") -> Part:
            self._written.append(dataset.write_part(self.store, table, rows, subfolder))
            return self._written[-1]

        return write


def _sync_folders(store: Store, names: Iterable[str]) -> None:
    """Others linked these commits: they survive a power cut before the dataset says that they are there."""
    for bucket in sorted({name[:2] for name in names}):
        with contextlib.suppress(FileNotFoundError):
            files.ops.sync_dir(taskdir.commit_path(store.root, bucket).parent)


# -- axes -------------------------------------------------------------------------------------------------------------


def axes_table(store: Store, name: str, revision: int | None = None) -> "pa.Table":
    """Key, workload, whether it is a target, and a typed column per axis (null where it does not reach), for all tasks of a sweep."""
    import pyarrow as pa

    from orchestrator.sweep import Sweep

    sweep = Sweep.from_body(store.manifest(name, revision))
    columns: dict[str, Any] = {
        "key": list(sweep.keys),
        "workload": [sweep.workload(i) for i in range(len(sweep))],
        "is_target": [sweep.is_target(i) for i in range(len(sweep))],
    }
    points = [sweep.axis_values(i) for i in range(len(sweep))]
    for axis in sweep.axes:
        values = [_scalar(point.get(axis.name)) for point in points]
        columns[axis_column(axis.name, columns)] = pa.array(
            values, type=_AXIS_TYPES.get(axis.type) and pa.type_for_alias(_AXIS_TYPES[axis.type])
        )
    return pa.table(columns)


_AXIS_TYPES = {"int": "int64", "float": "float64", "str": "string", "bool": "bool"}


def _scalar(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def axis_column(name: str, taken: Iterable[str]) -> str:
    """An axis is called by its short name, and `<name>_axis` where the table has a column of that name."""
    return f"{name}_axis" if name in taken else name
