"""Test loss (or any scalar) against the training step."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import along_training, shown_of

if TYPE_CHECKING:
    import polars as pl


def learning_curves(frame: "pl.DataFrame", *, by: str | None = None, y: str = "test_loss", y_label: str = "", ax: Any = None) -> Any:
    """`frame` has a row a step (columns step, value, `by`); a line is the median over seeds, its band their range."""
    import polars as pl

    good = frame.filter(pl.col("value").is_finite() & (pl.col("value") > 0)).rename({"value": y})
    with style.styled():
        ax = style.axes(ax)
        values = along_training(ax, good, y, by, y_label)
        style.title(ax, _finding(good, y) + shown_of(values, good, by))
        if not len(good):
            style.note(ax, "no step with a finite, positive value")
    style.remember(ax, good)
    return ax


def _finding(frame: "pl.DataFrame", y: str) -> str:
    name = style.subject(style.label(y)).capitalize()
    if not len(frame):
        return f"{name} against training step"
    first, last = (style.median(frame.filter(frame["step"] == step)[y]) for step in (frame["step"].min(), frame["step"].max()))
    return f"{name} goes from {first:.3g} to {last:.3g} over training"
