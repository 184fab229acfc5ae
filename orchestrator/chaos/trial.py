"""What a trial of a cluster will do, decided from the user's words before anything is written."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.chaos import faults
from orchestrator.chaos.faults import Fault, planned, wanted
from orchestrator.compose import compose
from orchestrator.store import Store, find_root
from orchestrator.sweep import Sweep, expand
from workers.errors import ConfigError

DIGITS = ["sweep=digits", "model.width=8,16", "train_size=200", "seed=0,1", "num_steps=200"]
NUM_DIGITS = 12
_PROGRESS_EVERY = 2  # of so many no-op tasks one writes checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What the user asked for. `preempt` empty: 2 % where there is a scheduler that can."""

    kill: str = "5%"
    oom: str = "2%"
    preempt: str = ""
    power_cuts: int = 0
    driver_kill_seconds: float = 30.0
    tasks: int = 500
    task_seconds: str = "1-8"
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Trial:
    """`sweeps`: name -> the words that submit it; `keys`: name -> its tasks. Where `is_calm_given`, the store `calm` is only read."""

    folder: Path
    calm: Path
    chaos: Path
    is_calm_given: bool
    sweeps: dict[str, list[str]]
    keys: dict[str, list[str]]
    launcher: str
    task_seconds: float
    most_memory_gib: float
    faults: list[Fault]
    seed: int
    driver_kill_seconds: float
    config_dirs: list[Path]

    @property
    def num_tasks(self) -> int:
        """Of all sweeps together."""
        return sum(map(len, self.keys.values()))


def plan(
    name: str, settings: Sequence[str], root: Path | None, folder: Path | None, demands: Demands, config_dirs: Sequence[Path] = ()
) -> Trial:
    """Decide everything. `name`: a finished sweep of the store `root`, whose results are the calm ones."""
    where = _folder(root, folder)
    sweeps = _of_store(name, settings, root) if name else _own(settings, demands)
    expanded = {one: expand(compose([*words, f"name={one}"], config_dirs)) for one, words in sweeps.items()}
    keys = {one: sweep.keys for one, sweep in expanded.items()}
    launcher = str(next(iter(expanded.values())).launcher["name"])
    return Trial(
        folder=where,
        calm=find_root(root) if name else where / "calm",
        chaos=_new(where, "chaos"),
        is_calm_given=bool(name),
        sweeps=sweeps,
        keys=keys,
        launcher=launcher,
        task_seconds=sum(sweep.estimated_seconds(index) or 0.0 for sweep, index in _tasks(expanded.values())),
        most_memory_gib=max(sweep.resources(index).memory_gib for sweep, index in _tasks(expanded.values())),
        faults=planned(_counts(demands, sum(map(len, keys.values())), launcher), demands.seed),
        seed=demands.seed,
        driver_kill_seconds=demands.driver_kill_seconds,
        config_dirs=[path.absolute() for path in config_dirs],
    )


def _tasks(sweeps: Iterable[Sweep]) -> Iterator[tuple[Sweep, int]]:
    return ((sweep, index) for sweep in sweeps for index in range(len(sweep)))


def _own(settings: Sequence[str], demands: Demands) -> dict[str, list[str]]:
    """The sweep that the settings name, else ours: no-op tasks, and a small training with kernels and spectra."""
    given = dict(one.split("=", 1) for one in settings if "=" in one)
    if "sweep" in given or "workload" in given:
        rest = [one for one in settings if not one.startswith("name=")]
        return {given.get("name", given.get("sweep", given.get("workload", ""))): rest}
    low, high = _range(demands.task_seconds)
    number = demands.tasks - NUM_DIGITS
    if number < 1:
        raise ConfigError(
            f"--tasks takes a number above {NUM_DIGITS}, of which {NUM_DIGITS} train and compute spectra, got {demands.tasks}"
        )
    seconds = [round(low + (high - low) * index / number, 3) for index in range(number)]
    progress = [str(index % _PROGRESS_EVERY == 0).lower() for index in range(number)]
    noop = ["workload=noop", f"index=range(0,{number})", f"seconds={_listed(seconds)}", f"progress={_listed(progress)}"]
    return {
        f"noop-{number}-of-{low:g}-{high:g}s": [*noop, "sweep.zip=[[index,seconds,progress]]", *settings],
        "digits": [*DIGITS, *settings],
    }


def _of_store(name: str, settings: Sequence[str], root: Path | None) -> dict[str, list[str]]:
    """A finished sweep's own words, with these settings in place of the same ones."""
    from orchestrator.status import status
    from orchestrator.submit import grown_command
    from orchestrator.watch import Watch

    store = Store.open(root)
    found = status(Watch.of(store), name)
    if found.counts.get("completed", 0) < found.total:
        raise ConfigError(
            f"{name} has no calm run yet, {found.counts.get('completed', 0)} of {found.total} tasks are done; next: {found.next}"
        )
    return {name: [word for word in grown_command(name, settings, store) if word != f"name={name}"]}


def _folder(root: Path | None, folder: Path | None) -> Path:
    """Where the two stores go: as given, else beside the user's; never in it."""
    store = None if folder is not None else find_root(root)
    found = (folder or store.with_name(f"{store.name}-chaos")).expanduser().absolute()  # type: ignore[union-attr]
    for above in (found, *found.parents):
        if (above / "store.json").exists():
            raise ConfigError(f"{found} is in the store {above}; chaos keeps out of stores: give another --folder")
    return found


def _new(folder: Path, name: str) -> Path:
    """A folder that is not there yet: `chaos`, `chaos-2` ..."""
    number = 1
    while (found := folder / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return found


def _counts(demands: Demands, num_tasks: int, launcher: str) -> dict[str, int]:
    """Running tasks to hit by each kind; power cuts are counted themselves."""
    has_scheduler = launcher == "slurm"
    if not has_scheduler and demands.preempt and wanted(demands.preempt, num_tasks, "--preempt"):
        raise ConfigError(f"--preempt needs a scheduler that takes jobs off their nodes, and launcher={launcher} has none: leave it out")
    if not has_scheduler and demands.power_cuts:
        raise ConfigError(f"--power-cuts needs launcher=slurm on the development cluster (slurm/dev/cluster), got launcher={launcher}")
    if demands.driver_kill_seconds < 0 or demands.power_cuts < 0:
        raise ConfigError("--driver-kill-seconds and --power-cuts take numbers from 0 (none)")
    return {
        faults.KILL: wanted(demands.kill, num_tasks, "--kill"),
        faults.OOM: wanted(demands.oom, num_tasks, "--oom"),
        faults.PREEMPT: wanted(demands.preempt or "2%", num_tasks, "--preempt") if has_scheduler else 0,
        faults.POWER: demands.power_cuts,
    }


def _range(text: str) -> tuple[float, float]:
    with contextlib.suppress(ValueError):
        low, _, high = text.partition("-")
        if 0 <= float(low) <= float(high or low):
            return float(low), float(high or low)
    raise ConfigError(f"--task-seconds takes a range such as 1-8, got {text!r}")


def _listed(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)
