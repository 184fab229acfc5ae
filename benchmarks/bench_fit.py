"""Fits of the Chinchilla law: one fit, a thousand resamples, and beside it, on the same tables, the usual grid of 4,500 starts.

The tables are synthetic, of known parameters; --table FILE N D LOSS adds one of your own.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import polars as pl

from benchmarks.measure import Bars, heading, parser, say, spread, table
from benchmarks.peers import chinchilla_grid
from orchestrator.fit import ESTIMATORS, Fit, fit

COLUMNS = {"n": "n", "d": "d", "loss": "loss"}
NUM_RESAMPLES = 1000


def tables(asked: argparse.Namespace) -> dict[str, pl.DataFrame]:
    """Name -> table with columns n, d and loss."""
    random = np.random.default_rng(0)
    found = {}
    for name, count, noise in (("240 runs, noise 0.6 % with heavy tails", 240, 0.006), ("50 runs, noise 1 %", 50, 0.01)):
        size = np.exp(random.uniform(np.log(5e7), np.log(1.6e10), count))
        data = np.exp(random.uniform(np.log(6e18), np.log(3e21), count)) / 6 / size
        loss = 1.8172 + 482.01 / size**0.3478 + 2085.43 / data**0.3658
        found[name] = pl.DataFrame({"n": size, "d": data, "loss": loss * np.exp(noise * random.standard_t(4, count))})
    if asked.table:
        file, *names = asked.table
        read = pl.read_parquet(file) if file.endswith(".parquet") else pl.read_csv(file, infer_schema_length=None)
        found[Path(file).stem] = read.select([pl.col(name).cast(pl.Float64).alias(to) for name, to in zip(names, COLUMNS, strict=True)])
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def fits(frame: pl.DataFrame, repetitions: int) -> dict[tuple[str, int], tuple[list[float], Fit]]:
    """(estimator, resamples) -> seconds of each repetition, and the fit; interleaved."""
    found: dict[tuple[str, int], tuple[list[float], Fit]] = {}
    for _ in range(repetitions):
        for estimator in ESTIMATORS:
            for number in (0, NUM_RESAMPLES):
                seconds, made = timed(lambda e=estimator, b=number: fit(frame, "chinchilla", estimator=e, num_bootstrap=b, **COLUMNS))
                found.setdefault((estimator, number), ([], made))[0].append(seconds)
    return found


def compare(name: str, frame: pl.DataFrame, asked: argparse.Namespace, bars: Bars) -> None:
    """One table: our fits, then the grid."""
    fit(frame, "chinchilla", **COLUMNS)  # imports scipy
    ours = fits(frame, asked.repetitions)
    rows = []
    for estimator in ESTIMATORS:
        one, many = ours[estimator, 0], ours[estimator, NUM_RESAMPLES]
        each = (statistics.median(many[0]) - statistics.median(one[0])) / NUM_RESAMPLES
        agree = f"{one[1].num_agree} of {one[1].num_starts}"
        rows.append([estimator, spread(one[0]), f"{1000 * each:.2f} ms", f"{one[1].objective:.9g}", agree])
        bars.below(f"{name}: one fit, {estimator}", statistics.median(one[0]), 0.2, "s")
        bars.below(f"{name}: a resample, {estimator}", 1000 * each, 10, "ms")
    table([name, "one fit", "a resample more", "objective", "starts that agree"], rows)
    mine, (times, found) = statistics.median(ours["hoffmann", 0][0]), ours["hoffmann", 0]
    for tight in (False, *([True] if asked.tight else [])):
        say(f"  the grid of {len(chinchilla_grid.STARTS[:: asked.every]):,} starts{', tight' * tight}")
        columns = (frame[column].to_numpy() for column in COLUMNS.values())
        seconds, grid = timed(lambda c=tuple(columns), t=tight: chinchilla_grid.fit(*c, tight=t, every=asked.every))
        best = float(np.nanmin(grid.objective_K))
        reached = float((grid.objective_K <= found.objective * (1 + 1e-4)).mean())
        what = "scaled, tight tolerances" if tight else "default tolerances"
        rows = [
            [
                f"L-BFGS-B, {what}",
                f"{seconds:.3g} s",
                f"{seconds / mine:,.0f} x",
                f"{best:.12g}",
                f"{best / found.objective - 1:+.1e}",
                f"{reached:.1%}",
            ]
        ]
        rows.append(["eigensweep, the same objective", spread(times), "1 x", f"{found.objective:.12g}", "", ""])
        table(["", "seconds", "of ours", "least objective", "above ours", "starts within 1e-4"], rows)
        bars.at_least(f"{name}: grid over one fit, {what}", seconds / mine, 100, "x")
        bars.below(f"{name}: our objective over the grid's, {what}", found.objective / best, 1 + 1e-9, "")


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    made = parser(__doc__ or "", repetitions=9)
    made.add_argument("--table", nargs=4, metavar=("FILE", "N", "D", "LOSS"), help="a Parquet or CSV file and its columns")
    made.add_argument("--tight", action="store_true", help="the grid once more with tight tolerances (a quarter of an hour)")
    made.add_argument("--every", type=int, default=1, help="only each so-many-th start of the grid, to try this script")
    asked = made.parse_args()
    heading("Fits of the Chinchilla law", asked.folder, ["numpy", "scipy"])
    bars = Bars()
    for name, frame in tables(asked).items():
        compare(name, frame, asked, bars)
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
