"""Random features: a kernel in closed form that no training changes."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from task_runs import attempt, committed, last, scalars, task_of
from torch.testing import assert_close

from workers import entk, taskdir
from workers.data.digits import Digits
from workers.layers import num_params, parameter_groups
from workers.losses import loss_per_unit
from workers.models.random_features import RandomFeatures
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.subsets import probe
from workers.workloads.gram import FULL, TRACED, Gram
from workers.workloads.train import Train

WIDTH, NUM_OUTPUTS = 12, 3
MODEL = RandomFeatures(width=WIDTH, activation="tanh", feature_bias=0.5)


def features(module: torch.nn.Module, inputs_N: torch.Tensor) -> torch.Tensor:
    """phi (N, P), from the buffers alone."""
    weight, bias = (module.get_buffer(f"1.{name}") for name in ("weight", "bias"))
    return torch.tanh(inputs_N.flatten(1) @ weight.T + bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("parameterisation", ["standard", "ntk"])
def test_the_kernel_is_that_of_the_features(bias, parameterisation):
    model = replace(MODEL, bias=bias, parameterisation=parameterisation)
    module = model.build((1, 2, 3), NUM_OUTPUTS, 0).double()
    inputs_N, labels_N = torch.randn(7, 1, 2, 3, dtype=torch.float64), torch.arange(7) % NUM_OUTPUTS
    phi = features(module, inputs_N) / (WIDTH**0.5 if parameterisation == "ntk" else 1.0)
    expected = phi @ phi.T + float(bias)
    assert_close(entk.gram(module, inputs_N, outputs="traced"), expected)
    assert_close(entk.gram(module, inputs_N), torch.kron(expected, torch.eye(NUM_OUTPUTS, dtype=torch.float64)))
    found = entk.lnp(module, lambda *pair: loss_per_unit("cross_entropy", *pair), (inputs_N, labels_N), estimator="exact")
    assert found.chi_net == pytest.approx(NUM_OUTPUTS * expected.diagonal().mean().item())
    assert set(found.layers) == {"3.weight", "3.bias"} if bias else {"3.weight"}


def test_both_parameterisations_are_one_function_at_initialisation():
    inputs_N = torch.randn(5, 6)
    standard, ntk = (replace(MODEL, parameterisation=name).build((6,), NUM_OUTPUTS, 0) for name in ("standard", "ntk"))
    assert_close(standard(inputs_N), ntk(inputs_N))


def test_only_the_readout_counts_and_learns():
    module = MODEL.build((6,), NUM_OUTPUTS, 0)
    assert num_params(module) == (WIDTH * NUM_OUTPUTS + NUM_OUTPUTS,) * 2
    trained = [weights for group in parameter_groups(module, normalised=True) for weights in group["params"]]
    assert sum(weights.numel() for weights in trained) == WIDTH * NUM_OUTPUTS + NUM_OUTPUTS
    assert {"1.weight", "1.bias"} <= set(module.state_dict())


@pytest.mark.parametrize("optimizer", [Sgd(learning_rate=0.1), Adam(weight_decay=0.1)], ids=["sgd", "adam"])
def test_training_leaves_features_and_kernel_as_they_were(tmp_path, optimizer):
    train = Train(model=MODEL, optimizer=optimizer, num_steps=20, train_size=128)
    grams = [committed(tmp_path, Gram(train=train, snapshot=at, probe_size=5)) for at in ("init", "final")]
    for name in (FULL, TRACED):
        before, after = (np.load(taskdir.payload_path(tmp_path, commit, name)) for commit in grams)
        np.testing.assert_array_equal(before, after)
    module = train.load_snapshot(taskdir.payload_path(tmp_path, committed(tmp_path, train), "snapshot-20.safetensors")).double()
    phi = features(module, torch.from_numpy(Digits().load().test_inputs[probe(359, 5)]).double())
    np.testing.assert_allclose(after, (phi @ phi.T + 1).numpy(), rtol=1e-12)
    losses = [last(commit)["probe_loss"] for commit in grams]
    assert losses[1] < losses[0]


def test_a_run_that_is_cut_ends_as_a_whole_one_and_its_chi_net_is_constant(tmp_path):
    train = Train(model=MODEL, optimizer=Adam(), num_steps=23, train_size=200, position_windows_per_decade=2)
    whole = committed(tmp_path / "whole", train)
    found = scalars(whole)
    constant = [value for (name, _), value in found.items() if name == "probe_chi_net"]
    assert len(constant) == 3
    assert max(constant) == pytest.approx(min(constant), rel=1e-6)
    stop = threading.Event()
    stop.set()
    attempt(tmp_path / "cut", train, "first", stop=stop)
    assert attempt(tmp_path / "cut", train, "last").resumed_at == 1
    cut = taskdir.read_commit(tmp_path / "cut", task_of(train).commit_name)
    assert repr(cut.rows) == repr(whole.rows)


def test_more_features_fit_the_training_set_better(tmp_path):
    few, many = (
        last(committed(tmp_path, Train(model=RandomFeatures(width=width), optimizer=Adam(learning_rate=0.01)))) for width in (4, 256)
    )
    assert many["train_loss"] < few["train_loss"]
    assert many["test_accuracy"] > 0.8
