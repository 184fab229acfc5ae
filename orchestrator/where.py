"""Selections: which tasks of a sweep a `where` expression means."""

from typing import Any

from orchestrator.ledger import Ledger
from orchestrator.states import SweepStates
from orchestrator.sweep import Sweep
from workers.errors import ConfigError, nearest

COLUMNS = ("key", "workload", "state", "class", "message", "num_failed")


def select(sweep: Sweep, states: SweepStates, where: str | None) -> list[int]:
    """Indices of the tasks for which the SQL condition `where` holds; None or an empty text: all.

    Columns: those of COLUMNS (`class` and `message` of the last failed attempt) and the short axis names. ConfigError says
    what is wrong with an expression, and which columns there are.
    """
    if not where:
        return list(range(len(sweep.keys)))
    import polars as pl

    frame = pl.DataFrame(_columns(sweep, states), strict=False)
    try:
        mask = frame.select(pl.sql_expr(where).alias("chosen"))["chosen"]
    except Exception as error:
        raise ConfigError(_explain(where, frame.columns, error)) from None
    if mask.dtype != pl.Boolean:
        raise ConfigError(f"where={where!r} must be a condition such as \"state='failed' and width > 64\", but it gives {mask.dtype}")
    if len(mask) == 1 and len(frame) > 1:
        return list(range(len(frame))) if mask[0] else []
    return [index for index, chosen in enumerate(mask) if chosen]


def find_key(sweep: Sweep, prefix: str) -> int:
    """Index of the one task whose key begins with `prefix`; ConfigError where none or several do."""
    matches = [index for index, key in enumerate(sweep.keys) if key.startswith(prefix)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise ConfigError(f"no task of {sweep.name} has a key that begins with {prefix!r}{nearest(prefix, sweep.keys[:1000])}"
                          f" List them with `eigensweep status {sweep.name} --keys`")  # fmt: skip
    examples = ", ".join(sweep.keys[index][:10] for index in matches[:4])
    raise ConfigError(f"{len(matches)} tasks of {sweep.name} have a key that begins with {prefix!r} ({examples}, ...): give more letters")


def describe(sweep: Sweep, index: int) -> str:
    """`train width=64 seed=0`: a task in words."""
    values = " ".join(f"{name}={value}" for name, value in sweep.axis_values(index).items())
    return f"{sweep.workload(index)} {values}".rstrip() + ("" if sweep.is_point(index) else " (the earlier part)")


def _columns(sweep: Sweep, states: SweepStates) -> dict[str, list[Any]]:
    last = [(states.outcomes.get(key) or [{}])[-1] for key in sweep.keys]
    axes = [sweep.axis_values(index) for index in range(len(sweep.keys))]
    columns: dict[str, list[Any]] = {
        "key": list(sweep.keys),
        "workload": [sweep.workload(index) for index in range(len(sweep.keys))],
        "state": states.states,
        "class": [one.get("class") for one in last],
        "message": [one.get("message") for one in last],
        "num_failed": [len(states.outcomes.get(key, ())) for key in sweep.keys],
    }
    return columns | {axis.name: [values.get(axis.name) for values in axes] for axis in sweep.axes}


def _explain(where: str, columns: list[str], error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    missing = text.split('"')[1] if text.count('"') >= 2 else ""
    hint = nearest(missing, columns) if missing else ""
    return f"cannot use where={where!r}: {text}{hint} Columns are {', '.join(columns)}; quote texts like state='failed'"


def descendants(sweep: Sweep, indices: list[int]) -> list[int]:
    """The tasks themselves and all that need them, in the sweep's order."""
    found = set(indices)
    for index in range(len(sweep.keys)):
        if any(position in found for position in sweep.inputs(index)):
            found.add(index)
    return sorted(found)


def failed_causes(sweep: Sweep, states: SweepStates, ledger: Ledger) -> list[tuple[str, int, str, str]]:
    """(class, number of tasks, message, key of an example) of what went wrong, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for index, key in enumerate(sweep.keys):
        if states.states[index] in ("failed", "pending") and key in states.outcomes:
            last = states.outcomes[key][-1]
            fingerprint = (last.get("error") or {}).get("fingerprint", "")
            groups.setdefault((last["class"], fingerprint), []).append(key)
    found = []
    for (cause, _), keys in groups.items():
        last = states.outcomes[keys[0]][-1]
        found.append((cause, len(keys), str(last.get("message", "")), keys[0]))
    return sorted(found, key=lambda one: -one[1])
