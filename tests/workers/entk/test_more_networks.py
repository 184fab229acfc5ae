"""Architectures, shapes and memory orders that users bring: the kernel is that of each sample's own Jacobian, or it is refused."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.workers.entk.networks import Apply, slow_jacobian
from workers import entk
from workers.entk import checks
from workers.entk.norms import squared_gradient_norms
from workers.errors import ConfigError, Diverged


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 2)


def made(function: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> nn.Module:
    return Apply(function, **parts).double()


def check(model: nn.Module, x: Tensor) -> None:
    """Full and traced kernels with much and little memory, a cross kernel, and gradient norms."""
    left = slow_jacobian(model, x)
    slow, num_outputs = left @ left.T, model(x).shape[-1]
    traced = slow.unflatten(1, (-1, num_outputs)).unflatten(0, (-1, num_outputs)).diagonal(dim1=1, dim2=3).mean(-1)
    for memory_gib in (2.0, 1e-3):
        assert_equal(entk.gram(model, x, memory_gib=memory_gib), slow)
        assert_equal(entk.gram(model, x, outputs="traced", memory_gib=memory_gib), traced)
    assert_equal(entk.gram(model, x, x[-1:]), slow[:, -(len(slow) // len(x)) :])
    cotangents = normal(2, *model(x).shape)
    rows = torch.einsum("rnd,ndp->rnp", cotangents.flatten(2), left.unflatten(0, (len(x), -1)))
    assert_equal(squared_gradient_norms(model, x, cotangents), rows.square().sum(-1))


def assert_equal(found: Tensor, slow: Tensor) -> None:
    assert found.shape == slow.shape
    assert float((found - slow).norm()) <= 1e-14 * float(slow.norm())


def attention() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.readout(m.attention(x, m.keys(x), m.values(x), need_weights=False)[0].mean(1))

    parts = {"attention": nn.MultiheadAttention(8, 2, batch_first=True), "keys": nn.Linear(8, 8), "values": nn.Linear(8, 8)}
    return made(run, **parts, readout=nn.Linear(8, 3))


def test_views_of_a_larger_tensor_are_taken_as_their_copies_are():
    torch.manual_seed(0)
    check(attention(), normal(7, 6, 8)[:, :3])
    check(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)).double(), normal(5, 6, 6)[:, :1])
    check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).double(), normal(4, 5, 5, 3).movedim(3, 1))


def test_two_views_of_a_weight_in_two_orders():
    def run(m: nn.Module, x: Tensor) -> Tensor:
        one, other = x[:, :2, :3] * m.w.view(3, 2).T, x[:, :3, :2] * m.w.view(2, 3).T
        return m.readout(torch.cat([one.flatten(1), other.flatten(1)], 1).tanh())

    torch.manual_seed(0)
    check(made(run, w=weight(6), readout=nn.Linear(12, 3)), normal(5, 6, 6))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("value", ["2", None, True, float("nan"), float("inf"), -1.0])
def test_memory_that_is_no_number_is_refused(value):
    with pytest.raises(ConfigError, match="memory_gib must be a positive number of GiB, got"):
        entk.gram(mlp(), normal(4, 6), memory_gib=value)


def test_what_is_no_model_or_no_probe_set_is_refused():
    with pytest.raises(ConfigError, match="the model must be a torch.nn.Module, got function; .* KernelOperator.from_products"):
        entk.gram(lambda x: x, normal(4, 6))
    with pytest.raises(ConfigError, match="x is empty; give a tensor, or one for each of the model's arguments"):
        entk.gram(mlp(), ())
    with pytest.raises(ConfigError, match="on the device meta, where it has no numbers"):
        entk.gram(mlp().to("meta"), normal(4, 6).to("meta"))


def test_the_other_probe_set_is_looked_at_too():
    with pytest.raises(ConfigError, match="x and z must have as many tensors as the model has arguments, got 1 and 2"):
        entk.gram(mlp(), normal(4, 6), (normal(4, 6), normal(4, 6)))
    with pytest.raises(Diverged, match="z has 24 numbers that are not finite"):
        entk.gram(mlp(), normal(4, 6), normal(4, 6) / 0)


@pytest.mark.parametrize("shape", [(16, 3), (2, 24), (3, 16), (7,)])
def test_a_residual_of_another_number_of_units_is_refused(shape):
    """Its entries would be cut into columns that mean nothing."""
    kernel = torch.eye(24, dtype=torch.float64)
    with pytest.raises(ConfigError, match="does not fit a kernel of 24 rows"):
        entk.residual_density(kernel, normal(*shape))
    with pytest.raises(ConfigError, match="does not fit a kernel of 24 rows"):
        entk.spectrum(kernel).weights(normal(*shape))
    assert entk.residual_density(kernel, normal(8, 3)).rayleigh_quotient == pytest.approx(1.0)
    assert entk.residual_density(kernel, normal(24, 5)).rayleigh_quotient == pytest.approx(1.0)


def test_a_residual_that_is_not_finite_is_refused():
    with pytest.raises(Diverged, match="the residual has numbers that are not finite"):
        entk.residual_density(torch.eye(6), torch.full((2, 3), torch.nan))


def test_settings_of_solvers_that_cannot_be_are_refused():
    kernel = torch.eye(24, dtype=torch.float64)
    for wrong in (True, 2.0, "3"):
        with pytest.raises(ConfigError, match="the number of eigenvalues must be between 1 and 24, the rows of the kernel, got"):
            entk.lanczos(kernel, wrong)
    with pytest.raises(ConfigError, match="tolerance must be positive and max_products at least 1, got nan and None"):
        entk.lanczos(kernel, 3, tolerance=torch.nan)
    with pytest.raises(ConfigError, match="tolerance must be positive and max_products at least 1, got 1e-06 and 0"):
        entk.lanczos(kernel, 3, tolerance=1e-6, max_products=0)
    with pytest.raises(ConfigError, match="block_size must be a whole number, at least 1, got 0"):
        entk.density(kernel, 3, block_size=0)


def test_inference_mode_changes_nothing():
    model, x = mlp(), normal(4, 6)
    expected = entk.gram(model, x)
    with torch.inference_mode():
        assert_equal(entk.gram(model, x.clone()), expected)
        unfit = mlp()
    with pytest.raises(ConfigError, match="made in torch.inference_mode, .* make or load it outside of it"):
        entk.gram(unfit, x)


def test_samples_that_come_from_the_weights_are_data():
    model = mlp()
    x = model[0].weight[:1] * normal(4, 6)
    assert_equal(entk.gram(model, x), entk.gram(model, x.detach()))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x - x.mean(0), "outputs of a sample change by .* with the samples beside it or its place among them"),
        (lambda x: x.flip(0), "outputs of a sample change by"),
        (lambda x: x + torch.arange(len(x))[:, None], "outputs of a sample change by"),
        (lambda x: x + torch.rand(len(x), 1), "two passes over the same samples differ by .*: the model draws random numbers"),
        (lambda x: x @ x.T, "outputs of a sample have 3 numbers in one batch and 2 in another"),
    ],
)
def test_outputs_that_are_not_their_samples_own_are_refused(forward, message):
    with pytest.raises(ConfigError, match=message):
        checks.independent(lambda found: forward(found[0]), (normal(7, 5),), ())
    checks.independent(lambda found: found[0].sin(), (normal(7, 5),), ())


def test_batch_statistics_that_are_several_are_refused():
    norm = nn.BatchNorm1d(5)
    model = nn.Sequential(nn.Linear(6, 5), norm, nn.Tanh(), norm, nn.Linear(5, 3)).double()
    before = norm.running_mean.clone()
    with pytest.raises(ConfigError, match="a batch normalisation is applied twice, .* take statistics='running'"):
        entk.gram(model, normal(8, 6), statistics="batch")
    assert norm.training and torch.equal(norm.running_mean, before) and not norm._forward_pre_hooks
    assert entk.gram(model, normal(8, 6), statistics="running").shape == (24, 24)


def test_a_normalisation_that_has_seen_nothing_is_refused():
    with pytest.raises(ConfigError, match="buffers that are not initialised; run it once"):
        entk.gram(nn.Sequential(nn.Linear(6, 5), nn.LazyBatchNorm1d(affine=False)).double().eval(), normal(8, 6))


class OtherWay(nn.Module):
    """A layer of (N, T, E) that sees (N, E, T), or (T, N, E)."""

    def __init__(self, layer: nn.Module, *axes: int) -> None:
        super().__init__()
        self.layer, self.axes = layer, axes

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.layer(inputs.transpose(*self.axes))
        return (found[0] if isinstance(found, tuple) else found).transpose(*self.axes)


def folded(m: nn.Module, x: Tensor) -> Tensor:
    """Positions in front of samples, in one axis."""
    return m.inner(x.transpose(0, 1).reshape(-1, x.shape[2])).reshape(x.shape[1], x.shape[0], -1).transpose(0, 1)


def up_to_a_length(m: nn.Module, x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[1]) <= x[:, :1, 0].abs() * 2)[..., None]


def sequences_first(m: nn.Module, x: Tensor) -> Tensor:
    return m.attention(*[x.transpose(0, 1)] * 3, need_weights=False)[0].transpose(0, 1)


# layers of (N, T, E), from T, E and the width O that they give
LAYERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "linear": lambda t, e, o: nn.Linear(e, o),
    "sequences first": lambda t, e, o: OtherWay(nn.Linear(e, o), 0, 1),
    "positions in the batch": lambda t, e, o: Apply(folded, inner=nn.Linear(e, o)),
    "recurrent": lambda t, e, o: OtherWay(nn.GRU(e, o), 0, 1),
    "convolution": lambda t, e, o: OtherWay(nn.Conv1d(e, o, 3, padding=1), 1, 2),
    "a matrix for each position": lambda t, e, o: Apply(lambda m, x: torch.einsum("nte,teo->nto", x, m.w), w=weight(t, e, o)),
    "a matrix there and back": lambda t, e, o: Apply(lambda m, x: (x @ m.w).tanh() @ m.w.T + x @ m.w @ m.w.mT, w=weight(e, o)),
    "gate": lambda t, e, o: Apply(
        lambda m, x: m.inner(x) * m.gate(x.mean(1, keepdim=True)).sigmoid(), inner=nn.Linear(e, o), gate=nn.Linear(e, o)
    ),
    "three in one": lambda t, e, o: Apply(
        lambda m, x: (lambda q, k, v: q * k.sigmoid() + v)(*functional.linear(x, m.w).chunk(3, -1)), w=weight(3 * o, e)
    ),
    "attention": lambda t, e, o: Apply(sequences_first, attention=nn.MultiheadAttention(e, 1)),
    "mixed positions": lambda t, e, o: OtherWay(nn.Linear(t, t), 1, 2),
    "group norm": lambda t, e, o: OtherWay(nn.GroupNorm(1, e), 1, 2),
    "batch norm": lambda t, e, o: OtherWay(nn.BatchNorm1d(e), 1, 2).eval(),
    "rms norm": lambda t, e, o: nn.RMSNorm(e),
    "positions": lambda t, e, o: Apply(lambda m, x: (x + m.shift) * m.scale, shift=weight(t, e), scale=weight(t, 1)),
    "a scalar": lambda t, e, o: Apply(lambda m, x: x * m.scale, scale=weight()),
    "a masked token": lambda t, e, o: Apply(lambda m, x: torch.where(x[..., :1] > 0, m.token, x), token=weight(e)),
    "as long as the data say": lambda t, e, o: Apply(up_to_a_length),
    "a table": lambda t, e, o: Apply(lambda m, x: x + m.table((x.sum(-1) * 3).long().clamp(0, 4)), table=nn.Embedding(5, e, padding_idx=2)),
    "rows of a weight": lambda t, e, o: Apply(lambda m, x: functional.linear(x, m.w) + x * m.w[0] + x @ m.w, w=weight(e, e)),
    "prelu": lambda t, e, o: nn.PReLU(),
    "tanh": lambda t, e, o: nn.Tanh(),
    "relu": lambda t, e, o: nn.ReLU(),
}
READOUTS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "all": lambda t, e, c: nn.Sequential(nn.Flatten(), nn.Linear(t * e, c)),
    "mean": lambda t, e, c: Apply(lambda m, x: m.out(x.mean(1)), out=nn.Linear(e, c)),
    "last": lambda t, e, c: Apply(lambda m, x: m.out(x[:, -1]), out=nn.Linear(e, c, bias=False)),
    "tokens": lambda t, e, c: nn.Linear(e, c),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_layers_of_sequences(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 2**31), label="seed"))
    sizes = st.sampled_from([1, 2, 3, 4, 6])  # three samples are looked at, so threes are the traps
    num_positions, width = data.draw(sizes, label="T"), data.draw(sizes, label="E")
    shape = (data.draw(sizes, label="N"), num_positions, width)
    layers = []
    for name in data.draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5), label="layers"):
        if name == "group norm" and num_positions * width == 1:
            continue
        layers.append(LAYERS[name](num_positions, width, data.draw(sizes, label="width")))
        width = layers[-1](torch.zeros(2, num_positions, width)).shape[2]
    layers.append(
        READOUTS[data.draw(st.sampled_from(sorted(READOUTS)), label="readout")](num_positions, width, data.draw(sizes, label="C"))
    )
    model, x = nn.Sequential(*layers).double(), torch.randn(shape, dtype=torch.float64)
    slow = slow_jacobian(model, x)
    slow = slow @ slow.T
    found = entk.gram(model, x, memory_gib=data.draw(st.sampled_from([2.0, 1e-3]), label="memory"))
    assert float((found - slow).norm()) <= 1e-12 * float(slow.norm())
