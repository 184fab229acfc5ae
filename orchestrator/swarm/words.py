"""Numbers of swarm studies in words, and what a claim of a paper is worth by them."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import CONFIDENCE, Correlation, Estimate
from orchestrator.study_tables import listed
from orchestrator.swarm.strategies import NAMES, STRATEGIES

if TYPE_CHECKING:
    import polars as pl

__all__ = ["STANDING", "between", "cell", "counted", "estimated", "kelvin", "p_said", "rows", "some", "standing", "trend_said"]

STANDING = {1: "agrees with", -1: "contradicts", 0: "neither shows nor contradicts"}


def standing(estimate: float, p_value: float, *, sign: int = 1) -> str:
    """Of a claim that a difference has this sign: `agrees with`, `contradicts`, or neither where p is not below 0.05."""
    if not p_value < 1 - CONFIDENCE:
        return STANDING[0]
    return STANDING[1 if estimate * sign > 0 else -1]


def some(number: int, what: str) -> str:
    """`1 training`, `2 trainings`."""
    return f"{number} {what if number == 1 else 'radii' if what == 'radius' else what + 's'}"


def kelvin(temperature: float) -> str:
    """`300 K`."""
    return f"{temperature:g} K"


def between(low: float, high: float, form: str = ".3g") -> str:
    """`[1, 2]`; `(no interval)` where it is not known."""
    return f"[{low:{form}}, {high:{form}}]" if math.isfinite(low) and math.isfinite(high) else "(no interval)"


def estimated(one: Estimate, form: str = ".3g") -> str:
    """`1.5 [1.2, 1.8]`."""
    return f"{one.value:{form}} {between(*one.interval, form)}"


def p_said(p_value: float) -> str:
    """`p = 0.012`; `not tested` where there is none."""
    return "not tested" if math.isnan(p_value) else f"p = {p_value:.2g}" if p_value >= 1e-4 else "p < 0.0001"


def trend_said(one: Correlation, of: str, against: str) -> str:
    """A rank correlation as a sentence without its stop."""
    if math.isnan(one.value):
        return f"{of} cannot be set against {against}: too few trainings"
    ways = {"positive": "rises", "negative": "falls", "undecided": "has no clear trend"}
    interval = f"{one.value:+.2f} {between(one.low, one.high, '+.2f')}"
    return f"{of} {ways[one.verdict]} with {against} (rank correlation {interval} over {one.num_points} trainings)"


def counted(counts: Mapping[str, int]) -> str:
    """`28 Run and Rotate and 5 Brownian Piloting`, of strategies that there are."""
    found = [f"{counts[name]} {NAMES[name]}" for name in STRATEGIES if counts.get(name)]
    return listed(found) if found else "none"


def rows(table: "pl.DataFrame", headings: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Of a table for the page; `headings`: of columns that are called otherwise there."""
    names = headings or {}
    return [{names.get(name, name.replace("_", " ")): cell(value) for name, value in row.items()} for row in table.rows(named=True)]


def cell(value: Any) -> Any:
    """Three digits, which sort by what they are; a dash for what is not there."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ("–", math.nan)
    return (f"{value:.3g}", value) if isinstance(value, float) else value
