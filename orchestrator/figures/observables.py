"""One observable of the kernel (trace, entropy, effective rank) against the axis of the sweep."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import lines, shown_of

if TYPE_CHECKING:
    import polars as pl


def observables(frame: "pl.DataFrame", *, x: str, name: str, by: str | None = None, title: str = "", ax: Any = None) -> Any:
    """`frame` has a row a task (columns `x`, value, `by`); dots are tasks, a line is the median over seeds."""
    import polars as pl

    good = frame.filter(pl.col("value").is_finite() & pl.col(x).is_finite()).rename({"value": name})
    with style.styled():
        ax = style.axes(ax)
        values = lines(ax, good, x, name, by, dots=True)
        style.log_axis(ax.xaxis, good[x].to_list(), exact=True)
        measured: list[float] = good[name].to_list()
        if measured and min(measured) > 0 and max(measured) / min(measured) > 3:
            style.log_axis(ax.yaxis, measured)
        ax.set_xlabel(style.label(x))
        ax.set_ylabel(style.label(name))
        style.legend(ax, style.subject(style.label(by)) if by else "", below=True)
        style.title(ax, (title or _finding(good, x, name)) + shown_of(values, good, by))
        if not len(good):
            style.note(ax, "no task with a finite value")
    style.remember(ax, good)
    return ax


def _finding(frame: "pl.DataFrame", x: str, name: str) -> str:
    """The change of the median from the smallest to the largest x."""
    subject, axis = style.subject(style.label(name)), style.subject(style.label(x))
    subject = subject[0].upper() + subject[1:]
    values: list[float] = frame[x].unique().sort().to_list()
    if len(values) < 2:
        return f"{subject} against {axis}"
    first, last = (style.median(frame.filter(frame[x] == end)[name]) for end in (values[0], values[-1]))
    change = last / first if first else float("nan")
    if abs(change - 1) < 0.05:
        return f"{subject} hardly depends on {axis}"
    return (
        f"{subject} {'grows' if change > 1 else 'falls'} x{change:.2g} from {axis} {style.number(values[0])} to {style.number(values[-1])}"
    )
