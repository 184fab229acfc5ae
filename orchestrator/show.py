"""What the command line prints: plans, states as heat strips, progress, and any other result as plain lines."""

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from orchestrator.fit import Fit
    from orchestrator.plan import Plan
    from orchestrator.status import Status
    from orchestrator.tick import Done
    from orchestrator.verbs import Fitted
    from workers.taskdir import Commit

Counts = Mapping[str, int]

# state: (sign, sign where the terminal has no Unicode, ANSI colour); told apart without colour too
_SIGNS = {
    "completed": ("█", "#", "32"),
    "running": ("▓", ">", "36"),
    "queued": ("▒", "=", "34"),
    "pending": ("·", ".", "90"),
    "failed": ("x", "x", "31"),
    "blocked": ("!", "!", "33"),
    "cancelled": ("-", "-", "90"),
}
_WORST_FIRST = ("failed", "blocked", "cancelled", "pending", "queued", "running", "completed")
_UNUSUAL = ("running", "queued", "failed", "blocked", "cancelled")
_STRIP_CELLS = 24
_MOST_ROWS = 12
_SECONDS_BETWEEN_LINES = 5.0


def status(now: "Status", *, color: bool | None = None) -> str:
    """A sweep's states by axis, causes of failure, what is left, who ticks, and the next command."""
    paint = _Paint(color)
    lines = [_headline(now, paint), ""]
    for axis, rows in now.by_axis:
        lines += [*_axis(axis, rows, paint), ""]
    if len(now.by_workload) > 1:
        lines += [*_axis("workload", list(now.by_workload.items()), paint), ""]
    if now.causes:
        lines += ["causes of failure", *_causes(now), ""]
    facts = list(_facts(now, paint))
    lines += [*_aligned(facts), ""] if facts else []
    return "\n".join([*lines, f"next: {now.next}"]) + "\n"


def plan(now: "Plan", *, color: bool | None = None, every_script: bool = False) -> str:
    """What a submit would do: counts, axes, cost, jobs and their scripts, what leaves the sweep; without a `next:` line."""
    paint = _Paint(color)
    facts = [("done", f"{_number(now.counts.get('completed', 0))}{_stale(now)}"), ("to run", _number(now.counts.get("pending", 0)))]
    facts += [(state, paint.word(_number(now.counts[state]), state)) for state in _SIGNS if now.counts.get(state) and state in _UNUSUAL]
    facts += [("axis", f"{name} = {_values(values)}") for name, _, values in now.axes if name not in now.derived]
    facts += [("derived", f"{name} = {_values(values)}, from {now.derived[name]}") for name, _, values in now.axes if name in now.derived]
    facts += [("cost", _cost(now))] if now.counts.get("pending") else []
    tasks = ", ".join(f"{_number(sum(counts.values()))} {workload}" for workload, counts in now.by_workload.items())
    lines = [f"{paint.bold(now.name)}  {_number(now.total)} tasks: {tasks}; a plan, nothing has been written", paint.strip(now.counts, 48)]
    lines += ["", *_aligned(facts)]
    if len(now.by_workload) > 1:
        lines += ["", *_axis("workload", list(now.by_workload.items()), paint)]
    if now.large:
        from orchestrator import demands

        lines += ["", *demands.lines(now.large)]
    if now.jobs:
        from orchestrator import bill

        lines += ["", *bill.jobs(now.jobs), *bill.scripts(now.jobs, now.name, every=every_script)]
    if now.unchecked:
        lines += ["", paint.word(now.unchecked, "blocked")]
    if now.leaving:
        lines += ["", f"{_number(len(now.leaving))} tasks would leave the sweep (their results stay in the store; submit needs --replace):"]
        lines += [f"  {one[:10]}" for one in now.leaving[:_MOST_ROWS]] + _more(len(now.leaving) - _MOST_ROWS)
    lines += [paint.word(f"warning: {warning}", "blocked") for warning in now.warnings]
    lines += [f"note: {note}" for note in now.notes]
    return "\n".join([*lines, ""]) + "\n"


def sweeps(found: Sequence["Status"]) -> str:
    """Every sweep of a store in a line."""
    if not found:
        return "no sweeps yet\nnext: eigensweep plan sweep=width_scaling name=w1\n"
    width = max(len(one.name) for one in found)
    paint = _Paint(None)
    return "\n".join([*(_one_line(one, paint, width) for one in found), f"next: eigensweep status {found[-1].name}"]) + "\n"


def tasks(rows: Sequence[Mapping[str, str]], name: str) -> str:
    """Tasks by key, one a line."""
    key = rows[0]["key"][:10] if rows else "KEY"
    lines = [f"{row['key']}  {row['state']:<9}  {row['task']}" for row in rows] or [f"no task of {name} is selected"]
    return "\n".join([*lines, f"next: eigensweep logs {name} {key}"]) + "\n"


