"""A table of runs with a planted law loss = E + A / n^alpha + B / d^beta and log-normal noise."""

import numpy as np
import polars as pl

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.35, "B": 1500.0, "beta": 0.36}


def runs(num_rows: int = 90, *, noise: float = 0.004, draw: int = 0) -> pl.DataFrame:
    """Columns num_params, tokens, val_loss; sizes are spread over three decades each, independently."""
    random = np.random.default_rng(draw)
    n, d = (10 ** random.uniform(low, low + 3, num_rows) for low in (7, 8.5))
    loss = TRUTH["E"] + TRUTH["A"] / n ** TRUTH["alpha"] + TRUTH["B"] / d ** TRUTH["beta"]
    return pl.DataFrame({"num_params": n, "tokens": d, "val_loss": loss * np.exp(noise * random.standard_normal(num_rows))})
