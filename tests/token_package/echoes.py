"""Sequences that a language model learns in seconds: a user's own data set of tokens."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workers.workload import Data, setting

if TYPE_CHECKING:
    from workers.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Echoes(Data):
    """Random tokens of which each comes again `lag` places later, in pieces of `num_tokens`."""

    num_tokens: int = setting(8, low=2, help="of a sequence")
    vocabulary: int = setting(11, low=2)
    lag: int = setting(3, low=1)

    def files(self) -> list[Path]:
        """This file makes all."""
        return [Path(__file__)]

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of 96 and 32 sequences."""
        return (96, self.num_tokens), (32, self.num_tokens)

    def load(self) -> "Samples":
        """Tokens with the next ones as targets."""
        return _made(self)


@functools.cache
def _made(settings: Echoes) -> "Samples":
    import numpy as np

    from workers.samples import Samples

    random = np.random.default_rng(0).integers(settings.vocabulary, size=(128, settings.lag))
    tokens = np.tile(random, settings.num_tokens)[:, : settings.num_tokens + 1].astype(np.int32)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    return Samples(
        train_inputs=inputs[:96],
        train_targets=targets[:96],
        test_inputs=inputs[96:],
        test_targets=targets[96:],
        num_outputs=settings.vocabulary,
        sample_name="sequences",
        unit_name="tokens",
    )
