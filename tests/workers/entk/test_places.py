"""Where samples stand inside a network is found, or the network is refused: no numbers of other samples are ever taken."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.workers.entk.test_more_networks import check, made, normal, weight
from workers import entk
from workers.entk.norms import network, squared_gradient_norms
from workers.errors import ConfigError

CHANGED = "samples change their places in the batch with the samples beside them, at the operation Addmm of .*KernelOperator"
TOGETHER = "outputs of a sample change by .* with the samples beside it or its place among them"


def with_lengths(*lengths: int, num_positions: int = 6) -> Tensor:
    x = normal(len(lengths), num_positions, 8)
    x[:, 0, 0] = torch.tensor(lengths) / 10
    return x


def lengths(x: Tensor) -> Tensor:
    return (x[:, 0, 0] * 10).round().long()


def packed(m: nn.Module, x: Tensor) -> Tensor:
    """Valid tokens one after the other, as in kernels for sequences of several lengths."""
    mask = torch.arange(x.shape[1]) < lengths(x)[:, None]
    hidden = torch.tanh(m.second(torch.tanh(m.first(x[mask]))))
    return m.readout(hidden.new_zeros(*x.shape[:2], 4).index_put(mask.nonzero(as_tuple=True), hidden).sum(1))


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"first": nn.Linear(8, 5), "second": nn.Linear(5, 4), "readout": nn.Linear(4, 3)}


@pytest.mark.parametrize("many", [(3, 3, 3, 3), (3, 3, 3, 2, 4, 3, 2, 3, 4), (3, 3, 3, 6, 1, 2, 2, 3, 4), (3, 2, 4, 3, 3)])
def test_packed_tokens_are_not_taken_for_those_of_other_samples(many):
    check(made(packed, **layers()), with_lengths(*many))


def test_packed_tokens_are_refused_where_those_of_the_first_look_happen_to_fit():
    with pytest.raises(ConfigError, match=CHANGED):
        entk.gram(made(packed, **layers()), with_lengths(3, 2, 3, 4, 3))


def test_samples_sorted_inside_are_followed():
    def run(m: nn.Module, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        return m.readout(torch.tanh(m.first(x[order]))[order.argsort()])

    x = normal(9, 6)
    model = made(run, first=nn.Linear(6, 5), readout=nn.Linear(5, 3))
    check(model, x)
    x[[0, 4, 8]] = x[[0, 4, 8]][x[[0, 4, 8], 0].argsort()]  # those that are looked at stand in order
    check(model, x)
    check(model, x[x[:, 0].argsort()])


@pytest.mark.parametrize("positions", [3, 6])
def test_sequences_first_that_are_read_where_the_data_say(positions):
    def run(m: nn.Module, x: Tensor) -> Tensor:
        hidden = torch.tanh(m.second(torch.tanh(m.first(x.transpose(0, 1)))))
        return m.readout(hidden[lengths(x) - 1, torch.arange(len(x))])

    check(made(run, **layers()), with_lengths(1, 2, 3, 2, 2, 3, 1, num_positions=positions))


def test_tables_are_not_taken_for_batches():
    """Three rows, of which each of the first samples takes its own."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        table = m.norm(m.table * m.scale + m.shift)
        return m.readout(torch.tanh(functional.embedding(x, table)))

    torch.manual_seed(0)
    parts = {"table": weight(3, 5).requires_grad_(False), "scale": weight(5), "shift": weight(5)}
    check(made(run, **parts, norm=nn.LayerNorm(5), readout=nn.Linear(5, 3)), torch.tensor([0, 1, 2, 2, 1, 0, 0, 0, 1]))


def alike(x: Tensor) -> Tensor:
    return torch.cat([x[:1].expand(3, -1), x])


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.readout(m.first(x) - m.first(x).mean(0)),
        lambda m, x: m.readout(m.first(x) * (1.0 if len(x) < 4 else x.mean())),
        lambda m, x: m.readout(m.first(x) + m.table[: len(x)]),
        lambda m, x: m.readout(m.first(x)).flip(0),
    ],
    ids=["centred", "only in large batches", "a row for each place", "outputs of others"],
)
@pytest.mark.parametrize("take", [lambda x: x, alike])
def test_samples_that_meet_are_refused_wherever_they_do(run, take):
    model = made(run, first=nn.Linear(6, 5), readout=nn.Linear(5, 3), table=weight(12, 5))
    with pytest.raises(ConfigError, match=TOGETHER):
        entk.gram(model, take(normal(9, 6)))


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.readout(torch.tanh(x @ m.w.T + x * m.w.T).flatten(1)),
        lambda m, x: m.readout(torch.tanh(x @ m.w + x * m.w.T).flatten(1)),
        lambda m, x: m.readout(torch.tanh(functional.conv1d(x[..., :3], m.v, padding=1)[:, :, None] * m.v).flatten(2).mean(2).repeat(1, 6)),
    ],
    ids=["transposed", "both", "convolution"],
)
def test_rows_of_one_weight_are_added_in_one_order(run):
    torch.manual_seed(0)
    check(made(run, w=weight(6, 6), v=weight(6, 6, 3), readout=nn.Linear(36, 3)), normal(5, 6, 6))


def test_outputs_as_long_as_the_batch_are_refused():
    model = made(lambda m, x: m.first(x) @ m.first(x).T, first=nn.Linear(6, 5))
    with pytest.raises(ConfigError, match="the outputs of a sample have 3 numbers in one batch and 2 in another"):
        entk.gram(model, normal(9, 6))


def test_a_temperature_that_is_learned_as_its_logarithm():
    torch.manual_seed(0)
    check(made(lambda m, x: m.readout(x) * m.temperature.exp(), readout=nn.Linear(6, 3), temperature=weight()), normal(5, 6))


@pytest.mark.parametrize("num_tokens", [1, 2, 6])
def test_what_is_known_of_a_model_is_not_taken_for_sequences_of_another_length(num_tokens):
    model = made(lambda m, x: m.readout(m.table(x).tanh()), table=nn.Embedding(11, 6), readout=nn.Linear(6, 3))
    known = network(model, torch.zeros(4, 3, dtype=torch.long))
    with pytest.raises(ConfigError, match="known for samples of another shape; find it out again"):
        squared_gradient_norms(model, torch.zeros(4, num_tokens, dtype=torch.long), normal(1, 4, num_tokens, 3), known=known)
