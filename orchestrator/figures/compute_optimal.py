"""The least loss that a law allows for a compute, and the size where it stands."""

# M values of compute, G sizes tried for each

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.fit import Fit

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
_SIZES = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Frontier:
    """Compute, optimal size and data, and the loss there with its band (NaN where the fit has none); each (M,)."""

    c_M: Any
    n_M: Any
    d_M: Any
    loss_M: Any
    low_M: Any
    high_M: Any


def has_sizes(fit: "Fit") -> bool:
    """Whether the law is one of parameters n and data d."""
    return {"n", "d"} <= set(fit.columns) <= {"n", "d", "u"}


def check_sizes(fit: "Fit", what: str) -> None:
    """Raise ConfigError where the law has no n and d."""
    if not has_sizes(fit):
        raise ConfigError(
            f"{what} needs a law of parameters n and data d, such as chinchilla; {fit.law.plugin_name()} has {', '.join(fit.columns)}"
        )


def point(fit: "Fit", n: Any, d: Any) -> dict[str, Any]:
    """The variables of the law at `n` and `d`, with data that are not repeated."""
    return {"n": n, "d": d, **({"u": d} if "u" in fit.columns else {})}


def frontier(fit: "Fit", c_M: Any, *, flops: float = FLOPS_PER_PARAMETER_AND_TOKEN) -> Frontier:
    """The minimum over n of the law at C = flops n d. Its band is that of the law at the minimum: to first order the minimum's shift adds
    nothing. NaN where the law has no minimum between n = 1 and d = 1."""
    import numpy as np

    check_sizes(fit, "the compute-optimal frontier")
    c_M = np.atleast_1d(np.asarray(c_M, dtype=float))
    share_G = np.linspace(0.0, 1.0, _SIZES)
    width_M = np.log(c_M / flops)
    u_MG = width_M[:, None] * share_G
    loss_MG = fit.predict(**point(fit, np.exp(u_MG).ravel(), np.exp(width_M[:, None] - u_MG).ravel())).reshape(u_MG.shape)
    best_M = np.clip(loss_MG.argmin(axis=1), 1, _SIZES - 2)
    left, middle, right = (np.log(loss_MG[np.arange(len(c_M)), best_M + step]) for step in (-1, 0, 1))
    bend_M = left - 2 * middle + right
    inside = (left > middle) & (right > middle)
    shift_M = np.where(inside, 0.5 * (left - right) / np.where(bend_M > 0, bend_M, 1.0), np.nan)
    n_M = np.exp(width_M * (best_M + shift_M) / (_SIZES - 1))
    d_M = c_M / (flops * n_M)
    low_M, high_M = fit.band(**point(fit, n_M, d_M))
    return Frontier(c_M=c_M, n_M=n_M, d_M=d_M, loss_M=fit.predict(**point(fit, n_M, d_M)), low_M=low_M, high_M=high_M)


def envelope(x_N: Any, y_N: Any) -> Any:
    """(N,) whether a run has the least y of all runs with no larger x."""
    import numpy as np

    order = np.lexsort((y_N, x_N))
    least = np.minimum.accumulate(y_N[order])
    new = np.r_[True, least[1:] < least[:-1]]
    found = np.zeros(len(order), dtype=bool)
    found[order] = new
    return found