def listed(what: str, lines: Sequence[str], following: str) -> str:
    """What happened to some tasks, given in words."""
    text = "\n".join(f"  {line}" for line in lines)
    return (f"{what}:\n{text}\n" if lines else f"{what}: nothing\n") + (f"next: {following}\n" if following else "")


def commit(one: "Commit") -> str:
    """A task's result: its scalars at the last step, how it ended, and what it cost."""
    scalars = one.rows.get("scalars", {})
    last: dict[str, tuple[int, float]] = {}
    for name, step, value in zip(scalars.get("name", ()), scalars.get("step", ()), scalars.get("value", ()), strict=True):
        last[name] = (step, value)
    lines = [f"{one.key}  {one.workload}  {one.status}{f': {one.message}' if one.message else ''}"]
    lines += _aligned([(name, f"{scalar(value)}  (step {step})") for name, (step, value) in last.items()])
    lines += [f"took {duration(one.seconds)}, at most {one.peak_memory_mib:,.0f} MiB"]
    return "\n".join([*lines, "next: eigensweep submit with lists of values makes a sweep of it"]) + "\n"


def fits(found: "Fitted") -> str:
    """Fitted laws with their intervals and warnings, one after another, and where they were written."""
    lines = [found.fits[0].summary()] if len(found.fits) == 1 else [line for one in found.fits for line in _fit(one)]
    lines += [f"kept in {found.kept}"] if found.kept else []
    lines += [f"not kept: {found.why_not}"] if found.why_not else []
    return "\n".join([*lines, *(f"wrote {path}" for path in found.files)]) + "\n"


def _fit(one: "Fit") -> Iterable[str]:
    choice = ", ".join(f"{name}={scalar(value)}" for name, value in one.choice.items())
    yield f"{choice}: {one.equation()}" if choice else one.equation()
    yield f"  {one.num_points} points, R2 {one.r_squared:.4f}; {one.interval_method()}"
    yield from (f"  warning: {warning}" for warning in one.warnings)


def done(one: "Done") -> str:
    """What a tick did, in a line."""
    dataset = f", dataset {one.manifest}" if one.manifest is not None else ""
    return f"ticked: {one.closed} batches closed, {one.submitted} submitted, {one.settled} sweeps settled{dataset}"


def fields(value: Any) -> str:
    """A dataclass's fields one a line, `next` last as the next command."""
    if value is None:
        return ""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return f"{value}\n"
    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    following = found.pop("next", "")
    lines: list[str] = []
    for name, one in found.items():
        if one is not None and one != "" and one != [] and one != {}:
            lines += _field(name.replace("_", " "), one)
    return "\n".join(lines + ([f"next: {following}"] if following else [])) + "\n"


