"""Small networks of every kind that kernels are tested on, and the slow Jacobian."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def slow_jacobian(model: nn.Module, inputs: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """J (N D, P): one backward pass for each sample by itself and each of its D outputs."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rows = []
    for index in range(len(inputs)):
        outputs = (forward or model)(inputs[index : index + 1]).flatten()
        for output in outputs:
            found = torch.autograd.grad(output, weights, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([(torch.zeros_like(w) if one is None else one).flatten() for one, w in zip(found, weights)]))
    return torch.stack(rows)


class Apply(nn.Module):
    """A model from a function of its named parts."""

    def __init__(self, function: Callable[[nn.ModuleDict | nn.Module, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self, inputs)


def images() -> Tensor:
    return torch.randn(5, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sequences() -> Tensor:
    return torch.randn(4, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def tokens() -> Tensor:
    return torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(3))


def vectors() -> Tensor:
    return torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 3))


def _language_model(*, tied: bool) -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        h = m.embedding(x) + m.position
        normed = m.rms(h)
        h = h + m.attention(normed, normed, normed, need_weights=False)[0]
        return m.readout(m.norm(h))

    model = Apply(
        run,
        embedding=nn.Embedding(11, 8, padding_idx=None if tied else 2),
        position=nn.Parameter(torch.randn(5, 8)),
        rms=nn.RMSNorm(8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        norm=nn.LayerNorm(8),
        readout=nn.Linear(8, 11, bias=False),
    )
    if tied:
        model.readout.weight = model.embedding.weight
    return model


def _plain_attention() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (x @ m.packed).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0]
        return (mixed @ m.out).mean(1)

    return Apply(run, packed=nn.Parameter(torch.randn(8, 24) / 3), out=nn.Parameter(torch.randn(8, 3) / 3))


def _cross_attention(*, batch_first: bool) -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        keys = m.keys(x)
        queries = torch.tanh(keys) + keys
        if not batch_first:
            queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)
        mixed = m.readout(m.attention(queries, keys, keys)[0])
        return mixed.mean(1 if batch_first else 0)

    parts = {"keys": nn.Linear(8, 8), "attention": nn.MultiheadAttention(8, 2, batch_first=batch_first), "readout": nn.Linear(8, 3)}
    return Apply(run, **parts)


def _twice() -> nn.Module:
    return Apply(lambda m, x: m.readout(torch.tanh(m.inner(torch.tanh(m.inner(x))))), inner=nn.Linear(6, 6), readout=nn.Linear(6, 3))


def _pieces_of_one_weight() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        first, second = m.both[:6], m.both[6:]
        return functional.linear(torch.tanh(functional.linear(x, first)), second)

    return Apply(run, both=nn.Parameter(torch.randn(9, 6)))


def _overlapping_pieces() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(functional.linear(x, m.both[:6])), m.both[4:7])

    return Apply(run, both=nn.Parameter(torch.randn(9, 6)))


def _both_ways() -> nn.Module:
    """An autoencoder whose decoder is the encoder's transpose, and a scale that is used twice."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.scale * (torch.tanh(x @ m.code.T) @ m.code) * m.scale

    return Apply(run, code=nn.Parameter(torch.randn(4, 6)), scale=nn.Parameter(torch.randn(6)))


def _class_token() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.cat([m.token.expand(len(x), -1, -1), x], dim=1) + m.position[None, : x.shape[1] + 1]
        h = h * m.scale + m.shift
        return m.readout(m.norm(m.layer(h.transpose(0, 1)).transpose(0, 1))[:, 0])

    return Apply(
        run,
        token=nn.Parameter(torch.randn(1, 1, 8)),
        position=nn.Parameter(torch.randn(9, 8)),
        scale=nn.Parameter(torch.randn(8)),
        shift=nn.Parameter(torch.randn(1, 1, 8)),
        layer=nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=False),
        norm=nn.LayerNorm(8),
        readout=nn.Linear(8, 3),
    )


def _recurrent() -> nn.Module:
    return Apply(lambda m, x: m.readout(m.recurrent(x)[0][:, -1]), recurrent=nn.LSTM(8, 3, batch_first=True), readout=nn.Linear(3, 3))


def _few_positions() -> nn.Module:
    """Two positions and wide layers: products position by position are the cheapest."""
    return nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 2), nn.Flatten())


def _bare_weight(m: nn.Module, x: Tensor) -> Tensor:
    return functional.linear(torch.tanh(functional.linear(x, 2.0 * m.weight)), m.weight + m.other @ m.other.T)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), vectors),
    "linear without bias": (lambda: nn.Linear(6, 3, bias=False), vectors),
    "few positions": (_few_positions, vectors),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 3), nn.GELU(), _head(12)),
        images,
    ),
    "strides, dilation, groups": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=2, dilation=2), nn.Tanh(), nn.Conv2d(4, 6, (3, 1), groups=2, padding=(1, 0)), _head(96)
        ),
        images,
    ),
    "view after a convolution": (
        lambda: Apply(
            lambda m, x: m.readout(m.conv(x).view(len(x), -1)), conv=nn.Conv2d(2, 3, 3, padding="same"), readout=nn.Linear(192, 3)
        ),
        images,
    ),
    "conv1d": (lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 4, 5, stride=3, padding=2), nn.ReLU(), _head(88)), images),
    "transposed convolution": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 2, 3), nn.Tanh(), _head(200)), images),
    "conv3d": (lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, (2, 3, 3), padding=1), nn.Tanh(), _head(384)), images),
    "norms": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.InstanceNorm2d(4, affine=True),
            nn.Tanh(),
            nn.LayerNorm(6),
            nn.Tanh(),
            _head(144),
        ).eval(),
        images,
    ),
    "frames folded into the batch": (
        lambda: Apply(
            lambda m, x: m.readout(m.conv(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2]).flatten(2)).mean(1),
            conv=nn.Conv2d(1, 2, 3),
            readout=nn.Linear(72, 3),
        ),
        images,
    ),
    "language model": (lambda: _language_model(tied=False), tokens),
    "tied language model": (lambda: _language_model(tied=True), tokens),
    "plain attention": (_plain_attention, sequences),
    "cross attention": (lambda: _cross_attention(batch_first=True), sequences),
    "sequence-first attention": (lambda: _cross_attention(batch_first=False), sequences),
    "class token": (_class_token, sequences),
    "a module applied twice": (_twice, vectors),
    "pieces of one weight": (_pieces_of_one_weight, vectors),
    "overlapping pieces of one weight": (_overlapping_pieces, vectors),
    "a weight and its transpose": (_both_ways, vectors),
    "lstm": (_recurrent, sequences),
    "weight norm, prelu": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.PReLU(), nn.Linear(6, 3)),
        vectors,
    ),
    "functions of weights": (
        lambda: Apply(_bare_weight, weight=nn.Parameter(torch.randn(6, 6)), other=nn.Parameter(torch.randn(6, 2))),
        vectors,
    ),
    "bilinear": (lambda: Apply(lambda m, x: m.product(x, x), product=nn.Bilinear(6, 6, 3)), vectors),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    """A network in float64 and its inputs."""
    build, inputs = CASES[name]
    torch.manual_seed(0)
    model = build().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.normal_()
    return model, inputs()
