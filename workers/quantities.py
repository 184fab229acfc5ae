"""What a training counts of itself before it is run: parameters, and units of the loss in a sample and in a step."""

import functools
from typing import TYPE_CHECKING, Any

from workers.samples import num_taken

if TYPE_CHECKING:
    from workers.samples import Samples
    from workers.workload import Data, Model

# name -> the settings of a training that it follows from
QUANTITIES = {
    "num_params": ("data", "model"),
    "num_params_non_embedding": ("data", "model"),
    "units_per_sample": ("data",),
    "units_per_step": ("batch_size", "data", "train_size"),
    "samples_per_step": ("batch_size", "data", "train_size"),
    "num_train_samples": ("data", "train_size"),
}


def quantity(name: str, *, data: "Data", **settings: Any) -> float:
    """One of QUANTITIES, as the rows of the training will say (D7); torch is imported where parameters are counted alone."""
    samples: Samples = data.load()
    if name.startswith("num_params"):
        count, non_embedding = _num_params(settings["model"], samples.input_shape, samples.num_outputs)
        return non_embedding if name.endswith("non_embedding") else count
    if name == "units_per_sample":
        return samples.units_per_sample
    taken = num_taken("train_size", settings["train_size"], len(samples.train_targets))
    if name == "num_train_samples":
        return taken
    at_once = min(int(settings["batch_size"]), taken)
    return at_once * (samples.units_per_sample if name == "units_per_step" else 1)


@functools.cache
def _num_params(model: "Model", input_shape: tuple[int, ...], num_outputs: int) -> tuple[int, int]:
    """Of the network on the meta device: no memory, no draws."""
    import torch

    from workers.layers import num_params

    with torch.device("meta"):
        return num_params(model.build(input_shape, num_outputs, 0))
