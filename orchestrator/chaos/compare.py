"""Whether two runs of a sweep have the same results: tables without what depends on when, where and by which attempt they were made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.chaos.scene import COMMITTED, Scene
from orchestrator.store import Store
from orchestrator.watch import Watch

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

EXCLUDED = ("attempt", "code", "device", "generation", "host", "peak_memory_mib", "seconds", "started")
_ORDER = ("key", "step", "index", "name")


@dataclass(frozen=True, slots=True)
class Compared:
    """One table of one sweep: its rows, and how the other differs; empty: not at all."""

    sweep: str
    table: str
    rows: int
    difference: str


def compare(name: str, calm: Path, chaos: Path) -> list[Compared]:
    """tasks, scalars and, where there are any, spectra of a sweep in two stores."""
    from orchestrator import results

    one, other = (results.load(name, root, mixed_code=True) for root in (calm, chaos))
    found = [_compare(name, table, _frame(one, table), _frame(other, table)) for table in ("tasks", "scalars", "spectra")]
    return [table for table in found if table.rows or table.difference]


def _frame(results: "Results", table: str) -> "pl.DataFrame":
    frame: pl.DataFrame = results.table(table).collect()
    frame = frame.drop([column for column in EXCLUDED if column in frame.columns])
    return frame.sort([column for column in _ORDER if column in frame.columns], maintain_order=True)


def _compare(sweep: str, table: str, one: "pl.DataFrame", other: "pl.DataFrame") -> Compared:
    return Compared(sweep, table, one.height, _difference(one, other))


def _difference(one: "pl.DataFrame", other: "pl.DataFrame") -> str:
    """The first difference in words."""
    if one.columns != other.columns:
        return f"columns {', '.join(sorted(set(one.columns) ^ set(other.columns))) or 'in another order'}"
    if one.height != other.height:
        return f"{one.height} rows against {other.height}"
    if one.equals(other):
        return ""
    for name in one.columns:
        # NaN equals NaN, and null equals null
        differ = one[name].ne_missing(other[name]).arg_true()
        if len(differ):
            row = differ[0]
            return f"{len(differ)} values of {name}, first {one[name][row]!r} against {other[name][row]!r} of task {one['key'][row]}"
    return "types of columns"


def wrong_commits(store: Store, names: Sequence[str], scene: Scene) -> list[str]:
    """What speaks against every task having been committed once: missing, foreign and doubled commits, in words."""
    watch = Watch.of(store)
    expected = {watch.ledger.name_of(key) for name in names for key in watch.sweep(name).keys}
    found = Counter(path.stem for path in store.root.glob("commits/*/*.json"))
    twice = Counter(one.key for one in scene.attempts.values() if one.outcome in COMMITTED)
    problems = [f"not committed: {key}" for key in sorted(expected - found.keys())]
    problems += [f"committed, but no task of the sweep: {key}" for key in sorted(found.keys() - expected)]
    problems += [f"committed by {number} attempts, as they say: {key}" for key, number in sorted(twice.items()) if number > 1]
    return problems
