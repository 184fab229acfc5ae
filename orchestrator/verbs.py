"""The verbs of the command line as functions; both public faces, `cli` and `eigensweep`, are thin over these."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import files
from workers.errors import ConfigError, Garbled

if TYPE_CHECKING:
    from orchestrator.chaos.run import Moment, Report
    from orchestrator.chaos.trial import Trial
    from orchestrator.cost_table import Cost
    from orchestrator.fit import Fit
    from orchestrator.plan import Plan
    from orchestrator.results import Results
    from orchestrator.status import Status
    from orchestrator.store import Store
    from orchestrator.study import Page
    from orchestrator.tick import Done
    from workers.taskdir import Commit

Root = str | Path | None
Progress = Callable[["Status"], None]
SETTLE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Studied:
    """A study's sweeps by their names in the store, and its page where all of them are over."""

    sweeps: "Mapping[str, Status]"
    page: "Page | None"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Fits; `kept`: the sweep's own table of them, or `why_not`; `files`: what was written on demand."""

    fits: "Sequence[Fit]"
    kept: Path | None = None
    why_not: str = ""
    files: Sequence[Path] = ()


def init(root: str | Path) -> "Store":
    """Make a store; StoreError where the file system cannot hold one."""
    from orchestrator.store import Store

    return Store.init(root)


def plan(overrides: Sequence[str], root: Root = None, config_dirs: Sequence[Path] = (), *, every_script: bool = False) -> "Plan":
    """Done, to run, stale, jobs and cost of a submission with these settings; writes nothing. `every_script`: not one a shape."""
    from orchestrator import plan as planning

    return planning.plan(overrides, _store(root), config_dirs, every_script=every_script)


def submit(overrides: Sequence[str], root: Root = None, config_dirs: Sequence[Path] = (), **options: Any) -> "Status":
    """Submit a sweep; options: detach, replace, retry, live_code, progress (see `orchestrator.submit.submit`)."""
    from orchestrator import submit as submitting

    return submitting.submit(overrides, _own_store(root, "submit"), config_dirs, **options)


def plan_add(
    name: str, overrides: Sequence[str], root: Root = None, config_dirs: Sequence[Path] = (), *, every_script: bool = False
) -> "Plan":
    """What `add` would do."""
    from orchestrator import plan as planning
    from orchestrator import submit as submitting

    store = _store(root)
    command = submitting.grown_command(name, overrides, store)
    return planning.plan(command, store, config_dirs, grown=True, every_script=every_script)


def add(name: str, overrides: Sequence[str], root: Root = None, config_dirs: Sequence[Path] = (), **options: Any) -> "Status":
    """Grow a sweep: only the new points run."""
    from orchestrator import submit as submitting

    return submitting.add(name, overrides, _own_store(root, "add to a sweep"), config_dirs, **options)


def status(name: str, root: Root = None, *, reconcile: bool = True) -> "Status":
    """States by axis, causes of failure, what is left, ETA band. `reconcile`: tick first, in a store of one's own."""
    from orchestrator import jobs
    from orchestrator import status as showing
    from orchestrator.tick import open_batches
    from orchestrator.tick import tick as one_tick
    from orchestrator.watch import Watch

    store = _store(root)
    watch = Watch.of(store)
    watch.sweep(name)
    if reconcile and watch.ledger.batches and store.is_mine:
        one_tick(watch, [name])
        jobs.place_in_queues(watch, open_batches(watch, name))
    return showing.status(watch, name)


def sweeps(root: Root = None) -> list[str]:
    """Names of the sweeps in a store."""
    return _store(root).sweep_names()


def logs(name: str, key: str, root: Root = None, *, follow: bool = False) -> Iterator[str]:
    """Lines of a task's attempts; `key`: its first letters."""
    from orchestrator import logs as reading

    return reading.logs(name, key, _store(root), follow)


