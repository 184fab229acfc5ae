"""Gaussian features whose covariance falls as a power of the mode, and linear targets whose energy falls as another."""

import functools
from dataclasses import dataclass
from pathlib import Path

from workers.errors import ConfigError
from workers.reading.random_numbers import Stream
from workers.samples import Samples
from workers.workload import Data, setting

# N samples; M modes


@dataclass(frozen=True, kw_only=True)
class PowerLaw(Data):
    """Features x_k of variance lambda_k = k^-a, targets f = sum_k w_k x_k of energy E[(w_k x_k)^2] = k^-b in mode k = 1 .. M, for loss=mse.

    Closed forms (D5), for a model that is linear in x from zero, such as `model=mlp model.depth=0`, under gradient flow in a time t on the
    population's mean loss: mode k has the residual energy k^-b exp(-2 t k^-a), so the loss is half its sum and falls as t^-beta,
    beta = (b - 1) / a, where 1 << t << M^a; and chi_pos(t) = beta / (2 t sum_k lambda_k) there. Gradient descent has t = steps x rate.
    Finite sets add noise: a test loss stops at about M / N of it. With `num_features` P a model sees the first P features alone, whose
    kernel has the eigenvalues k^-a, k <= P, and none for the rest of the target.
    """

    num_modes: int = setting(256, low=1, help="M")
    num_features: int | None = setting(None, low=1, help="P: the first features, which are inputs; null: all")
    feature_exponent: float = setting(1.5, low=0.0, help="a: the variance of feature k is k^-a")
    target_exponent: float = setting(1.8, low=0.0, help="b: the target's energy in mode k is k^-b")
    noise: float = setting(0.0, low=0.0, help="standard deviation of the noise on training targets; test targets have none")
    num_train: int = setting(4096, low=1)
    num_test: int = setting(1024, low=1)
    seed: int = setting(0, low=0, help="of signs, features and noise; fewer samples are the beginning of more")

    def check(self) -> None:
        """Features are of modes that there are."""
        if self.num_features is not None and self.num_features > self.num_modes:
            raise ConfigError(f"num_features must be at most num_modes={self.num_modes}, got {self.num_features}")

    def files(self) -> list[Path]:
        """None: it is made from its settings."""
        return []

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(N, M), or (N, P)."""
        seen = self.num_features or self.num_modes
        return (self.num_train, seen), (self.num_test, seen)

    def held_bytes(self) -> int:
        """While they are made: all modes in double precision, beside what is kept."""
        return super().held_bytes() + 8 * (self.num_train + self.num_test) * self.num_modes

    def load(self) -> Samples:
        """Features (N, M), or (N, P), and targets (N, 1) in float32; kept in memory by the process."""
        return _made(self)


@functools.lru_cache(maxsize=2)
def _made(data: PowerLaw) -> Samples:
    import numpy as np

    mode_M = np.arange(1, data.num_modes + 1, dtype=np.float64)
    deviation_M = mode_M ** (-0.5 * data.feature_exponent)
    weight_M = Stream(data.seed, "target").signs(data.num_modes) * mode_M ** (0.5 * (data.feature_exponent - data.target_exponent))
    splits = []
    for role, num in (("train", data.num_train), ("test", data.num_test)):
        features_NM = Stream(data.seed, role).normal(num, data.num_modes)
        features_NM *= deviation_M
        splits.append((features_NM[:, : data.num_features].astype(np.float32), features_NM @ weight_M))
    (train_NM, train_N), (test_NM, test_N) = splits
    train_N += data.noise * Stream(data.seed, "noise").normal(data.num_train)
    return Samples(
        train_inputs=train_NM,
        train_targets=train_N[:, None].astype(np.float32),
        test_inputs=test_NM,
        test_targets=test_N[:, None].astype(np.float32),
        num_outputs=1,
        sample_name="samples",
        unit_name="samples",
    )
