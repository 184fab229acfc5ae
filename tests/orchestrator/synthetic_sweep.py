"""A finished sweep made of planted laws: the frames that `load` gives, without a store."""

import numpy as np
import polars as pl

WIDTHS = (16, 32, 64, 128, 256, 512)
EXPONENTS = {"mlp": 0.35, "cnn": 0.55}


class SyntheticResults:
    """Offers what the report takes from results: name, axes, and lazy frames."""

    name = "w1"

    def __init__(self, *, models=("mlp", "cnn"), train_sizes=(1000, 10000), num_seeds=3, widths=WIDTHS, failed=0, num_eigenvalues=60):
        self.axes = ["width", "train_size", "seed"] + (["model"] if len(models) > 1 else [])
        scalars, spectra, tasks = [], [], []
        random = np.random.default_rng(0)
        for model in models:
            for train_size in train_sizes:
                for width in widths:
                    for seed in range(num_seeds):
                        axes = {"width": width, "train_size": train_size, "seed": seed} | ({"model": model} if len(models) > 1 else {})
                        broken = len(tasks) < 3 * failed
                        tasks += _tasks(axes, broken)
                        if not broken:
                            rows, values = _results(axes, model, random, num_eigenvalues)
                            scalars += rows
                            spectra += values
        self._scalars, self._spectra, self._tasks = (pl.DataFrame(rows, infer_schema_length=None) for rows in (scalars, spectra, tasks))

    def without_spectra(self, *, without_curves=False):
        """The same with fewer figures, for tests of other things."""
        self._spectra = self._spectra.clear()
        if without_curves:
            self._scalars = self._scalars.filter(pl.col("step").is_in([0, 512]))
        return self

    def scalars(self):
        return self._scalars.lazy()

    def spectra(self):
        return self._spectra.lazy()

    def tasks(self):
        return self._tasks.lazy()


def _key(axes, workload):
    return f"{workload}-{'-'.join(str(value) for value in axes.values())}"


def _tasks(axes, broken):
    states = ("failed", "blocked", "blocked") if broken else ("completed",) * 3
    return [
        {
            "key": _key(axes, workload),
            "workload": workload,
            "state": state,
            "code": None if broken else "ab12cd34ef56",
            "settings": '{"loss": "cross_entropy"}',
            **axes,
        }
        for workload, state in zip(("train", "gram", "spectrum"), states, strict=True)
    ]


def _results(axes, model, random, num_eigenvalues):
    loss = 0.32 + 0.5 * (axes["train_size"] / 1000) ** -0.3 * (axes["width"] / 64) ** -EXPONENTS[model]
    noise = random.normal(0, 0.008)
    common = {"code": "ab12cd34ef56", "status": "ok", **axes}
    train = {"key": _key(axes, "train"), "workload": "train", **common}
    rows = []
    for step in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        value = float(loss * np.exp(noise) + (2.3 - loss) / (1 + step / 12))
        if step == 512:
            value = float(loss * np.exp(noise))
        rows += [
            {**train, "step": step, "name": "test_loss", "value": value},
            {**train, "step": step, "name": "test_accuracy", "value": 1 - value / 2.5},
        ]
    rows.append({**train, "step": 0, "name": "num_params", "value": float(784 * axes["width"] + axes["width"] ** 2)})
    spectrum = {"key": _key(axes, "spectrum"), "workload": "spectrum", **common, "step": 512}
    eigenvalues = np.sort(
        axes["width"] ** 0.9 * np.arange(1, num_eigenvalues + 1) ** -1.4 * np.exp(random.normal(0, 0.05, num_eigenvalues))
    )
    share = eigenvalues / eigenvalues.sum()
    entropy = float(-(share * np.log(share)).sum())
    for name, value in {"trace": eigenvalues.sum(), "entropy": entropy, "effective_rank": np.exp(entropy), "noise_floor": 1e-3}.items():
        rows.append({**spectrum, "name": name, "value": float(value)})
    values = [{**spectrum, "index": i, "eigenvalue": float(value), "weight": 1 / num_eigenvalues} for i, value in enumerate(eigenvalues)]
    return rows, values