def cancel(name: str, where: str | None = None, root: Root = None) -> list[str]:
    """Take tasks out of a sweep's work; the tasks in words."""
    from orchestrator import submit as submitting

    store = _own_store(root, "cancel tasks")
    return _in_words(store, name, submitting.cancel(name, store, where))


def resume(name: str, where: str | None = None, root: Root = None, **options: Any) -> "Status":
    """Send again what failed or was cancelled; options: detach, dry_run, progress."""
    from orchestrator import submit as submitting

    return submitting.resume(name, _own_store(root, "resume a sweep"), where, **options)


def resumable(name: str, where: str | None = None, root: Root = None) -> list[str]:
    """The tasks that `resume` would send, in words."""
    from orchestrator import where as selecting
    from orchestrator.watch import Watch

    store = _store(root)
    watch = Watch.of(store)
    sweep, states = watch.sweep(name), watch.states(name)
    open_states = ("failed", "cancelled", "blocked", "pending")
    return _in_words(store, name, [i for i in selecting.select(sweep, states, where) if states.states[i] in open_states])


def retract(name: str, where: str, reason: str = "", root: Root = None, *, dry_run: bool = False) -> list[str]:
    """Take back committed results and all that was computed from them; the tasks in words."""
    from orchestrator import submit as submitting

    if not where:
        raise ConfigError('retract needs a selection, such as where="key=\'ab12...\'" or where="width=64"; where="true" takes all')
    store = _store(root) if dry_run else _own_store(root, "retract results")
    found = submitting.retract(name, where, reason, store, dry_run=dry_run)
    mine = _in_words(store, name, [index for sweep, index in found if sweep == name])
    others = Counter(sweep for sweep, _ in found if sweep != name)
    also = [f"also in {sweep}: {number} tasks" for sweep, number in sorted(others.items())]
    return mine + also + [f"kept: {other} has chosen settings by results of {sweep}" for other, sweep in _chosen_by(store, found)]


