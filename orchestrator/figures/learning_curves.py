"""Test loss (or any scalar) against the training step."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import lines, shown_of

if TYPE_CHECKING:
    import polars as pl


def learning_curves(frame: "pl.DataFrame", *, by: str | None = None, y: str = "test_loss", y_label: str = "", ax: Any = None) -> Any:
    """`frame` has a row a step (columns step, value, `by`); a line is the median over seeds, its band their range."""
    import polars as pl

    good = frame.filter(pl.col("value").is_finite() & (pl.col("value") > 0)).rename({"value": y})
    with style.styled():
        ax = style.axes(ax)
        values = lines(ax, good, "step", y, by)
        step_axis(ax, good["step"].to_list())
        style.log_axis(ax.yaxis, good[y].to_list())
        ax.set_xlabel(style.label("step"))
        ax.set_ylabel(y_label or style.label(y))
        style.legend(ax, style.subject(style.label(by)) if by else "")
        style.title(ax, _finding(good, y) + shown_of(values, good, by))
        if not len(good):
            style.note(ax, "no step with a finite, positive value")
    style.remember(ax, good)
    return ax


def step_axis(ax: Any, steps: list[int]) -> None:
    """Logarithmic, with room for step 0."""
    positive = [step for step in steps if step > 0]
    style.log_axis(ax.xaxis, positive)
    if positive and min(steps) == 0:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        ticks = [0.0, *(tick for tick in ax.xaxis.get_major_locator().locs if min(positive) <= tick <= max(positive))]
        ax.set_xscale("symlog", linthresh=min(positive), linscale=0.4)
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
        ax.set_xlim(0, max(positive) * 1.15)


def _finding(frame: "pl.DataFrame", y: str) -> str:
    name = style.subject(style.label(y)).capitalize()
    if not len(frame):
        return f"{name} against training step"
    first, last = (style.median(frame.filter(frame["step"] == step)[y]) for step in (frame["step"].min(), frame["step"].max()))
    return f"{name} goes from {first:.3g} to {last:.3g} over training"
