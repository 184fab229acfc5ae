"""Single runs to look at: which stand for their group, their paths, and pages where they move."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.study import Attachment
from orchestrator.swarm import animation, runs

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

__all__ = ["animated", "best", "positions_of"]

ASPECTS = {"sphere": 1.0, "prolate": 3.0, "oblate": 1.0 / 3.0}
RADIUS, ROD_LENGTH = 2.14, 100.0


def best(frame: "pl.DataFrame", by: str, y: str, *, most: bool = False) -> dict[Any, str]:
    """Value of `by` -> the key of the run with the least `y`, or the `most`."""
    good = frame.filter(frame[y].is_finite()).sort(y, descending=most)
    return {value: str(part["key"][0]) for (value,), part in sorted(good.partition_by([by], as_dict=True, maintain_order=True).items())}


def positions_of(results: "Results", chosen: Mapping[str, str], until: int | None = None) -> "dict[str, pl.DataFrame]":
    """Name -> positions of a run of the table `positions`, of the first `until` frames."""
    import polars as pl

    rows = runs.table(results, "positions", (), list(chosen.values()))
    rows = rows if until is None else rows.filter(pl.col("frame") <= until)
    parts = rows.collect().partition_by(["key"], as_dict=True)
    return {name: parts[key,] for name, key in chosen.items() if (key,) in parts}


def animated(results: "Results", chosen: Mapping[str, str], prefix: str) -> list[Attachment]:
    """A page a run; `chosen`: what it is called -> its key."""
    import polars as pl

    frames = runs.table(results, "frames", (), list(chosen.values())).collect()
    found = []
    for name, positions in positions_of(results, chosen).items():
        settings = runs.settings_of(results, chosen[name])
        shown = animation.scene(
            positions,
            frames.filter(pl.col("key") == chosen[name]),
            radius=runs.setting(settings, "radius", RADIUS),
            aspect=ASPECTS.get(str(_word(settings, "shape")), 1.0),
            rod_length=runs.setting(settings, "rod_length", ROD_LENGTH),
            title=name,
        )
        file = f"{prefix}-{''.join(letter if letter.isalnum() else '-' for letter in name).strip('-')}.html"
        found.append(Attachment(name=file, label=f"{name}: in motion", text=animation.html(shown)))
    return found


def _word(settings: Mapping[str, Any], leaf: str) -> str | None:
    """The first text of that name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found = _word(value, leaf)
            if found is not None:
                return found
        elif name == leaf and isinstance(value, str):
            return value
    return None
