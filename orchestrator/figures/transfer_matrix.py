"""A matrix of where policies were trained and where they were deployed: a number with its interval in each cell."""

import math
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl

_DIVERGING = "PuOr_r"


def transfer_matrix(
    frame: "pl.DataFrame", *, title: str = "", unit: str = "", label: str = "", diverging: bool = False, form: str = ".2f", ax: Any = None
) -> Any:
    """`frame` has the columns trained, deployed, value, low and high; `diverging`: colours about 0. A frame marks the diagonal.

    Where either column is of words, its order is that of the rows, and there is no diagonal. A column `decided`, where there is one, is
    shown by an arrow: up for better, down for worse.
    """
    import numpy as np
    from matplotlib.patches import Rectangle

    rows, columns = (_ends(frame[name]) for name in ("trained", "deployed"))
    with style.styled():
        ax = style.axes(ax, (1.6 + 0.68 * max(len(columns), 3), 1.1 + 0.5 * max(len(rows), 3)))
        values = np.full((len(rows), len(columns)), np.nan)
        for row in frame.iter_rows(named=True):
            values[rows.index(row["trained"]), columns.index(row["deployed"])] = row["value"]
        finite = values[np.isfinite(values)]
        most = float(np.abs(finite).max()) if len(finite) else 1.0
        ends = (-most, most) if diverging else (min(0.0, float(finite.min()) if len(finite) else 0.0), most)
        image = ax.imshow(values, cmap=_DIVERGING if diverging else "viridis", vmin=ends[0], vmax=ends[1] or 1.0, aspect="auto")
        for row in frame.iter_rows(named=True):
            at = columns.index(row["deployed"]), rows.index(row["trained"])
            _cell(ax, at, row, image.cmap(image.norm(row["value"])), form)
        for at in [(columns.index(one), rows.index(one)) for one in rows if one in columns]:
            ax.add_patch(Rectangle((at[0] - 0.49, at[1] - 0.49), 0.98, 0.98, fill=False, edgecolor=style.INK, linewidth=1.4))
        ax.set_xticks(range(len(columns)), labels=[_name(one) for one in columns])
        ax.set_yticks(range(len(rows)), labels=[_name(one) for one in rows])
        ax.grid(visible=False)
        for label_axis, end, its in ((ax.set_xlabel, "deployed", columns), (ax.set_ylabel, "trained", rows)):
            label_axis(f"{end} at ({unit})" if unit and not _are_words(its) else f"{end} at")
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=22)
        bar.set_label(label, fontsize=7.5)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7)
        style.title(ax, title, margin=1.3)
    style.remember(ax, frame)
    return ax


def _ends(values: "pl.Series") -> list[Any]:
    found = values.unique(maintain_order=True).to_list()
    return found if _are_words(found) else sorted(found)


def _are_words(ends: list[Any]) -> bool:
    return any(isinstance(one, str) for one in ends)


def _name(end: Any) -> str:
    return end if isinstance(end, str) else style.number(float(end))


def _cell(ax: Any, at: tuple[int, int], row: "dict[str, Any]", colour: Any, form: str) -> None:
    """Number over interval, in the ink that the colour leaves legible."""
    red, green, blue, _ = colour
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else style.INK
    arrow = {"better": " ↑", "worse": " ↓"}.get(row.get("decided", ""), "")
    ax.text(*at, f"{row['value']:{form}}{arrow}", ha="center", va="bottom", fontsize=7.5, color=ink)
    if math.isfinite(row["low"]):
        ax.text(*at, f"[{row['low']:{form}}, {row['high']:{form}}]", ha="center", va="top", fontsize=5.5, color=ink)
