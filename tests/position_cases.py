"""Small networks and batches, and all quantities of the decomposition by one backward pass per unit and output in float64."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.entk.position_loss import UnitLoss

# N units; C outputs; P parameters


class Tied(nn.Module):
    """Tokens (B, S) to logits (B, S, V): attention, a norm, and an embedding that is also the readout."""

    def __init__(self, vocabulary: int = 5, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm = nn.RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        values = self.embedding(tokens_BS)
        mixed = functional.scaled_dot_product_attention(self.query(values), values, values, is_causal=True)
        return self.norm(values + mixed) @ self.embedding.weight.T


class Recurrent(nn.Module):
    """Tokens to logits by a recurrent layer, which has no rule of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer, self.readout = nn.Embedding(5, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        return self.readout(self.layer(self.embedding(tokens_BS))[0])


class Encoder(nn.Module):
    """Tokens to logits by torch's encoder layer, which takes another path where no gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.readout = nn.Embedding(5, 4), nn.Linear(4, 5)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        return self.readout(self.layer(self.embedding(tokens_BS)))


class Shared(nn.Module):
    """Images to logits by a grouped convolution that is applied twice, behind a frozen batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.again, self.readout = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(images)))
        hidden = hidden + self.again(torch.relu(hidden + self.again(hidden)))
        return self.readout(hidden.mean((2, 3)))


def mlp(num_outputs: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, num_outputs)).double()


def cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 3, 3, padding=1), nn.GELU(), nn.GroupNorm(1, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    return nn.Sequential(*layers).double()


def tied(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Tied().double()


def batch_of(model: nn.Module, num_clusters: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs and class indices that fit the model."""
    draw = torch.Generator().manual_seed(seed)
    if isinstance(model, Tied | Recurrent | Encoder):
        tokens = torch.randint(5, (num_clusters, 5), generator=draw)
        return tokens[:, :-1], tokens[:, 1:].contiguous()
    shape = (1, 4, 4) if any(isinstance(module, nn.Conv2d) for module in model.modules()) else (5,)
    return torch.randn(num_clusters, *shape, dtype=torch.float64, generator=draw), torch.randint(3, (num_clusters,), generator=draw)


def half_squared(outputs_NC: Tensor, labels_N: Tensor) -> Tensor:
    targets_NC = functional.one_hot(labels_N, outputs_NC.shape[-1])
    return 0.5 * (outputs_NC - targets_NC).square().sum(-1)


def binary(outputs_NC: Tensor, labels_N: Tensor) -> Tensor:
    targets_NC = functional.one_hot(labels_N, outputs_NC.shape[-1]).to(outputs_NC.dtype)
    return functional.binary_cross_entropy_with_logits(outputs_NC, targets_NC, reduction="none").sum(-1)


CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")
LOSSES: dict[str, UnitLoss] = {"cross entropy": CROSS_ENTROPY, "half squared": half_squared, "binary": binary}
MODELS = {"mlp": mlp, "cnn": cnn, "tied transformer": tied}


@dataclass(frozen=True)
class Slow:
    """J (N, C, P), u (N, C) and the cluster of each valid unit."""

    jacobian_NCP: Tensor
    residual_NC: Tensor
    cluster_N: Tensor

    @property
    def gradients_NP(self) -> Tensor:
        return torch.einsum("ncp,nc->np", self.jacobian_NCP, self.residual_NC)

    @property
    def chi_loss(self) -> float:
        return float(self.residual_NC.square().sum(1).mean())

    @property
    def chi_net(self) -> float:
        return float(self.jacobian_NCP.square().sum((1, 2)).mean())

    def of_clusters(self, clusters: Tensor) -> Tensor:
        """Gradient (P,) of the loss summed over these clusters."""
        return self.gradients_NP[torch.isin(self.cluster_N, clusters)].sum(0)


def slow(model: nn.Module, unit_loss: UnitLoss, batch: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Slow:
    """One backward pass per unit and output."""
    inputs, targets = batch
    outputs = model(inputs)
    units = outputs.shape[:-1]
    outputs_NC, targets_N = outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1)
    leaf = outputs_NC.detach().requires_grad_()
    (residual_NC,) = torch.autograd.grad(unit_loss(leaf, targets_N).sum(), leaf)
    weights = list(model.parameters())
    rows = [torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True) for value in outputs_NC.flatten()]
    jacobian = torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows]).unflatten(0, outputs_NC.shape)
    cluster_N = torch.arange(len(inputs)).reshape(-1, *[1] * (len(units) - 1)).expand(units).reshape(-1)
    valid_N = torch.ones_like(cluster_N, dtype=torch.bool) if mask is None else mask.reshape(-1)
    return Slow(jacobian[valid_N], residual_NC[valid_N], cluster_N[valid_N])
