"""Kernel eigenvalues against their rank on logarithmic axes, largest first, with the noise floor marked."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import lines, shown_of

if TYPE_CHECKING:
    import polars as pl


def spectra(frame: "pl.DataFrame", *, by: str | None = None, noise_floor: float | None = None, ax: Any = None) -> Any:
    """`frame` has a row an eigenvalue (columns key, step, eigenvalue, `by`); of several steps the last of each key is drawn.

    A line is the median over the tasks of one value of `by`. Eigenvalues <= 0 have no logarithm: they are counted in the title.
    """
    import polars as pl

    last = frame.filter(pl.col("step") == pl.col("step").max().over("key")) if "step" in frame.columns else frame
    ranked = last.with_columns(rank=pl.col("eigenvalue").rank("ordinal", descending=True).over("key").cast(pl.Int64))
    drawn = ranked.filter(pl.col("eigenvalue") > 0)
    with style.styled():
        ax = style.axes(ax)
        values = lines(ax, drawn, "rank", "eigenvalue", by)
        style.log_axis(ax.xaxis, drawn["rank"].to_list())
        style.log_axis(ax.yaxis, drawn["eigenvalue"].to_list())
        if noise_floor is not None and noise_floor > 0:
            _mark_floor(ax, noise_floor)
        ax.set_xlabel(style.label("rank"))
        ax.set_ylabel(style.label("eigenvalue"))
        style.legend(ax, style.subject(style.label(by)) if by else "")
        style.title(ax, _finding(ranked, drawn) + shown_of(values, drawn, by))
        if not len(drawn):
            style.note(ax, "no positive eigenvalue")
    style.remember(ax, drawn)
    return ax


def _mark_floor(ax: Any, noise_floor: float) -> None:
    ax.axhline(noise_floor, color=style.INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ax.annotate(
        "noise floor",
        (0.02, noise_floor),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        fontsize=6.5,
        va="bottom",
    )


def _finding(ranked: "pl.DataFrame", drawn: "pl.DataFrame") -> str:
    import polars as pl

    if not len(drawn):
        return "No positive eigenvalue"
    share = style.median(drawn.group_by("key").agg(pl.col("eigenvalue").max() / pl.col("eigenvalue").sum())["eigenvalue"])
    count = len(ranked) - len(drawn)
    return f"The largest eigenvalue holds {share:.0%} of the trace" + (f"; {count} eigenvalues <= 0 not drawn" if count else "")
