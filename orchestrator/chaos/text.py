"""What `eigensweep chaos` prints: its plan, its progress and its report."""

import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from orchestrator.chaos.faults import POWER, Fault
from orchestrator.chaos.run import Moment, Report
from orchestrator.chaos.trial import Trial
from orchestrator.show import duration

_SECONDS_BETWEEN_LINES = 10.0


def plan(trial: Trial) -> str:
    """What would be done, with the commands."""
    lines = [
        f"{trial.num_tasks} tasks, {duration(trial.task_seconds)} of task time, twice by launcher={trial.launcher}; nothing has been done"
    ]
    for name, words in trial.sweeps.items():
        shown = shlex.join([*words, f"name={name}"])
        lines.append(f"  {len(trial.keys[name])} tasks: eigensweep submit {shown if len(shown) < 400 else shown[:400] + ' ...'}")
    lines += [f"calm run    {f'taken from {trial.calm}' if trial.is_calm_given else trial.calm}", f"chaos run   {trial.chaos}", ""]
    lines += [f"  {fault.kind:<12} {_aim(fault)}" for fault in trial.faults]
    lines += [f"  {'driver kill':<12} every {trial.driver_kill_seconds:g} s"] if trial.driver_kill_seconds else []
    return "\n".join([*lines, f"seed {trial.seed}"]) + "\n"


def report(one: Report) -> str:
    """Faults and what they cost, the comparison, and the verdict."""
    header = ["fault", "made", "running tasks struck", "ended by it", "wanted", "task-seconds lost"]
    rows = [
        [
            fault.kind,
            f"{fault.strikes}",
            f"{fault.struck}",
            f"{fault.hits}" if fault.wanted else "",
            _wanted(fault),
            f"{one.lost.get(fault.kind, 0.0):,.0f}",
        ]
        for fault in one.faults
    ]
    others = [[kind, "", "", "", "", f"{seconds:,.0f}"] for kind, seconds in one.lost.items() if kind not in {f.kind for f in one.faults}]
    lines = [f"{one.tasks} tasks by launcher={one.launcher}, seed {one.seed}, in {one.folder}"]
    lines += [f"calm run {duration(one.calm_seconds)}, chaos run {duration(one.chaos_seconds)}, {one.drivers} drivers", ""]
    lines += [*_table(header, rows + others), ""]
    lines += [f"waste: {sum(one.lost.values()):,.0f} task-seconds lost for {one.useful_seconds:,.0f} useful ones, {100 * one.waste:.1f} %"]
    lines += ["(what checkpoints saved of the lost ones is not deducted; a killed driver ends no task)"]
    lines += [f"attempts: {', '.join(f'{number} {end}' for end, number in one.ends.items())}", ""]
    lines += _table(
        ["sweep", "table", "rows", "against the calm run"], [[t.sweep, t.table, f"{t.rows:,}", t.difference or "equal"] for t in one.tables]
    )
    lines += [f"not compared: {', '.join(one.excluded)}", ""]
    lines += [f"  {problem}" for problem in one.wrong_commits[:20]]
    lines += [f"  ... and {len(one.wrong_commits) - 20} more"] if len(one.wrong_commits) > 20 else []
    lines += ["good: every task is committed once, and the results are those of the calm run" if one.is_good else "WRONG: see above"]
    following = f"rm -r {shlex.quote(one.folder)}" if one.is_good else f"eigensweep status --root {shlex.quote(one.chaos)}"
    return "\n".join([*lines, f"next: {following}"]) + "\n"


class Progress:
    """A bar on a terminal, else a line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._last = quiet, float("-inf")
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, now: Moment) -> None:
        """Show the state of this moment."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._draw(now)
        elif time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(f"{now.phase}: {now.done}/{now.total} tasks, {now.running} running{_counts(now.faults)}", file=sys.stderr, flush=True)

    def _draw(self, now: Moment) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns: list[Any] = [
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[more]}"),
            ]
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        for task in self._bar.tasks:
            if task.description == now.phase:
                self._bar.update(task.id, completed=now.done, more=f"{now.running} running{_counts(now.faults)}")
                return
        self._bar.add_task(now.phase, total=now.total, completed=now.done, more="")


def _counts(faults: Sequence[Fault]) -> str:
    return "".join(f", {fault.kind} {fault.strikes}{f' of {fault.wanted}' if fault.wanted else ''}" for fault in faults)


def _aim(fault: Fault) -> str:
    return f"{fault.wanted} times" if fault.kind == POWER else f"until {fault.wanted} running tasks are hit"


def _wanted(fault: Fault) -> str:
    return "" if not fault.wanted else f"{fault.wanted} cuts" if fault.kind == POWER else f"{fault.wanted}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]