def _chosen_by(store: "Store", found: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    """Sweeps whose settings were chosen by the results of others, among which these are."""
    from orchestrator.watch import Watch

    watch, scans = Watch.of(store), {sweep for sweep, _ in found}
    pairs = {(other, record["sweep"]) for other in watch.ledger.sweeps for record in watch.sweep(other).chosen}
    return sorted((other, sweep) for other, sweep in pairs if sweep in scans)


def run(overrides: Sequence[str], root: Root = None, config_dirs: Sequence[Path] = (), report: Any = lambda message: None) -> "Commit":
    """One task in this process."""
    from orchestrator import run as running

    return running.run(overrides, _own_store(root, "run a task"), config_dirs, report)


def run_key(name: str, key: str, root: Root = None, report: Any = lambda message: None) -> "Commit":
    """One task of a sweep in this process."""
    from orchestrator import run as running

    return running.run_key(name, key, _own_store(root, "run a task"), report)


def tick(
    root: Root = None, every: float | None = None, report: Callable[["Done"], None] = lambda done: None, *, settle: bool = False
) -> "Done":
    """Reconcile all sweeps once, or every so many seconds until nothing is left to do; `settle`: until no job's end is in doubt."""
    from orchestrator import tick as ticking
    from orchestrator.watch import Watch

    watch = Watch.of(_own_store(root, "tick"))
    if settle:
        return ticking.settle(watch, SETTLE_SECONDS, report)
    while True:
        done = ticking.tick(watch)
        report(done)
        if every is None or not (set(watch.ledger.sweeps) - watch.ledger.settled - set(watch.ledger.paused)):
            return done
        time.sleep(every)


def gc(root: Root = None, *, dry_run: bool = False) -> Any:
    """Delete what nothing refers to any more."""
    from orchestrator import gc as collecting

    return collecting.gc(_store(root) if dry_run else _own_store(root, "delete files"), dry_run=dry_run)


def scrub(root: Root = None, progress: Any = None) -> Any:
    """Verify every file of the store against its checksum."""
    from orchestrator import scrub as checking

    return checking.scrub(_store(root), progress=progress)


def plan_chaos(
    name: str, overrides: Sequence[str] = (), root: Root = None, folder: Root = None, config_dirs: Sequence[Path] = (), **demands: Any
) -> "Trial":
    """What a trial would do; demands: see `orchestrator.chaos.trial.Demands`. `name`: a finished sweep, whose results are the calm ones."""
    from orchestrator.chaos.trial import Demands, plan

    return plan(name, overrides, Path(root) if root else None, Path(folder) if folder else None, Demands(**demands), config_dirs)


def chaos(trial: "Trial", progress: Callable[["Moment"], None] = lambda moment: None) -> "Report":
    """Run a sweep calmly and under faults, each in a store of its own, and compare."""
    from orchestrator.chaos.run import run

    return run(trial, progress)


def load(name: str, root: Root = None, *, mixed_code: bool = False) -> "Results":
    """The results of a sweep, also while it runs."""
    from orchestrator import results

    return results.load(name, _store(root).root, mixed_code=mixed_code)


def fit(
    name: str, overrides: Sequence[str] = (), root: Root = None, out: str | Path | None = None, *, mixed_code: bool = False
) -> "Fitted":
    """Fit a law to a sweep's scalars, `law=power x=width y=test_loss`; the fits are kept in a store of one's own, and written to `out`."""
    from orchestrator import fit_options, points

    results = load(name, root, mixed_code=mixed_code)
    fits = points.fit_sweep(results, **fit_options.of_words(overrides))
    written = _write_fits(fits, out, f"Fits of sweep {name}")
    if not _store(root).is_mine:
        return Fitted(fits=fits, why_not="this store is read-only for you; --out DIR writes them elsewhere", files=written)
    return Fitted(fits=fits, kept=results.keep(fits), files=written)


def fit_file(path: str | Path, overrides: Sequence[str] = (), out: str | Path | None = None, *, mixed_code: bool = False) -> "Fitted":
    """Fit a law to a .parquet or .csv file: `law=chinchilla n=num_params d=tokens y=loss`; needs no store."""
    from orchestrator import fit_options
    from orchestrator.fit import fit as fit_table

    asked = fit_options.parse(fit_options.of_words(overrides))
    options: dict[str, Any] = {**asked.columns, **asked.rest}
    one = fit_table(path, asked.law, y=asked.y, mixed_code=mixed_code, **options)
    return Fitted(fits=[one], files=_write_fits([one], out, f"Fit of {Path(path).name}"))


def _write_fits(fits: "Sequence[Fit]", out: str | Path | None, title: str) -> list[Path]:
    """fits.parquet, fits.csv and the report with its figures in the folder `out`."""
    if out is None:
        return []
    from orchestrator import fits_table
    from orchestrator.fit_report import fit_report

    folder = Path(out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return [fits_table.write(fits, folder / "fits.parquet"), folder / "fits.csv", fit_report(fits, folder, title=title)]


def cost(name: str, root: Root = None, by: Sequence[str] = ()) -> "Cost":
    """What the tasks of a sweep have cost by axis, workload and cause, or by what `by` names; and what its budget leaves."""
    from dataclasses import replace

    from orchestrator import budget, cost_table
    from orchestrator.watch import Watch

    store = _store(root)
    found = cost_table.table(load(name, store.root, mixed_code=True), by)
    books = budget.account(Watch.of(store), name)
    return replace(found, limits=books.limits, spent=books.spent, at_work=books.at_work)


def report(name: str, root: Root = None, out: str | Path | None = None, *, mixed_code: bool = False, **options: Any) -> Path:
    """One self-contained HTML file with fits and figures, and the figures as PNG, PDF and CSV beside it.

    Options: x, y, title (see `orchestrator.report.report`). It is not drawn again where it already shows what there is.
    """
    from orchestrator import code
    from orchestrator import report as reporting
    from orchestrator import status as showing
    from orchestrator.watch import Watch

    store = _store(root) if out else _own_store(root, "put a report (--out DIR puts it elsewhere)")
    results = load(name, store.root, mixed_code=mixed_code)
    folder = Path(out) if out else store.root / "sweeps" / name / "report"
    shown = showing.status(Watch.of(store), name)
    made_from = [
        sorted(store.done(name)),
        shown.revision,
        shown.counts,
        shown.causes,
        code.identify(store).snapshot,
        sorted(options.items()),
    ]
    mark = folder / "made_from.json"
    with contextlib.suppress(FileNotFoundError, Garbled):
        if files.read(mark) == files.plain(made_from) and (folder / "report.html").exists():
            return folder / "report.html"
    path = reporting.report(results, folder, status=shown, **options)
    with files.replacing(mark) as temporary:
        temporary.write_bytes(files.encode(made_from))
    return path


def plan_study(
    name: str, settings: Sequence[str] = (), root: Root = None, config_dirs: Sequence[Path] = (), *, every_script: bool = False
) -> "Mapping[str, Plan]":
    """What `study` would submit, by sweep file; one that reads another's results can be planned when these are there."""
    found = _submissions(name, settings, root, config_dirs)
    return {sweep: plan(words, root, config_dirs, every_script=every_script) for sweep, words in found.items()}


def study(
    name: str,
    settings: Sequence[str] = (),
    root: Root = None,
    config_dirs: Sequence[Path] = (),
    out: str | Path | None = None,
    *,
    mixed_code: bool = False,
    **options: Any,
) -> Studied:
    """Submit a study's sweeps one after the other, and write its page where all are over; options as of `submit`.

    All are planned before the first is sent. What is done is not done again, so the same call later goes on, or only writes the page.
    """
    from orchestrator import plan as planning

    store, submissions = _own_store(root, "submit"), _submissions(name, settings, root, config_dirs).values()
    for words in submissions:
        planning.prepare(words, store, config_dirs, submitting=True)
    found = {words[1].removeprefix("name="): submit(words, root, config_dirs, **options) for words in submissions}
    over = all(status.is_settled for status in found.values())
    return Studied(sweeps=found, page=study_page(name, settings, root, out, mixed_code=mixed_code) if over else None)


def _submissions(name: str, settings: Sequence[str], root: Root, config_dirs: Sequence[Path]) -> dict[str, list[str]]:
    """The words of each of a study's sweeps."""
    from orchestrator import study as studies
    from orchestrator.chosen import choices
    from orchestrator.compose import compose
    from orchestrator.sweep import expand

    def workloads_of(words: list[str]) -> set[str]:
        sweep = expand(compose(words, config_dirs, choices=choices(_store(root))))
        return {block.workload for block in sweep.blocks}

    return studies.fitting(studies.load(name).submissions(settings), workloads_of)


def study_page(
    name: str, settings: Sequence[str] = (), root: Root = None, out: str | Path | None = None, *, mixed_code: bool = False
) -> "Page":
    """The page of a study from what its sweeps have found so far."""
    from orchestrator import study as studies

    one, store = studies.load(name), _store(root) if out else _own_store(root, "put a page (--out DIR puts it elsewhere)")
    named = {sweep: words[1].removeprefix("name=") for sweep, words in one.submissions(settings).items()}
    there = set(store.sweep_names())
    results = {sweep: load(own, store.root, mixed_code=mixed_code) for sweep, own in named.items() if own in there}
    folder = Path(out) if out else store.root / "studies" / studies.sweep_name(name, studies.size_of(settings))
    return studies.page_of(one, results, folder)


def _store(root: Root) -> "Store":
    from orchestrator.store import Store

    return Store.open(root)


def _own_store(root: Root, what: str) -> "Store":
    """The store, for a verb that writes: StoreError where it is another user's."""
    return _store(root).require_mine(what)


def _in_words(store: "Store", name: str, indices: list[int]) -> list[str]:
    from orchestrator.submit import keys_in_words
    from orchestrator.watch import Watch

    return keys_in_words(Watch.of(store).sweep(name), indices)
