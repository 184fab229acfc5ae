"""A language model that others have trained: a Llama or a Pythia from a folder of Hugging Face's format."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.checkpoints import CheckpointFolder
from workers.errors import ConfigError
from workers.workload import Layer, Model

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Pretrained(Model):
    """The network and the weights of a folder (see `workers.checkpoints.load`), for every seed the same.

    `snapshot=init` of its training is the checkpoint itself, for kernels and positions. Tokens are those of its own tokeniser: the data
    set must have been made with it.
    """

    reads_tokens: ClassVar[bool] = True

    folder: CheckpointFolder = CheckpointFolder()

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps tokens (N, T) to logits (N, T, V) of the checkpoint's V tokens; on the CPU in float32."""
        from workers import checkpoints

        if len(input_shape) != 1:
            raise ConfigError(f"model=pretrained needs sequences of tokens (T,), got inputs of shape {input_shape}")
        module = checkpoints.load(self.folder.load(), num_places=input_shape[0])
        vocabulary = len(module.get_parameter("embedding.weight"))
        if num_outputs > vocabulary:
            raise ConfigError(
                f"the checkpoint knows {vocabulary} tokens and the data set has {num_outputs}; tokenise the data as for the checkpoint"
            )
        return module.train()

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...] | None:
        """Those of the network that config.json describes, with the checkpoint's own vocabulary."""
        from workers import checkpoints

        model, vocabulary = checkpoints.settings_of(self.folder.load())
        return model.layers(input_shape, vocabulary)
