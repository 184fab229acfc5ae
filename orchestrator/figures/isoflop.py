"""Loss against model size at equal compute, with the minimum of each budget."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.isoflop import Isoflops


def isoflop(found: "Isoflops", *, x_label: str = "", y_label: str = "", ax: Any = None) -> Any:
    """One curve a budget: runs, interpolation, minimum with its interval. A hollow minimum stands outside the sizes that were run and says
    only on which side the true one is. The data have a column `kind`: run, interpolation, minimum."""
    check_budgets(found)
    rows = _rows(found)
    with style.styled():
        ax = style.axes(ax, style.TALL_INCHES)
        colour = style.colour_bar(ax, [one.c for one in found.curves], style.label(found.columns["c"]))
        for one in found.curves:
            shade = colour(one.c)
            ax.plot(one.line_n_M, one.line_loss_M, color=shade, linewidth=1.0)
            dots = ax.scatter(one.n_N, one.loss_N, s=9, color=[shade], linewidths=0, alpha=0.8, zorder=3)
            style.tips(ax, dots, [f"compute {one.c:.3g}, n {n:.4g}, loss {loss:.5g}" for n, loss in zip(one.n_N, one.loss_N, strict=True)])
            _minimum(ax, one, shade)
        sizes, losses = (rows.filter(rows["kind"] == "run")[found.columns[name]].to_list() for name in ("n", "loss"))
        style.log_axis(ax.xaxis, sizes)
        style.log_axis(ax.yaxis, losses)
        style.limit(ax.yaxis, losses)
        ax.set_xlabel(x_label or style.label(found.columns["n"]))
        ax.set_ylabel(y_label or style.label(found.columns["loss"]))
        _legend(ax, found)
        if found.fit is not None:
            equations.write(ax, found.fit, known={"slope": found.exponent})
        style.title(ax, _finding(found, style.subject(x_label or style.label(found.columns["n"]))))
    style.remember(ax, rows)
    return ax


def check_budgets(found: "Isoflops") -> None:
    """Raise ConfigError where there is no budget."""
    if not len(found.curves):
        raise ConfigError("no budget to draw: the table has no group of runs of equal compute; see isoflops()")


def _minimum(ax: Any, one: Any, shade: Any) -> None:
    """Filled where it is inside, hollow where it is an end; nothing where it is not known."""
    import math

    if not (math.isfinite(one.n_star) and math.isfinite(one.loss_star)):
        return
    if one.inside and math.isfinite(one.n_low):
        ax.plot([one.n_low, one.n_high], [one.loss_star] * 2, color=style.INK, linewidth=1.1, zorder=4)
    face = shade if one.inside else "white"
    dot = ax.scatter([one.n_star], [one.loss_star], s=34, marker="D", facecolors=[face], edgecolors=style.INK, linewidths=0.8, zorder=5)
    interval = f" [{one.n_low:.4g}, {one.n_high:.4g}]" if math.isfinite(one.n_low) else ""
    outside = "" if one.inside else ", at an end of the sizes"
    style.tips(ax, dot, [f"compute {one.c:.3g}: minimum at n {one.n_star:.4g}{interval}{outside}"])


def _legend(ax: Any, found: "Isoflops") -> None:
    from matplotlib.lines import Line2D

    look: Any = {"marker": "D", "linestyle": "none", "markersize": 4.5, "markeredgecolor": style.INK, "markeredgewidth": 0.8}
    handles = [Line2D([], [], markerfacecolor="#7a8793", label="minimum", **look)]
    if any(not one.inside for one in found.curves):
        handles.append(Line2D([], [], markerfacecolor="white", label="no minimum inside", **look))
    ax.legend(handles=handles, loc="lower left", handletextpad=0.2, borderaxespad=0.2, frameon=True, framealpha=0.85, edgecolor="none")


def _finding(found: "Isoflops", what: str) -> str:
    inside = sum(one.inside for one in found.curves)
    if not inside:
        return f"None of {len(found.curves)} budgets has its minimum within the sizes that were run"
    best = [one.n_star for one in found.curves if one.inside]
    left = f" ({len(found.curves) - inside} of {len(found.curves)} budgets have no minimum inside)" if inside < len(found.curves) else ""
    first, last = (style.number(float(f"{one:.2g}")) for one in (best[0], best[-1]))
    return f"The best {what} grow from {first} to {last} with compute{left}"


def _rows(found: "Isoflops") -> "pl.DataFrame":
    import polars as pl

    c, n, loss = (found.columns[name] for name in ("c", "n", "loss"))
    parts = []
    for one in found.curves:
        for kind, x, y in (("run", one.n_N, one.loss_N), ("interpolation", one.line_n_M, one.line_loss_M)):
            parts.append(pl.DataFrame({n: x, loss: y}).with_columns(pl.lit(one.c).alias(c), kind=pl.lit(kind)))
        star = pl.DataFrame({n: [one.n_star], loss: [one.loss_star], "n_low": [one.n_low], "n_high": [one.n_high], "inside": [one.inside]})
        parts.append(star.with_columns(pl.lit(one.c).alias(c), kind=pl.lit("minimum")))
    return pl.concat(parts, how="diagonal_relaxed").select(c, "kind", n, loss, "n_low", "n_high", "inside")