def _field(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [name, *_aligned([(str(key), scalar(one)) for key, one in value.items()])]
    if isinstance(value, list | tuple) and value and not all(isinstance(one, int | float) for one in value):
        shown = [f"  {scalar(one)}" for one in value[:_MOST_ROWS]]
        return [name, *shown, *_more(len(value) - _MOST_ROWS)]
    return [f"{name:<12} {scalar(value)}"]


def as_json(value: Any) -> str:
    """The result as JSON: dataclasses as objects, fits with their parameters by name, NaN and infinities as null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


class Progress:
    """Follows a sweep while it runs: a live block on a terminal, else one line whenever something changed."""

    def __init__(self, *, quiet: bool, whole: bool = False) -> None:
        self._quiet, self._whole = quiet, whole
        self._live: Any = None
        self._last_counts: Counts = {}
        self._last_time = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, now: "Status") -> None:
        """Show the status of this moment."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._draw(now)
        elif now.counts != self._last_counts and time.monotonic() - self._last_time >= _SECONDS_BETWEEN_LINES:
            self._last_counts, self._last_time = dict(now.counts), time.monotonic()
            print(_one_line(now), file=sys.stderr, flush=True)

    def _draw(self, now: "Status") -> None:
        from rich.text import Text

        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        text = status(now, color=True) if self._whole else _running(now)
        self._live.update(Text.from_ansi(text, no_wrap=True, overflow="ellipsis"), refresh=True)


class _Paint:
    """Signs and colours for this terminal."""

    def __init__(self, color: bool | None) -> None:
        self.color = (sys.stdout.isatty() and "NO_COLOR" not in os.environ) if color is None else color
        # not sys.stdout: rich puts a stand-in without an encoding there while it draws
        encoding = (getattr(sys.__stdout__, "encoding", None) or "ascii").lower()
        self.unicode = "utf" in encoding

    def sign(self, state: str, number: int = 1) -> str:
        sign, plain_sign, code = _SIGNS.get(state, ("?", "?", "0"))
        text = (sign if self.unicode else plain_sign) * number
        return f"\033[{code}m{text}\033[0m" if self.color and text else text

    def word(self, text: str, state: str) -> str:
        return f"\033[{_SIGNS[state][2]}m{text}\033[0m" if self.color and state in _SIGNS else text

    def bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self.color else text

    def strip(self, counts: Counts, cells: int = _STRIP_CELLS) -> str:
        return "".join(self.sign(state, number) for state, number in cells_of(counts, cells).items())


def cells_of(counts: Counts, cells: int) -> dict[str, int]:
    """How many of `cells` each state gets: by its share, but at least one where it occurs at all, so no failure hides."""
    present = {state: counts[state] for state in _SIGNS if counts.get(state)}
    total = sum(present.values())
    if not total:
        return {}
    exact = {state: number * cells / total for state, number in present.items()}
    given = {state: max(1, int(share)) for state, share in exact.items()}
    while sum(given.values()) < cells:
        state = max(exact, key=lambda one: exact[one] - given[one])
        given[state] += 1
    while sum(given.values()) > cells and max(given.values()) > 1:
        state = max((one for one in given if given[one] > 1), key=lambda one: given[one] - exact[one])
        given[state] -= 1
    return given


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.2 h`, `2.1 d`."""
    for limit, unit, size in ((99.5, "s", 1), (5970, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if unit == 'h' or (unit == 's' and 0 < seconds < 9.95) else 0}f} {unit}"
    return f"{seconds / 86400:.1f} d"


def band(low: float, high: float) -> str:
    """Two durations as one band, in one unit where they share it."""
    first, second = duration(low), duration(high)
    if first == second:
        return second
    return f"{first.split()[0]}-{second}" if first.split()[1] == second.split()[1] else f"{first} to {second}"


def _headline(now: "Status", paint: _Paint) -> str:
    diverged = f", {_number(now.num_diverged)} of them diverged" if now.num_diverged else ""
    counts = "  ".join(paint.word(f"{state} {_number(number)}", state) for state, number in now.counts.items() if number)
    return f"{paint.bold(now.name)}  revision {now.revision}  {_number(now.total)} tasks{diverged}\n{paint.strip(now.counts, 48)}  {counts}"


def _axis(axis: str, rows: Sequence[tuple[Any, Counts]], paint: _Paint) -> list[str]:
    """A row a value; where there are too many, one strip over all of them."""
    if len(rows) > _MOST_ROWS:
        return [f"{axis} ({_number(len(rows))} values, {scalar(rows[0][0])} ... {scalar(rows[-1][0])})", f"  {_overview(rows, paint)}"]
    values = [scalar(value) for value, _ in rows]
    width = max(map(len, values), default=0)
    return [axis, *(f"  {value:>{width}}  {_row(counts, paint)}" for value, (_, counts) in zip(values, rows, strict=True))]


def _row(counts: Counts, paint: _Paint) -> str:
    total, done = sum(counts.values()), counts.get("completed", 0)
    others = ", ".join(paint.word(f"{counts[state]} {state}", state) for state in _SIGNS if counts.get(state) and state != "completed")
    return f"{paint.strip(counts)}  {done}/{total}{f'  {others}' if others else ''}"


def _overview(rows: Sequence[tuple[Any, Counts]], paint: _Paint) -> str:
    """One cell for a run of neighbouring values, showing the worst state in it."""
    num_cells = min(len(rows), 72)
    cells = []
    for cell in range(num_cells):
        part = rows[cell * len(rows) // num_cells : (cell + 1) * len(rows) // num_cells]
        states = {state for _, counts in part for state, number in counts.items() if number}
        cells.append(paint.sign(next((state for state in _WORST_FIRST if state in states), "?")))
    return "".join(cells)


def _causes(now: "Status") -> Iterable[str]:
    width = max(len(cause) for cause, *_ in now.causes)
    for cause, number, message, key in now.causes[:_MOST_ROWS]:
        yield f"  {cause:<{width}}  {number:>5}  {_cut(message, 72)}"
        yield f"  {'':<{width}}         eigensweep logs {now.name} {key[:10]}"
    yield from _more(len(now.causes) - _MOST_ROWS)


def _facts(now: "Status", paint: _Paint) -> Iterable[tuple[str, str]]:
    left = sum(now.counts.get(state, 0) for state in ("running", "queued", "pending"))
    if left:
        yield "left", f"{_number(left)} tasks, {_eta(now.eta)}"
    if now.jobs:
        from orchestrator import jobs, show_jobs

        shown, groups = [jobs.Job(**job) for job in now.jobs], [jobs.Group(**group) for group in now.queue]
        for name, line in show_jobs.lines(shown, groups):
            yield name, paint.word(line, "failed") if name == "wrong" else line
    for silence in now.silent:
        yield "silent", paint.word(f"the scheduler gave no answer, so nothing is concluded: {_cut(silence, 90)}", "blocked")
    for one in now.running:
        yield "running", one
    if now.paused:
        yield "paused", paint.word(now.paused, "failed")
    if now.waiting:
        yield "waiting", paint.word(_cut(now.waiting, 160), "blocked")
    for measure, (spent, limit) in now.budget.items():
        yield "budget", f"{spent:.3g} of {limit:g} {measure.replace('_', '-')} spent, {limit - spent:.3g} left"
    for workload, message in now.broken.items():
        yield "stopped", paint.word(f"{workload}: fails alike again and again: {_cut(message, 80)}", "failed")
    for key, difference in now.differences[:4]:
        yield "differs", paint.word(f"{key[:10]}: a second execution gave other rows: {difference}", "blocked")
    if now.watcher:
        yield "next step", paint.word(now.watcher, "failed") if now.watcher.startswith("NOBODY") else now.watcher


def _eta(eta: tuple[float, float] | None) -> str:
    return "time not known yet" if eta is None else band(*eta)


def _running(now: "Status") -> str:
    """The live block of a submit: one strip, what runs, what is left."""
    paint = _Paint(color=True)
    lines = [_one_line(now, paint), *(f"  {one}" for one in now.running)]
    lines += [f"  {paint.word(cause, 'failed')} {number}: {_cut(message, 90)}" for cause, number, message, _ in now.causes[:3]]
    return "\n".join(lines)


def _one_line(now: "Status", paint: _Paint | None = None, width: int = 0) -> str:
    paint = paint or _Paint(color=False)
    done, left = now.counts.get("completed", 0), sum(now.counts.get(state, 0) for state in ("running", "queued", "pending"))
    others = [f"{now.counts[state]} {state}" for state in ("running", "failed", "blocked", "cancelled") if now.counts.get(state)]
    tail = f", {_eta(now.eta)} left" if left and now.eta is not None else ""
    return f"{now.name:<{width}} {paint.strip(now.counts)} {done}/{now.total}{''.join(f', {one}' for one in others)}{tail}"


def _stale(now: "Plan") -> str:
    return f", {_number(now.stale)} of them stale: computed by other code than this" if now.stale else ""


def _cost(now: "Plan") -> str:
    """Slot-hours, then the wall time that they make on the launcher's slots."""
    low, high = (hours * 3600 for hours in now.cost_hours)
    jobs = f"in {_number(now.num_jobs)} job{'s' if now.num_jobs != 1 else ''} on {now.slots} slot{'s' if now.slots != 1 else ''}"
    if not high:
        return f"not known yet, {jobs}"
    unknown = f"; {_number(now.unknown_cost)} tasks not counted, their time is not known yet" if now.unknown_cost else ""
    return f"{band(low, high)} of slot time: {band(*now.walltime_seconds)} {jobs}{unknown}"


def _aligned(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns; a name that repeats is shown once."""
    width = max((len(name) for name, _ in facts), default=0)
    names = ["" if index and facts[index - 1][0] == name else name for index, (name, _) in enumerate(facts)]
    return [f"  {name:<{width}}  {text}" for name, (_, text) in zip(names, facts, strict=True)]


def _values(values: Sequence[Any]) -> str:
    shown = [f"[{scalar(value)}]" if isinstance(value, list | tuple) else scalar(value) for value in values]
    return ", ".join(shown if len(shown) <= _MOST_ROWS else [*shown[:4], "...", shown[-1]]) + f" ({len(shown)})"


def _more(number: int) -> list[str]:
    return [f"  ... and {_number(number)} more"] if number > 0 else []


def _number(number: int) -> str:
    return f"{number:,}"


def scalar(value: Any) -> str:
    """A value for people: six digits, lists with commas."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(scalar(one) for one in value)
    return str(value)


def _cut(text: str, length: int) -> str:
    """The first line, shortened."""
    text = (text.strip().splitlines() or ["(no message)"])[0]
    return text if len(text) <= length else text[: length - 3] + "..."


def _plain(value: Any) -> Any:
    """Only what JSON has."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if hasattr(value, "interval_method"):
        from orchestrator import fits_table

        return _plain(fits_table.plain(value))
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)


def _each(found: Any) -> Iterable[Any]:
    """The items of a list or of a mapping's values, or the one thing itself."""
    if isinstance(found, Mapping):
        return found.values()
    return found if isinstance(found, list | tuple) else [found]
