"""What `eigensweep cost` prints: hours by axis value, workload and cause, what of them was wasted, and what the budget leaves."""

from collections.abc import Iterator, Sequence

from orchestrator.cost import MEASURES, WORDS, Hours
from orchestrator.cost_table import Cost, Group

_MOST_ROWS = 12
_HEADS = ("tasks", "attempts", *WORDS.values(), "wasted")


def cost(one: Cost) -> str:
    """A table with a line per group; the share that was wasted is of GPU-hours where there are any, else of CPU-hours."""
    lines = [_headline(one)]
    if one.total.attempts or one.total.tasks:
        lines += ["", *_table(one)]
    if one.unknown:
        lines += ["", f"not counted: {one.unknown:,} attempts that told nothing of what they used"]
    lines += [line for group in (_budget(one), [f"next: {one.next}"]) if group for line in ("", *group)]
    return "\n".join(lines) + "\n"


def _headline(one: Cost) -> str:
    if not one.total.tasks:
        return f"{one.name}  no attempt has ended yet, so nothing has been spent on results"
    jobs = f" in {one.jobs:,} batch{'es' if one.jobs != 1 else ''}" if one.jobs else ""
    return f"{one.name}  {one.total.tasks:,} tasks, {one.total.attempts:,} attempts{jobs}"


def _table(one: Cost) -> list[str]:
    measure = "gpu_hours" if one.total.hours["gpu_hours"] else "cpu_hours"
    energy = one.total.joules is not None
    rows: list[tuple[str, ...]] = [("", *_HEADS, *(["kWh"] if energy else [])), _row("all", one.total, measure, energy=energy)]
    for name, groups in one.by.items():
        rows += [(name,), *(_row(f"  {_value(group)}", group, measure, energy=energy) for group in _costliest(groups, measure))]
        rows += [(f"  ... and {len(groups) - _MOST_ROWS:,} that cost less",)] if len(groups) > _MOST_ROWS else []
    rows += [("cause",)]
    rows += [_row(f"  {kind}: {group.value}", group, measure, energy=energy, wasted=False) for kind, group in one.causes]
    return list(_columns(rows))


def _costliest(groups: Sequence[Group], measure: str) -> list[Group]:
    """All in their order, or the few that cost most."""
    if len(groups) <= _MOST_ROWS:
        return list(groups)
    return sorted(groups, key=lambda group: -(group.hours[measure] or 0.0))[:_MOST_ROWS]


def _value(group: Group) -> str:
    return "(without)" if group.value is None else f"{group.value:g}" if isinstance(group.value, float) else str(group.value)


def _row(name: str, group: Group, measure: str, *, energy: bool, wasted: bool = True) -> tuple[str, ...]:
    whole = group.hours[measure]
    share = f"{100 * group.wasted[measure] / whole:.0f} %" if whole and wasted else ""
    cells = [name, f"{group.tasks:,}", f"{group.attempts:,}", *(hours(group.hours[one]) for one in MEASURES), share]
    return (*cells, hours(group.joules / 3.6e6) if group.joules is not None else "") if energy else tuple(cells)


def hours(value: float | None) -> str:
    """Three digits: `0.012`, `1.25`, `318`, `12,400`; `-` where it is not known."""
    if value is None:
        return "-"
    if value and abs(value) < 0.001:
        return f"{value:.1g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The first column stands left, numbers right; a row of one cell is a heading."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        yield "  ".join(cells).rstrip()


def _budget(one: Cost) -> list[str]:
    lines = []
    if any(one.at_work.values()):
        lines.append(f"at work, not in the table yet: {in_words(one.at_work)} so far")
    for measure, limit in one.limits.items():
        spent = one.spent.get(measure, 0.0)
        lines.append(f"budget: {hours(spent)} of {limit:g} {WORDS[measure]} spent by the jobs of {one.name}, {hours(limit - spent)} left")
    return lines


def in_words(found: Hours) -> str:
    """`1.2 CPU-hours, 0.3 GPU-hours`; what is 0 is left out."""
    return ", ".join(f"{hours(found[measure])} {word}" for measure, word in WORDS.items() if found.get(measure)) or "nothing"
