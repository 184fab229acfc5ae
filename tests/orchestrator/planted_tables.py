"""Tables of runs with planted laws: one of model and data size, one of width, and isoFLOP budgets."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

E, A, B, ALPHA, BETA = 1.7, 480.0, 2085.0, 0.35, 0.37


def planted_loss(n: Any, d: Any) -> Any:
    """The Chinchilla form with round numbers."""
    return E + A / n**ALPHA + B / d**BETA


def chinchilla_runs(*, noise: float = 0.004, draw: int = 0, outlier: bool = False) -> pl.DataFrame:
    """35 runs: 7 sizes by 5 token multipliers."""
    random = np.random.default_rng(draw)
    n, m = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 7), np.geomspace(3, 200, 5)))
    loss = planted_loss(n, n * m) * np.exp(noise * random.standard_normal(len(n)))
    if outlier:
        loss[3] *= 1.2
    return pl.DataFrame({"num_params": n, "tokens": n * m, "loss": loss})


def width_runs(*, noise: float = 0.01) -> pl.DataFrame:
    """3 seeds of 7 widths: a loss that falls and a trace that rises."""
    random = np.random.default_rng(1)
    width, seed = np.repeat([8, 16, 32, 64, 128, 256, 512], 3), np.tile([0, 1, 2], 7)
    noisy = np.exp(noise * random.standard_normal((2, len(width))))
    loss, trace = (0.3 + 0.4 * (width / 64) ** -0.5) * noisy[0], 3.0 * width**0.7 * noisy[1]
    return pl.DataFrame({"width": width, "seed": seed, "loss": loss, "trace": trace})


@dataclass(frozen=True)
class PlantedBudget:
    """One budget, as `orchestrator.isoflop` describes it."""

    c: float
    n_N: Any
    loss_N: Any
    n_star: float
    loss_star: float
    inside: bool = True
    reason: str = ""

    @property
    def n_low(self) -> float:
        return self.n_star / 1.1 if self.inside else float("nan")

    @property
    def n_high(self) -> float:
        return self.n_star * 1.1 if self.inside else float("nan")

    @property
    def line_n_M(self) -> Any:
        return np.geomspace(self.n_N[0], self.n_N[-1], 50)

    @property
    def line_loss_M(self) -> Any:
        return self.loss_star * np.exp(0.02 * np.log(self.line_n_M / self.n_star) ** 2)


@dataclass(frozen=True)
class PlantedIsoflops:
    """n* = 0.1 c^0.5; the last budget has its minimum outside where `flagged`."""

    curves: list[PlantedBudget]
    fit: Any
    exponent: Any
    method: str = "akima"
    noise: float = 0.0
    columns: dict[str, str] = field(default_factory=lambda: {"c": "flops", "n": "num_params", "loss": "loss"})
    warnings: list[str] = field(default_factory=list)


def planted_isoflops(*, flagged: bool = False, line: bool = True) -> PlantedIsoflops:
    """Five budgets of seven sizes."""
    from orchestrator.fit import Parameter, fit

    curves = []
    for c in np.geomspace(1e17, 1e19, 5):
        best, height = 0.1 * c**0.5, 3.0 * (c / 1e18) ** -0.05
        n = best * np.geomspace(0.2, 5, 7)
        curves.append(PlantedBudget(c, n, height * np.exp(0.02 * np.log(n / best) ** 2), best, height))
    if flagged:
        last = curves.pop()
        curves.append(
            PlantedBudget(last.c, last.n_N[:3], last.loss_N[:3], float(last.n_N[2]), float(last.loss_N[2]), inside=False, reason="end")
        )
    good = [one for one in curves if one.inside]
    table = {"flops": [one.c for one in good], "num_params": [one.n_star for one in good]}
    found = fit(table, "loglog", x="flops", y="num_params", num_bootstrap=0) if line else None
    nan = float("nan")
    exponent = Parameter(value=0.5, low=0.48, high=0.52) if line else Parameter(value=nan, low=nan, high=nan)
    return PlantedIsoflops(curves, found, exponent)
