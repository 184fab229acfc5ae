"""An observable of the kernel along training, a line a value of an axis."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import along_training, shown_of

if TYPE_CHECKING:
    import polars as pl


def trajectories(frame: "pl.DataFrame", *, name: str, by: str | None = None, ax: Any = None) -> Any:
    """`frame` has a row a step (columns step, value, `by`); a line is the median over seeds, its band their range. Values that are not
    finite or not positive have no logarithm: they are counted in the title."""
    import polars as pl

    finite = frame.filter(pl.col("value").is_finite())
    good = finite.filter(pl.col("value") > 0).rename({"value": name})
    with style.styled():
        ax = style.axes(ax)
        values = along_training(ax, good, name, by)
        left_out = f"; {count} values <= 0 not drawn" if (count := len(frame) - len(good)) else ""
        style.title(ax, _finding(good, name, by) + left_out + shown_of(values, good, by))
        if not len(good):
            style.note(ax, "no positive value")
    style.remember(ax, good)
    return ax


def _finding(frame: "pl.DataFrame", name: str, by: str | None) -> str:
    """The factor from the first step to the last: the least and the largest over the lines."""
    import polars as pl

    subject = style.subject(style.label(name))
    subject = subject[0].upper() + subject[1:]
    if not len(frame) or frame["step"].n_unique() < 2:
        return f"{subject} along training"
    factors = []
    for part in frame.partition_by(by) if by else [frame]:
        first, last = (style.median(part.filter(pl.col("step") == step)[name]) for step in (part["step"].min(), part["step"].max()))
        factors.append(last / first)
    low, high = min(factors), max(factors)
    text = f"x{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"x{low:.2g} to x{high:.2g}"
    return f"{subject} changes {text} over training"
