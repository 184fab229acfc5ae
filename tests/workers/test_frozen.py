"""Frozen modes (D9): their kernels stand still, and training with them is what its name says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from task_runs import StopAfter, attempt, committed, contents, last, scalars
from torch.func import functional_call, jacrev
from torch.testing import assert_close

from workers import entk, taskdir
from workers.errors import ConfigError
from workers.frozen import Lazy, Linearised, freeze
from workers.models.cnn import Cnn
from workers.models.llama import Llama
from workers.models.mlp import Mlp
from workers.models.wide_resnet import WideResnet
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.workloads.kernel_descent import KernelDescent
from workers.workloads.train import Train

MLP = Mlp(width=12, depth=2, activation="tanh")
SHORT = Train(model=MLP, train_size=60, batch_size=16, num_steps=20, num_evaluations=4, num_snapshots=3, test_size=40)
LOGGED = replace(SHORT, position_windows_per_decade=5, position_probe_size=8, dtype="float64", optimizer=Sgd(learning_rate=1.0))


def moved(size: float = 0.3) -> tuple[torch.nn.Module, dict[str, torch.Tensor], torch.nn.Module]:
    """A linearised network whose weights have moved, the weights before, and the plain network at these."""
    before, after = (MLP.build((1, 3, 3), 4, 0).double() for _ in range(2))
    linearised = Linearised(after)
    with torch.no_grad():
        for seed, weights in enumerate(after.parameters()):
            weights += size * torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return linearised, {name: weights.detach() for name, weights in before.named_parameters()}, before


def inputs(size: int = 5) -> torch.Tensor:
    return torch.randn(size, 1, 3, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def test_a_linearised_network_is_the_first_order_in_its_weights():
    linearised, start, before = moved()
    jacobians = jacrev(lambda weights: functional_call(before, weights, (inputs(),)))(start)
    change = {name: weights.detach() - start[name] for name, weights in linearised.module.named_parameters()}
    expected = before(inputs()) + sum((jacobians[name] * change[name]).flatten(2).sum(-1) for name in start)
    assert_close(linearised(inputs()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outputs", ["full", "traced"])
def test_the_kernel_of_a_linearised_network_is_that_of_its_first_weights(outputs: str):
    linearised, _, before = moved()
    assert_close(entk.gram(linearised, inputs(), outputs=outputs), entk.gram(before, inputs(), outputs=outputs), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(entk.gram(linearised.module, inputs(), outputs=outputs), entk.gram(before, inputs(), outputs=outputs))


def test_a_lazy_network_begins_at_zero_and_tends_to_the_linearised_one():
    """The same change of outputs by weights that move alpha times less."""
    distances = []
    for alpha in (10.0, 100.0, 1000.0):
        linearised, start, before = moved(0.3 / alpha)
        lazy = Lazy(MLP.build((1, 3, 3), 4, 0).double(), alpha)
        assert not lazy(inputs()).any()
        lazy.module.load_state_dict(linearised.module.state_dict())
        expected = alpha * (linearised(inputs()) - before(inputs()))
        distances.append(float((lazy(inputs()) - expected).detach().norm() / expected.detach().norm()))
    assert distances[0] > 8 * distances[1] > 64 * distances[2]


def test_of_random_features_the_readout_alone_learns():
    module = freeze("readout", MLP.build((1, 3, 3), 4, 0))
    assert [name for name, weights in module.named_parameters() if weights.requires_grad] == ["5.weight", "5.bias"]


def test_noise_moves_what_is_trained_alone(tmp_path: Path):
    noisy = replace(SHORT, frozen="readout", optimizer=Sgd(langevin_temperature=0.1))
    commit = committed(tmp_path, noisy)
    first, final = (load_file(taskdir.payload_path(tmp_path, commit, f"snapshot-{step}.safetensors")) for step in (0, 20))
    assert {name for name, weights in first.items() if not torch.equal(weights, final[name])} == {"5.weight", "5.bias"}


def test_of_a_language_model_it_is_the_readout_of_the_vocabulary_unless_that_is_the_embedding():
    module = freeze("readout", Llama(width=16, depth=1, head_dim=8).build((5,), 11, 0))
    assert [tuple(weights.shape) for weights in module.parameters() if weights.requires_grad] == [(11, 16)]
    with pytest.raises(ConfigError, match="Decoder has none .a language model with model.tied=true"):
        freeze("readout", Llama(width=16, depth=1, head_dim=8, tied=True).build((5,), 11, 0))


@pytest.mark.parametrize("norm", ["pre", "none"])
def test_a_linearised_language_model_is_the_first_order_in_its_weights(norm: str):
    model, tokens = Llama(width=16, depth=1, head_dim=8, norm=norm), torch.arange(12).reshape(2, 6) % 7
    before, after = (model.build((6,), 7, 0).double() for _ in range(2))
    linearised, start = Linearised(after), {name: weights.detach() for name, weights in before.named_parameters()}
    with torch.no_grad():
        for weights in after.parameters():
            weights.mul_(1.1)
    jacobians = jacrev(lambda weights: functional_call(before, weights, (tokens,)))(start)
    expected = before(tokens) + sum((jacobians[name] * 0.1 * start[name]).flatten(3).sum(-1) for name in start)
    assert_close(linearised(tokens), expected, rtol=1e-10, atol=1e-10)


def chi_nets(root: Path, train: Train) -> list[float]:
    return [value for (name, _), value in scalars(committed(root, train)).items() if name == "probe_chi_net"]


@pytest.mark.parametrize("frozen", ["linearised", "readout", "random_features"])
def test_a_frozen_kernel_keeps_chi_net_on_the_fixed_probe(tmp_path: Path, frozen: str):
    values = chi_nets(tmp_path, replace(LOGGED, frozen=frozen))
    assert len(values) >= 3
    assert max(values) / min(values) - 1.0 < 1e-12


def test_chi_net_of_a_network_that_learns_features_moves_and_a_lazy_one_s_less(tmp_path: Path):
    free, lazy = (chi_nets(tmp_path, one) for one in (LOGGED, replace(LOGGED, frozen="lazy", lazy_alpha=100.0)))
    assert max(free) / min(free) - 1.0 > 0.01
    assert max(lazy) / min(lazy) - 1.0 < 0.1 * (max(free) / min(free) - 1.0)


@pytest.mark.parametrize("frozen", ["linearised", "readout"])
def test_a_kernel_that_is_frozen_later_moves_before(tmp_path: Path, frozen: str):
    commit = committed(tmp_path, replace(LOGGED, num_steps=100, frozen=frozen, frozen_at=0.1))
    values = {step: value for (name, step), value in scalars(commit).items() if name == "probe_chi_net"}
    late = [value for step, value in values.items() if step >= 10]
    assert len(late) >= 2
    assert max(late) / min(late) - 1.0 < 1e-12
    assert values[min(values)] != pytest.approx(late[0], rel=1e-3)


@pytest.mark.parametrize(("frozen_at", "snapshot"), [(0.0, "init"), (0.5, "final")])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("model", [MLP, replace(MLP, width=64, parameterisation="mup")], ids=["standard", "mup"])
def test_descent_by_the_kernel_is_training_of_the_linearised_network(
    tmp_path: Path, frozen_at: float, snapshot: str, loss: str, model: Mlp
):
    """Whole batches, plain SGD; the same outputs, so the same losses, at every step."""
    sgd = Sgd(learning_rate=0.02)
    whole = replace(SHORT, model=model, batch_size=60, test_size=60, dtype="float64", loss=loss, optimizer=sgd, num_snapshots=2)
    linearised = committed(tmp_path, replace(whole, frozen="linearised", frozen_at=frozen_at))
    before = whole if snapshot == "init" else replace(whole, num_steps=10)
    descent = committed(tmp_path, KernelDescent(train=before, snapshot=snapshot, learning_rate=0.02, num_steps=20 - round(20 * frozen_at)))
    for name in ("train_loss", "test_loss", "test_accuracy"):
        assert last(descent)[name] == pytest.approx(last(linearised)[name], rel=1e-9)


def test_descent_by_the_kernel_decomposes_the_gradient_of_its_loss(tmp_path: Path):
    train = replace(SHORT, dtype="float64", num_snapshots=2)
    found = scalars(committed(tmp_path, KernelDescent(train=train, learning_rate=1e-6, num_steps=2)))
    falls = found["train_loss", 0] - found["train_loss", 1]
    assert falls == pytest.approx(1e-6 * found["delta_loss_self", 0], rel=1e-3)
    product = found["chi_loss", 0] * found["chi_net", 0] * found["chi_pos_self", 0]
    assert product == pytest.approx(found["delta_loss_self", 0], rel=1e-12)


@pytest.mark.parametrize("mode", [{"frozen": "linearised"}, {"frozen": "readout"}, {"frozen": "lazy", "lazy_alpha": 3.0}])
@pytest.mark.parametrize("optimizer", [Sgd(momentum=0.9), Adam()])
def test_an_interrupted_frozen_run_ends_bit_identical(tmp_path: Path, mode: dict[str, object], optimizer: Sgd | Adam):
    later = {} if mode["frozen"] == "lazy" else {"frozen_at": 0.4}
    train = replace(SHORT, optimizer=optimizer, **mode, **later)
    whole = committed(tmp_path / "whole", train)
    for number, stop in enumerate((3, 5, 4)):  # before the step of freezing, at it, and after it
        attempt(tmp_path / "cut", train, f"attempt-{number}", stop=StopAfter(stop))
    assert attempt(tmp_path / "cut", train, "last").resumed_at == 12
    cut = committed(tmp_path / "cut", train)
    assert cut.rows == whole.rows
    assert contents(tmp_path / "cut", cut) == contents(tmp_path / "whole", whole)


@pytest.mark.parametrize("mode", [{"frozen": "linearised", "frozen_at": 0.5}, {"frozen": "readout"}, {"frozen": "lazy", "lazy_alpha": 2.0}])
def test_a_snapshot_is_loaded_as_the_network_that_was_trained(tmp_path: Path, mode: dict[str, object]):
    train = replace(SHORT, **mode)
    commit = committed(tmp_path, train)
    module = train.load_snapshot(taskdir.payload_path(tmp_path, commit, f"snapshot-{train.num_steps}.safetensors"))
    samples = train.data.load()
    test_inputs, test_targets = train.test_set(samples, "cpu", torch.float32)
    loss = torch.nn.functional.cross_entropy(module(test_inputs), test_targets)
    assert float(loss.detach()) == pytest.approx(last(commit)["test_loss"], rel=1e-5)
    assert {weights.requires_grad for weights in module.parameters()} == ({True, False} if train.frozen == "readout" else {True})


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ({"frozen_at": 0.5}, "frozen_at is for frozen=readout and frozen=linearised, got 0.5 with frozen=none"),
        ({"frozen": "lazy", "frozen_at": 0.5}, "frozen_at is for frozen=readout and frozen=linearised, got 0.5 with frozen=lazy"),
        ({"lazy_alpha": 2.0}, "lazy_alpha is for frozen=lazy, got 2.0 with frozen=none"),
        (
            {"frozen": "lazy", "model": WideResnet(normalisation="batch")},
            "frozen must be none for a model with batch normalisation, got lazy",
        ),
        ({"frozen": "sometimes"}, "frozen must be one of none, readout, random_features, linearised, lazy, got 'sometimes'"),
    ],
)
def test_modes_that_do_not_fit_are_refused(mode: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(SHORT, **mode)


def test_a_network_without_a_readout_is_refused():
    with pytest.raises(ConfigError, match="says which layer is its readout, by an attribute `is_readout`; Linear has none"):
        freeze("readout", torch.nn.Linear(2, 2))


def test_too_large_a_kernel_is_refused():
    with pytest.raises(ConfigError, match="train.train_size must be at most 20000 for a kernel in memory"):
        KernelDescent(train=replace(SHORT, train_size=20_001))


def test_a_linearised_cnn_trains(tmp_path: Path):
    found = scalars(committed(tmp_path, replace(SHORT, model=Cnn(width=2), frozen="linearised")))
    assert found["train_loss", 20] < found["train_loss", 0]
