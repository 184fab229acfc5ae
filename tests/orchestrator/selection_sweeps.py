"""Results of a data selection sweep that were never computed, with effects that were put in."""

import json

import numpy as np
import polars as pl

METHODS = ("rnd", "random", "pivoted_cholesky")


class PlantedSelection:
    """Trainings by method, set size and seed: `ratio[size]` is rnd's test loss over random's, before noise; more entropy, less loss."""

    name = "data_selection"
    axes = ("method", "set_size", "seed")

    def __init__(self, ratio: dict[int, float], *, num_seeds=10, noise=0.05, slope=-1.0, diverged=(), num_inits=1):
        random = np.random.default_rng(0)
        self.task_rows, self.scalar_rows = [], []
        for size in ratio:
            for seed in range(num_seeds):
                hard = random.normal(0, 0.3)
                for method in METHODS:
                    entropy = 0.7 * np.log(size) + 0.1 * (method == "rnd") + random.normal(0, 0.1)
                    for init in range(num_inits):
                        shift = slope * (entropy - 0.7 * np.log(size) - 0.1 * (method == "rnd"))
                        factor = {"rnd": ratio[size], "random": 1.0, "pivoted_cholesky": 0.9}[method]
                        loss = 20 / size * np.exp(hard + shift + random.normal(0, noise)) * factor
                        broken = (method, size, seed) in diverged
                        self.add(method, size, seed, init, np.nan if broken else loss, entropy, 100.0 + 50 * (method == "rnd"))

    def add(self, method, size, seed, init, loss, entropy, trace):
        key = f"{method}-{size}-{seed}-{init}"
        select = {
            "data": {"name": "digits"},
            "model": {"name": "mlp", "width": 8},
            "method": {"name": method, "by_class": False},
            "pool_size": 40,
        }
        select |= {"seed": seed, "seed_init": init, "seed_subset": None, "seed_noise": None}
        settings = json.dumps({"select": select, "set_size": size})
        self.task_rows.append({"key": key, "workload": "train_selected", "settings": settings})
        start = {"entropy_traced": entropy, "trace_traced": trace, "test_loss": 2.3, "label_entropy": 1.0}
        self.scalar_rows += [{"key": key, "step": 0, "name": name, "value": value} for name, value in start.items()]
        for step, factor in ((10, 0.5), (100, 1.0)):
            self.scalar_rows.append({"key": key, "step": step, "name": "test_loss", "value": factor * loss})

    def tasks(self):
        return pl.DataFrame(self.task_rows).lazy()

    def scalars(self):
        return pl.DataFrame(self.scalar_rows, schema_overrides={"value": pl.Float64}).with_columns(workload=pl.lit("train_selected")).lazy()


class PlantedChoices:
    """Selections of widths and seeds, of which `shared[width]` points of four are the same for rnd and pivoted Cholesky."""

    name = "data_selection_width"

    def __init__(self, shared: dict[int, int]):
        self.task_rows, self.point_rows = [], []
        for width, number in shared.items():
            own = {"pivoted_cholesky": [0, 1, 2, 3], "rnd": [*range(number), *range(10, 14 - number)], "random": [30, 31, 32, 33]}
            for method, index in own.items():
                self.add(method, width, index)

    def add(self, method, width, index):
        key = f"{method}-{width}"
        settings = {
            "data": {"name": "digits"},
            "model": {"name": "mlp", "width": width},
            "method": {"name": method, "by_class": False},
            "pool_size": 40,
        }
        settings |= {"seed": 0, "seed_init": None, "seed_subset": None, "seed_noise": None}
        self.task_rows.append({"key": key, "workload": "select", "settings": json.dumps(settings)})
        # a second order, which is not the set of four
        for order, points in enumerate((index, [20, 21, 22, 23])):
            self.point_rows += [
                {"key": key, "order": order, "rank": rank, "index": one, "is_set": (order == 0) == (rank == 3)}
                for rank, one in enumerate(points)
            ]

    def tasks(self):
        return pl.DataFrame(self.task_rows).lazy()

    def table(self, name):
        assert name == "select.points"
        return pl.DataFrame(self.point_rows).lazy()
