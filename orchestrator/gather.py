"""Turns commits and ended attempts into the rows of the dataset's tables."""

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import schema
from orchestrator.attempts import Costs
from workers import taskdir
from workers.errors import Garbled
from workers.taskdir import Commit

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, list[Any]]

CLASSES = {"ok": "completed", "diverged": "diverged"}
# what a spectrum's task says beside its eigenvalues, and without which it has no observables
_NEEDED = ("noise_floor", "num_units", "num_outputs", "num_rows")


@dataclass(slots=True)
class Gathered:
    """Columns of many commits, table by table; `derived`: observables of their spectra. `garbled`: commit -> what is wrong.

    `costs`: what their attempts have cost, if that is wanted.
    """

    root: Path
    tables: dict[str, Columns] = field(default_factory=dict)
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    derived: Columns = field(default_factory=lambda: {name: [] for name in schema.TABLES["scalars"]})
    names: list[str] = field(default_factory=list)
    garbled: dict[str, str] = field(default_factory=dict)
    costs: Costs | None = None

    def __post_init__(self) -> None:
        for table in ("tasks", "attempts", "scalars"):
            self.tables[table] = {name: [] for name in schema.TABLES[table]}

    def add_named(self, names: Iterable[str]) -> "Gathered":
        """Read the commits of those names; one that is not there (yet) is passed over, one that cannot be trusted is noted."""
        commits = f"{self.root}/commits"
        for name in names:
            path = f"{commits}/{name[:2]}/{name}.json"
            try:
                with open(path, "rb") as file:
                    data = file.read()
                self.add(name, taskdir.decode_commit(data, Path(path)))
            except FileNotFoundError:
                continue
            except Garbled as error:
                self.garbled[name] = str(error)
        return self

    def add(self, name: str, commit: Commit) -> None:
        """The rows of one commit, all or (raising Garbled) none."""
        own = {table: taskdir.read_rows(self.root, commit, table) for table in taskdir.tables(commit)}
        _check_lengths(name, own)
        self.names.append(name)
        _append(self.tables["tasks"], _task_row(commit))
        _append(self.tables["attempts"], _attempt_row(commit) | (self.costs.of(commit) if self.costs is not None else {}))
        for table, columns in own.items():
            self._extend(commit, table, columns)
        if "spectra" in own:
            _extend(self.derived, commit.key, observed(commit.key, own.get("scalars", {}), own["spectra"]))

    def _extend(self, commit: Commit, table: str, columns: Mapping[str, Any]) -> None:
        name = schema.dataset_table(commit.workload, table)
        target = self.tables.get(name)
        if target is None:
            target = self.tables[name] = {"key": []}
            self.owners[name] = (commit.workload, table)
        _extend(target, commit.key, columns)

    def arrow(self) -> "dict[str, pa.Table]":
        """The tables that have rows, as Arrow tables of their schemas."""
        found = {}
        for name, columns in self.tables.items():
            if columns["key"]:
                found[name] = schema.table_from(name, columns, self._schema(name))
        return found

    def arrow_derived(self) -> "pa.Table":
        """The observables, in the schema of `scalars`."""
        return schema.table_from("scalars", self.derived, schema.fixed("scalars"))

    def _schema(self, name: str) -> "pa.Schema | None":
        return schema.fixed(name) if name in schema.TABLES else schema.declared(*self.owners[name])


def _append(columns: Columns, row: Mapping[str, Any]) -> None:
    for name, values in columns.items():
        values.append(row.get(name))


def _extend(target: Columns, key: str, columns: Mapping[str, Any]) -> None:
    """Append columns of one task; what either side lacks is null."""
    num_rows = len(next(iter(columns.values()), ()))
    before = len(target["key"])
    target["key"].extend([key] * num_rows)
    for name, values in columns.items():
        if name not in target:
            target[name] = [None] * before
        target[name].extend(values if isinstance(values, list) else values.tolist())
    if len(target) > len(columns) + 1:
        for name in target.keys() - columns.keys() - {"key"}:
            target[name].extend([None] * num_rows)


def _check_lengths(name: str, tables: Mapping[str, Mapping[str, Any]]) -> None:
    for table, columns in tables.items():
        if len({len(values) for values in columns.values()}) > 1:
            raise Garbled(f"commit {name} has columns of unequal length in table {table!r}; run `eigensweep scrub`")


def _task_row(commit: Commit) -> dict[str, Any]:
    return {
        "key": commit.key,
        "generation": commit.generation,
        "workload": commit.workload,
        "version": commit.version,
        "status": commit.status,
        "code": commit.code,
        "attempt": commit.attempt,
        "settings": _json(commit.settings),
        "inputs": _json(commit.inputs),
        "content": _json(commit.content),
        "files": _json({payload.name: payload.size for payload in commit.files}),
        "message": commit.message,
    }


def _attempt_row(commit: Commit) -> dict[str, Any]:
    return {
        "key": commit.key,
        "attempt": commit.attempt,
        "class": CLASSES.get(commit.status, commit.status),
        "code": commit.code,
        "host": commit.host,
        "device": commit.device,
        "started": int(commit.started * 1000),
        "seconds": commit.seconds,
        "peak_memory_mib": commit.peak_memory_mib,
        "message": commit.message,
    }


def table_of(table: str, rows: list[dict[str, Any]]) -> "pa.Table":
    """Rows of one of our own tables as an Arrow table."""
    columns = {name: [row.get(name) for row in rows] for name in schema.TABLES[table]}
    return schema.table_from(table, columns, schema.fixed(table))


_json = json.JSONEncoder(separators=(",", ":")).encode


# -- observables ------------------------------------------------------------------------------------------------------


def observed(key: str, scalars: Mapping[str, Any], spectra: Mapping[str, Any]) -> Columns:
    """All observables of each step's spectrum; what the task itself has measured under such a name stays as it is."""
    from workers import spectrum_data

    columns: Columns = {"step": [], "name": [], "value": []}
    for step in sorted(set(_listed(spectra["step"]))) if "step" in spectra else [0]:
        spectrum = _at_step(spectra, step)
        own = _at_step(scalars, step) if step in _listed(scalars.get("step", [])) else dict(scalars)
        if not set(_NEEDED) <= set(own.get("name", ())):
            continue
        try:
            values = spectrum_data.observe(spectrum_data.from_rows(own, spectrum))
        except Exception as error:  # one observable must not keep every result out of the dataset
            warnings.warn(f"no observables of the spectrum of {key}: {type(error).__name__}: {error}", stacklevel=2)
            continue
        new = {name: value for name, value in values.items() if name not in own["name"]}
        columns["step"] += [step] * len(new)
        columns["name"] += list(new)
        columns["value"] += [float(value) for value in new.values()]
    return columns


def _at_step(columns: Mapping[str, Any], step: int) -> Columns:
    if "step" not in columns:
        return dict(columns)
    chosen = [i for i, one in enumerate(_listed(columns["step"])) if one == step]
    return {name: [values[i] for i in chosen] for name, values in columns.items()}


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else list(values.tolist())


def observables_fingerprint() -> str:
    """A digest of the source of all observables: where it changes, they are computed again from the stored spectra."""
    import hashlib

    from workers import spectrum_data

    folder = Path(spectrum_data.__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in [folder / "spectrum_data.py", *sorted((folder / "observables").glob("*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
