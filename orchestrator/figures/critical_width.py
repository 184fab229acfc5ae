"""Change of the kernel against the width, with the laws of wide and narrow networks and the width between."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.critical_width import CriticalWidth, Line


def critical_widths(changes: "pl.DataFrame", found: Mapping[str, "CriticalWidth"], ax: Any = None) -> Any:
    """`changes` has a row a run: parameterisation, width, relative_kernel_change; `found` by parameterisation."""
    labels = sorted(changes["parameterisation"].unique().to_list())
    shade, marker = style.colours(labels), style.markers(labels)
    with style.styled():
        ax = style.axes(ax)
        for label in labels:
            own = changes.filter(changes["parameterisation"] == label)
            ax.scatter(
                own["width"].to_numpy(), own["relative_kernel_change"].to_numpy(), s=13, c=shade[label], marker=marker[label],
                linewidths=0, alpha=0.75, label=label, zorder=3,
            )  # fmt: skip
            one = found.get(label)
            if one is not None:
                _laws(ax, one, own["width"].to_list(), shade[label])
        style.log_axis(ax.xaxis, changes["width"].to_list(), exact=True)
        style.log_axis(ax.yaxis, changes["relative_kernel_change"].to_list())
        ax.set_xlabel(style.label("width"))
        ax.set_ylabel("relative kernel change")
        style.legend(ax, "parameterisation")
        style.title(ax, _finding(found))
    style.remember(ax, changes)
    return ax


def _laws(ax: Any, one: "CriticalWidth", widths: list[int], colour: str) -> None:
    largest, smallest = max(widths), min(widths)
    known = one.width == one.width
    _line(ax, one.wide, one.width if known else smallest, largest, colour, "-")
    if known:
        _line(ax, one.narrow, smallest, one.width, colour, ":")
        ax.axvline(one.width, color=colour, linewidth=0.9, alpha=0.5)


def _line(ax: Any, line: "Line", low: float, high: float, colour: str, kind: str) -> None:
    if line.slope == line.slope:
        ax.plot([low, high], [line.at(low), line.at(high)], color=colour, linestyle=kind)


def _finding(found: Mapping[str, "CriticalWidth"]) -> str:
    words = [
        f"{label} {'at most ' if one.is_bound else ''}{one.width:.0f}"
        if one.width == one.width
        else f"{label} {'none' if one.is_tested else 'not tested'}"
        for label, one in found.items()
    ]
    return f"Critical width: {', '.join(words)}" if words else "Kernel change against width"
