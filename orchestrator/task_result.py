"""The result of one task: its rows and files, and the network, spectrum or workload that they stand for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import schema
from workers import plugins, taskdir
from workers.errors import ConfigError, UnknownName, nearest
from workers.taskdir import Commit

if TYPE_CHECKING:
    import polars as pl

    from workers.spectrum_data import SpectrumData


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of one task: its settings, rows and files, and the objects that they stand for."""

    root: Path
    commit: Commit

    @property
    def key(self) -> str:
        """The task's name."""
        return self.commit.key

    @property
    def settings(self) -> dict[str, Any]:
        """All its settings, nested."""
        return self.commit.settings

    @property
    def file_names(self) -> list[str]:
        """Names of the files that it saved."""
        return [payload.name for payload in self.commit.files]

    def rows(self, table: str = "scalars") -> "pl.DataFrame":
        """The rows that it yielded to a table; UnknownName where it has none."""
        import polars as pl

        return pl.DataFrame(dict(taskdir.read_rows(self.root, self.commit, schema.known_table(table, taskdir.tables(self.commit)))))

    def file(self, name: str) -> Path:
        """Path of a file that it saved; UnknownName with the names there are."""
        if name not in self.file_names:
            raise UnknownName(
                f"task {self.key} saved no file {name!r}{nearest(name, self.file_names)} It saved {', '.join(self.file_names) or 'none'}"
            )
        return taskdir.payload_path(self.root, self.commit, name)

    def input(self, name: str) -> "TaskResult":
        """The result that it read as its input `name`."""
        if name not in self.commit.inputs:
            known = sorted(self.commit.inputs)
            raise UnknownName(f"task {self.key} has no input {name!r}{nearest(name, known)} It has {', '.join(known) or 'none'}")
        return TaskResult(self.root, taskdir.read_commit(self.root, self.commit.inputs[name]))

    def workload(self) -> Any:
        """The workload with this task's settings."""
        return plugins.load("workloads", self.commit.workload).from_plain(self.settings)

    def model(self, step: int | str = "final") -> Any:
        """The network at a step of its training (`init`, `final` or a number), as a torch module on the CPU.

        Of a task that trains nothing itself, the network that its inputs trained.
        """
        trained = self._trained()
        if trained is None:
            raise ConfigError(f"task {self.key} of workload {self.commit.workload!r} trained no network, nor did its inputs")
        return trained.workload().load_snapshot(trained.file(trained._snapshot(step)))

    def _trained(self) -> "TaskResult | None":
        if hasattr(plugins.load("workloads", self.commit.workload), "load_snapshot"):
            return self
        found = (self.input(name)._trained() for name in sorted(self.commit.inputs))
        return next((one for one in found if one is not None), None)

    def _snapshot(self, step: int | str) -> str:
        """File of the snapshot at a step; UnknownName with the steps there are."""
        prefix, suffix = "snapshot-", ".safetensors"
        names = [name for name in self.file_names if name.startswith(prefix) and name.endswith(suffix)]
        steps = sorted(int(name[len(prefix) : -len(suffix)]) for name in names)
        chosen = {"init": steps[:1], "final": steps[-1:]}.get(str(step), [s for s in steps if str(s) == str(step)])
        if not chosen:
            raise UnknownName(
                f"task {self.key} kept no network of step {step!r}; it kept {', '.join(map(str, steps)) or 'none'} (the first is `init`, "
                "the last is `final`); num_snapshots=... keeps more"
            )
        return f"{prefix}{chosen[0]}{suffix}"

    def spectrum(self) -> "SpectrumData":
        """Its eigenvalues, weights and noise floor, as the observables take them."""
        from workers import spectrum_data

        if "spectra" not in taskdir.tables(self.commit):
            raise ConfigError(f"task {self.key} of workload {self.commit.workload!r} has no spectrum; choose one with workload='spectrum'")
        scalars, spectra = (taskdir.read_rows(self.root, self.commit, table) for table in ("scalars", "spectra"))
        return spectrum_data.from_rows(scalars, spectra)

    def __repr__(self) -> str:
        return f"<TaskResult {self.key} of {self.commit.workload}, {self.commit.status}: {json.dumps(self.settings)[:120]}>"
