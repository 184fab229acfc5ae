"""Figures of a report: each written as PNG, PDF and CSV beside the page, and drawn in it with its data to download."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from orchestrator import page

__all__ = ["Drawing", "drawn"]

# an inline drawing above this many characters becomes a PNG
MOST_SVG = 600_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One figure of a report: its file name, Axes and caption; `wide`: over the whole page."""

    name: str
    ax: Any
    caption: str
    wide: bool = False


def drawn(drawings: Sequence[Drawing], folder: Path) -> str:
    """The grid of figures as HTML; the files go to `folder`/figures."""
    from orchestrator.figures import style

    shown = []
    for drawing in drawings:
        written = style.save(drawing.ax, folder / "figures" / drawing.name)
        vector = style.svg(drawing.ax, drawing.name)
        inline = vector if len(vector) <= MOST_SVG else page.image(written[0].read_bytes(), drawing.caption)
        csv = written[2].read_text()
        # large data stay in the file beside the page
        link = page.download(written[2].name, csv, "data as CSV") if len(csv) < MOST_SVG else f"Data: figures/{escape(written[2].name)}"
        shown.append(page.figure(inline, drawing.caption, link, wide=drawing.wide))
    return f'<div class="figures">{"".join(shown)}</div>'
