"""The networks of the kernel benchmark, plain torch modules, with their inputs and the files that carry them to the peers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

# B samples; T tokens; D model width; H heads; E channels of a head; V vocabulary

VOCABULARY = 512
NUM_TOKENS = 64
NUM_HEADS = 4


class Residual(nn.Module):
    """Two 3x3 convolutions without norms, and a 1x1 convolution beside them where the shape changes."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        stride = 1 if num_inputs == num_outputs else 2
        self.first = nn.Conv2d(num_inputs, num_outputs, 3, stride, 1)
        self.second = nn.Conv2d(num_outputs, num_outputs, 3, 1, 1)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(num_inputs, num_outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, side, side) to the same or (B, 2 channels, side / 2, side / 2)."""
        return functional.relu(self.shortcut(x) + self.second(functional.relu(self.first(x))))


class ResNet(nn.Module):
    """8 layers of 16, 32 and 64 channels, without norms: 77,706 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.blocks = nn.Sequential(Residual(16, 16), Residual(16, 32), Residual(32, 64))
        self.readout = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) to (B, 10)."""
        return self.readout(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


class Block(nn.Module):
    """Attention with rotary positions and a SwiGLU, each behind an RMSNorm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        cosine, sine = rotary(NUM_TOKENS, width // NUM_HEADS)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x_BTD = x_BTD + self.attend(self.attention_norm(x_BTD))
        normed = self.mlp_norm(x_BTD)
        return x_BTD + self.down(functional.silu(self.gate(normed)) * self.up(normed))

    def attend(self, x_BTD: Tensor) -> Tensor:
        """Causal attention, (B, T, D)."""
        query, key, value = (part(x_BTD).unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(self.turned(query), self.turned(key), value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def turned(self, x_BHTE: Tensor) -> Tensor:
        """Each pair (i, i + E / 2) of channels turned by its position's angle."""
        left, right = x_BHTE.chunk(2, dim=-1)
        return torch.cat([left * self.cosine - right * self.sine, right * self.cosine + left * self.sine], dim=-1)


def rotary(num_tokens: int, num_channels: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position times frequency, each (T, E / 2)."""
    frequency = 10000.0 ** (-torch.arange(0, num_channels, 2, dtype=torch.float64) / num_channels)
    angle = torch.arange(num_tokens, dtype=torch.float64)[:, None] * frequency
    return angle.cos().to(torch.get_default_dtype()), angle.sin().to(torch.get_default_dtype())


class Llama(nn.Module):
    """4 blocks of width 128, 512 words, nothing tied: 922,752 parameters."""

    def __init__(self, width: int = 128, hidden: int = 344, depth: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.readout = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """(B, T) to (B, T, V)."""
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.readout(self.norm(x_BTD))


def build(network: str, *, seed: int = 0) -> nn.Module:
    """A network with its weights, a function of the seed."""
    torch.manual_seed(seed)
    if network == "mlp":
        model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    else:
        model = {"cnn": ResNet, "llama": Llama}[network]()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            gain = 1.0 if network == "llama" else math.sqrt(2.0)
            scale = 1.0 if "embedding" in name else gain / math.sqrt(weight[0].numel())
            nn.init.normal_(weight, std=scale)
        elif name.endswith("bias"):
            nn.init.normal_(weight, std=0.1)
    return model


def inputs(network: str, num_samples: int) -> np.ndarray:
    """Normal images, (B, 784) or (B, 3, 32, 32), or tokens (B, T + 1), of which the last T are the targets."""
    random = np.random.default_rng(1)
    if network == "llama":
        return random.integers(0, VOCABULARY, (num_samples, NUM_TOKENS + 1))
    shape = {"mlp": (784,), "cnn": (3, 32, 32)}[network]
    return random.standard_normal((num_samples, *shape)).astype(np.float32)


def export(network: str, folder: Path) -> Path:
    """The weights, by their torch names, in a file that needs no torch to read."""
    file = folder / f"{network}.npz"
    np.savez(file, **{name: value.detach().numpy() for name, value in build(network).named_parameters()})
    return file


def load(case: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """The model with the case's weights, and the inputs, in the case's dtype."""
    dtype = getattr(torch, case.get("dtype", "float32"))
    torch.set_default_dtype(dtype)
    model = build(case["network"])
    with np.load(case["weights"]) as weights, torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.from_numpy(weights[name]))
    x = torch.from_numpy(np.load(case["inputs"]))
    return model, x.to(dtype) if x.is_floating_point() else x


def token_losses(outputs_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy of each token, (B, T)."""
    return functional.cross_entropy(outputs_BTV.flatten(0, -2), targets_BT.flatten(), reduction="none").view(targets_BT.shape)
