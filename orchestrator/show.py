"""What the command line prints: plans, states as heat strips, progress, and any other result as plain lines."""

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from orchestrator.status import Status

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


def plan(result: Any) -> str:
    """What a submit would do: counts, cost, what leaves the sweep; without a `next:` line."""
    counts = {name: number for name, number in result.counts.items() if number}
    total = sum(result.by_workload.values()) if result.by_workload else sum(counts.values())
    facts = [("tasks", f"{_number(total)} ({_listed(result.by_workload)})"), ("state", _listed(counts) or "nothing to do")]
    facts += [("axis", f"{axis}: {_values(values)}") for axis, values in _pairs(result.axes)]
    facts += [(name, text) for name, text in _cost(result) if text]
    lines = [f"{result.name}: a plan; nothing has been written", "", *_aligned(facts)]
    if getattr(result, "leaving", None):
        lines += ["", f"leaving the sweep ({len(result.leaving)}; their results stay in the store; needs --replace):"]
        lines += [f"  {one}" for one in list(result.leaving)[:_MOST_ROWS]] + _more(len(result.leaving) - _MOST_ROWS)
    return "\n".join(lines) + "\n"


def result(value: Any) -> str:
    """Any verb's result: a Status as a status, a text as it is, else its fields."""
    if isinstance(value, str):
        return value
    if hasattr(value, "by_axis") and hasattr(value, "counts"):
        return status(value)
    return fields(value)


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
        return [name, *_aligned([(str(key), _scalar(one)) for key, one in value.items()])]
    if isinstance(value, list | tuple) and value and not all(isinstance(one, int | float) for one in value):
        shown = [f"  {_scalar(one)}" for one in value[:_MOST_ROWS]]
        return [name, *shown, *_more(len(value) - _MOST_ROWS)]
    return [f"{name:<12} {_scalar(value)}"]


def as_json(value: Any) -> str:
    """The result as JSON: dataclasses as objects, paths as texts."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def is_over(now: "Status") -> bool:
    """Whether waiting longer changes nothing."""
    return now.is_settled


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
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
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
        return [f"{axis} ({_number(len(rows))} values, {_scalar(rows[0][0])} ... {_scalar(rows[-1][0])})", f"  {_overview(rows, paint)}"]
    values = [_scalar(value) for value, _ in rows]
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
        first = (message.strip().splitlines() or ["(no message)"])[0]
        yield f"  {cause:<{width}}  {number:>5}  {_cut(first, 72)}"
        yield f"  {'':<{width}}         eigensweep logs {now.name} {key[:10]}"
    yield from _more(len(now.causes) - _MOST_ROWS)


def _facts(now: "Status", paint: _Paint) -> Iterable[tuple[str, str]]:
    left = sum(now.counts.get(state, 0) for state in ("running", "queued", "pending"))
    if left:
        yield "left", f"{_number(left)} tasks, {_eta(now.eta)}"
    for job in now.jobs[:4]:
        yield "job", f"{job['token']} ({job['launcher']}): {job['ended']} of {job['total']} ended, {job['running']} running"
    if len(now.jobs) > 4:
        yield "", f"... and {len(now.jobs) - 4} more jobs"
    for one in now.running:
        yield "running", one
    if now.paused:
        yield "paused", paint.word(now.paused, "failed")
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


def _one_line(now: "Status", paint: _Paint | None = None) -> str:
    paint = paint or _Paint(color=False)
    done, left = now.counts.get("completed", 0), sum(now.counts.get(state, 0) for state in ("running", "queued", "pending"))
    others = [f"{now.counts[state]} {state}" for state in ("running", "failed", "blocked", "cancelled") if now.counts.get(state)]
    tail = f", {_eta(now.eta)} left" if left and now.eta is not None else ""
    return f"{now.name} {paint.strip(now.counts)} {done}/{now.total}{''.join(f', {one}' for one in others)}{tail}"


def _cost(result: Any) -> Iterable[tuple[str, str]]:
    cost = result.cost if isinstance(result.cost, Mapping) else {}
    if cost.get("cpu_hours") is not None:
        yield "cost", f"{cost['cpu_hours']:.3g} CPU hours"
    walltime = cost.get("walltime_seconds")
    if walltime:
        yield "time", band(*walltime)
    if getattr(result, "jobs", None):
        yield "jobs", str(result.jobs if isinstance(result.jobs, int) else len(result.jobs))


def _aligned(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns; a name that repeats is shown once."""
    width = max((len(name) for name, _ in facts), default=0)
    names = ["" if index and facts[index - 1][0] == name else name for index, (name, _) in enumerate(facts)]
    return [f"  {name:<{width}}  {text}" for name, (_, text) in zip(names, facts, strict=True)]


def _values(values: Sequence[Any]) -> str:
    shown = [_scalar(value) for value in values]
    return ", ".join(shown if len(shown) <= _MOST_ROWS else [*shown[:4], "...", shown[-1]]) + f" ({len(shown)})"


def _pairs(axes: Any) -> Iterable[tuple[str, Sequence[Any]]]:
    return (
        axes.items()
        if isinstance(axes, Mapping)
        else [(axis[0], axis[1]) if isinstance(axis, tuple) else (axis.name, axis.values) for axis in axes]
    )


def _listed(counts: Counts) -> str:
    return ", ".join(f"{_number(number)} {name.replace('_', ' ')}" for name, number in counts.items())


def _more(number: int) -> list[str]:
    return [f"  ... and {_number(number)} more"] if number > 0 else []


def _number(number: int) -> str:
    return f"{number:,}"


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_scalar(one) for one in value)
    return str(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    with contextlib.suppress(AttributeError):
        return value.to_plain()
    return str(value)
