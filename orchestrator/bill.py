"""The jobs of a plan as text: how many there are of each shape, what they may cost, and the scripts word for word."""

from collections.abc import Iterator, Sequence

from orchestrator.dispatch import UNKNOWN_DIGITS, Hours, Jobs

_HEAD = ("jobs", "calls", "tasks", "each job asks for", "node-h", "CPU-h", "GPU-h", "at most")


def jobs(found: Sequence[Jobs]) -> list[str]:
    """A table, a row a shape, with the sums below."""
    rows = [_row(one) for one in found]
    if len(found) > 1:
        rows.append(_sums(found))
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(len(_HEAD))]
    left = (2, 3)
    lines = [
        "  "
        + "  ".join(f"{cell:<{width}}" if i in left else f"{cell:>{width}}" for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in [_HEAD, *rows]
    ]
    ticks = ", each followed by one for the job that ticks" if any("tick.sh" in one for jobs in found for one in jobs.scripts) else ""
    notes = [f"calls: of sbatch{ticks}; at most: hours of nodes, CPUs and GPUs if every job used its whole time"]
    if any(one.after_others for one in found):
        notes.append("+: sent when the inputs, which jobs above compute, are there")
    if unknown := sum(one.unknown for one in found):
        notes.append(f"?: without {unknown:,} tasks whose time is not known yet")
    return [*lines, *(f"  {note}" for note in notes)]


def _row(one: Jobs) -> tuple[str, ...]:
    tasks = ", ".join(f"{number:,} {workload}" for workload, number in one.tasks.items())
    calls = f"{one.calls:,}{'+' if one.after_others else ''}"
    return f"{one.jobs:,}", calls, tasks, _request(one), *_hours([one]), _most([one])


def _sums(found: Sequence[Jobs]) -> tuple[str, ...]:
    tasks = sum(sum(one.tasks.values()) for one in found)
    return (
        f"{sum(one.jobs for one in found):,}",
        f"{sum(one.calls for one in found):,}",
        f"{tasks:,} in all",
        "",
        *_hours(found),
        _most(found),
    )


def _request(one: Jobs) -> str:
    """`2 nodes with 8 CPUs, 1 GPU, 2.25 GiB; 12 min; 8 tasks at once`."""
    asked = one.request
    parts = [_number(asked["cpus"], "CPU"), *([_number(asked["gpus"], "GPU")] if asked["gpus"] else []), f"{asked['memory_gib']:.4g} GiB"]
    nodes = f"{asked['nodes']} nodes with " if asked["nodes"] > 1 else ""
    slots = f"; {asked['slots']} tasks at once" if asked["slots"] > 1 else ""
    return f"{nodes}{', '.join(parts)}; {asked['minutes']:,} min{slots}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _hours(found: Sequence[Jobs]) -> tuple[str, str, str]:
    known = any(sum(one.tasks.values()) > one.unknown for one in found)
    mark = "?" if any(one.unknown for one in found) else ""

    def sums(hours: Sequence[Hours]) -> str:
        return band(sum(low for low, _ in hours), sum(high for _, high in hours)) + mark if known else "?"

    return sums([one.node_hours for one in found]), sums([one.cpu_hours for one in found]), sums([one.gpu_hours for one in found])


def _most(found: Sequence[Jobs]) -> str:
    return " / ".join(hours(sum(one.most[i] for one in found)) for i in range(3))


def band(low: float, high: float) -> str:
    """`1.2-4.8`."""
    first, last = hours(low), hours(high)
    return first if first == last else f"{first}-{last}"


def hours(value: float) -> str:
    """Two digits that count, and whole numbers from ten on."""
    return f"{value:,.0f}" if value >= 9.95 or value == 0 else f"{value:.2g}" if value >= 0.001 else "<0.001"


def scripts(found: Sequence[Jobs], name: str, *, every: bool) -> Iterator[str]:
    """The scripts under the names that they will have in the store."""
    if not any(one.scripts for one in found):
        return
    token = f"{name}-{UNKNOWN_DIGITS}"
    yield ""
    yield f"scripts{'' if every else ' of the first call of each shape'} (in {token} the {UNKNOWN_DIGITS} stands for digits that are drawn"
    yield "when it is submitted, and JOBID for the number that sbatch answers)"
    for one in found:
        for texts in one.scripts:
            for file, text in texts.items():
                yield f"--- batches/{token}/{file} {'-' * 30}"
                yield from text.rstrip("\n").split("\n")
    yield "-" * 40
    left_out = sum(one.calls - len(one.scripts) for one in found)
    if left_out:
        yield f"{left_out:,} further calls have scripts of the same shapes: `eigensweep submit --dry-run` prints every one"
