"""Compute-optimal sizes from training curves: at each compute the run of least loss, and its size (approach 1 of Hoffmann et al. 2022)."""

# R runs, G values of compute

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.fit import Fit, fit
from orchestrator.fitting.table import read
from orchestrator.laws.law import Array
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Envelope", "envelope"]

# the fewest computes, of those where a run is the best, that a line goes through
LEAST_POINTS = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """At each compute `c_G` the least loss of the curves there, and the size of its run.

    `inside_G`: neither the smallest nor the largest size, whose optimum may be beyond. `size` and `loss`: the power laws of n* and of
    the loss along it, None where too few are inside.
    """

    c_G: Array
    n_G: Array
    loss_G: Array
    inside_G: Array
    size: Fit | None
    loss: Fit | None
    columns: dict[str, str]
    warnings: Sequence[str]

    def frame(self) -> "pl.DataFrame":
        """Its points, a row a compute."""
        import polars as pl

        columns = {self.columns["c"]: self.c_G, self.columns["n"]: self.n_G, self.columns["loss"]: self.loss_G}
        return pl.DataFrame({**columns, "inside": self.inside_G})


def envelope(table: Any, *, run: str, c: str, n: str, loss: str, num: int = 1500, where: str | None = None) -> Envelope:
    """From rows along training: `run` tells the curves apart, `c` is the compute so far, `n` the size, `loss` there (smooth it before).

    Losses are interpolated in ln c between a run's own rows, never beyond them. `num` computes, log-spaced.
    """
    import numpy as np

    runs = read(table, [c, n], loss, group=run, where=where)
    if num < LEAST_POINTS:
        raise ConfigError(f"num must be at least {LEAST_POINTS}, got {num}; 1500 is usual")
    labels = np.unique(runs.cluster_N)
    if len(labels) < 2:
        raise ConfigError(
            f"an envelope needs the curves of two runs or more, {run} has {len(labels)}: name the column that tells runs apart"
        )
    c_G = np.geomspace(runs.x_NV[:, 0].min(), runs.x_NV[:, 0].max(), num)
    loss_RG, size_R = np.full((len(labels), num), math.inf), np.empty(len(labels))
    for row, label in enumerate(labels):
        own = runs.cluster_N == label
        order = np.argsort(runs.x_NV[own, 0])
        u_N, v_N = np.log(runs.x_NV[own, 0][order]), np.log(runs.y_N[own][order])
        loss_RG[row] = np.exp(np.interp(np.log(c_G), u_N, v_N, left=math.inf, right=math.inf))
        size_R[row] = runs.x_NV[own, 1][0]
    best_G = loss_RG.argmin(axis=0)
    known_G = np.isfinite(loss_RG.min(axis=0))
    n_G = size_R[best_G]
    inside_G = known_G & (n_G > size_R.min()) & (n_G < size_R.max())
    size, along, warnings = _lines(c_G, n_G, loss_RG.min(axis=0), inside_G, {"c": c, "n": n, "loss": loss})
    return Envelope(
        c_G=c_G[known_G],
        n_G=n_G[known_G],
        loss_G=loss_RG.min(axis=0)[known_G],
        inside_G=inside_G[known_G],
        size=size,
        loss=along,
        columns={"run": run, "c": c, "n": n, "loss": loss},
        warnings=warnings,
    )


def _lines(c_G: Array, n_G: Array, loss_G: Array, inside_G: Array, names: dict[str, str]) -> tuple[Fit | None, Fit | None, list[str]]:
    """Power laws along the envelope; its points share runs, so that they have no intervals of their own."""
    import numpy as np

    sizes = len(np.unique(n_G[inside_G]))
    if inside_G.sum() < LEAST_POINTS or sizes < 2:
        return None, None, [f"no power law: {sizes} sizes are the best anywhere but at the ends of the sizes that were run; run more sizes"]
    table = {names["c"]: c_G[inside_G], names["n"]: n_G[inside_G], names["loss"]: loss_G[inside_G]}
    options: dict[str, Any] = {"x": names["c"], "estimator": "least_squares", "group": None, "num_bootstrap": 0}
    warnings = [f"{sizes} sizes make the steps of n*: a line through so few says little of its own error"] if sizes < 4 else []
    return fit(table, "loglog", y=names["n"], **options), fit(table, "power", y=names["loss"], **options), warnings
