"""Language models as tasks: training on tokens, its windows, and what is measured of its snapshots, tokens being the units (D2)."""

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from task_runs import attempt, committed, last, scalars, task_of
from token_package.echoes import Echoes

from workers import taskdir
from workers.entk.position import lnp
from workers.execute import execute
from workers.losses import loss_per_unit
from workers.models.llama import Llama
from workers.models.mlp import Mlp
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.seeds import role_seed
from workers.subsets import permutation, probe, subset
from workers.workload import Resources
from workers.workloads.gram import FULL, PROBE, TRACED, Gram
from workers.workloads.motion import Motion
from workers.workloads.position import Position
from workers.workloads.spectrum import Spectrum
from workers.workloads.train import Train

TRAIN = Train(
    data=Echoes(),
    model=Llama(width=16, head_dim=8, depth=1),
    optimizer=Adam(learning_rate=1e-2),
    train_size=64,
    batch_size=16,
    num_steps=23,
    num_evaluations=3,
    num_snapshots=3,
)
LOGGED = replace(TRAIN, position_windows_per_decade=2, position_probe_size=16)
LOSS = partial(loss_per_unit, "cross_entropy")


class StopAfter(threading.Event):
    """Is set when it is asked for the n-th time: the workload asks once a step."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.left = num_steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


def snapshot(root, train, step):
    return train.load_snapshot(taskdir.payload_path(root, committed(root, train), f"snapshot-{step}.safetensors")).double()


def probe_tokens(size):
    samples, index = Echoes().load(), probe(32, size)
    return torch.from_numpy(samples.test_inputs[index]), torch.from_numpy(samples.test_targets[index])


@pytest.mark.parametrize(
    "workload",
    [
        LOGGED,
        replace(LOGGED, model=replace(TRAIN.model, tied=True, norm="post"), optimizer=Sgd(momentum=0.9)),
        replace(LOGGED, model=replace(TRAIN.model, width=32, parameterisation="mup", base_width=8, norm="none"), dtype="float64"),
    ],
    ids=["adam", "tied", "mup"],
)
@pytest.mark.parametrize("stops", [(1,), (2, 4, 9)])
def test_an_interrupted_run_ends_bit_identical_to_an_uninterrupted_one(tmp_path, workload, stops):
    whole = committed(tmp_path / "whole", workload)
    for number, stop in enumerate(stops):
        attempt(tmp_path / "cut", workload, f"attempt-{number}", stop=StopAfter(stop))
    assert attempt(tmp_path / "cut", workload, "last").resumed_at == sum(stops)
    cut = taskdir.read_commit(tmp_path / "cut", task_of(workload).commit_name)
    assert repr(cut.rows) == repr(whole.rows)  # NaN is NaN
    assert {payload.sha256 for payload in cut.files} == {payload.sha256 for payload in whole.files}


@pytest.mark.parametrize("parameterisation", ["standard", "mup"])
def test_it_learns_that_tokens_come_again(tmp_path, parameterisation):
    """Each token but the first three is that three places before; without attention to it one in eleven would be right."""
    model = Llama(width=32, head_dim=16, depth=2, parameterisation=parameterisation, base_width=16)
    train = replace(TRAIN, data=Echoes(num_tokens=12), model=model, train_size=None, num_steps=150, batch_size=32)
    found = last(committed(tmp_path, train))
    assert found["train_loss"] < 0.75
    assert found["test_accuracy"] > 0.3


def test_tokens_are_counted(tmp_path):
    found = last(committed(tmp_path, TRAIN))
    assert (found["sequences_seen"], found["tokens_seen"]) == (23 * 16, 23 * 16 * 8)
    assert (found["unique_sequences"], found["unique_tokens"]) == (64, 64 * 8)
    non_embedding = 4 * 16**2 + 3 * 16 * 48 + 3 * 16
    assert (found["num_params"], found["num_params_non_embedding"]) == (non_embedding + 2 * 11 * 16, non_embedding)
    assert found["flops_6nd"] == 6 * found["num_params"] * found["tokens_seen"]
    products = 2 * 8 * (4 * 16**2 + 3 * 16 * 48 + 11 * 16) + 4 * 8**2 * 16
    assert found["flops_counted"] == 3 * products * 23 * 16


def test_a_model_of_numbers_is_refused_for_tokens_and_the_other_way(tmp_path):
    with_mlp = attempt(tmp_path, replace(TRAIN, model=Mlp()))
    assert "model=mlp reads numbers, and this data set has tokens (data=token_package.echoes)" in with_mlp.message
    with_digits = attempt(tmp_path, Train(model=Llama(), num_steps=1))
    assert "model=llama reads tokens, and this data set has none (data=digits)" in with_digits.message


def test_the_first_window_is_the_decomposition_of_the_first_batch_by_sequences(tmp_path):
    found = scalars(committed(tmp_path, replace(LOGGED, dtype="float64")))
    samples = Echoes().load()
    order = subset(96, 64, role_seed(0, "subset"))[permutation(64, role_seed(0, "order"), 0)[:16]]
    batch = torch.from_numpy(samples.train_inputs[order]), torch.from_numpy(samples.train_targets[order])
    module = LOGGED.build(samples).double()
    slow = lnp(module, LOSS, batch, estimator="exact", num_micro_batches=16, pool_size=64)
    assert (slow.num_units, slow.num_clusters) == (16 * 8, 16)
    assert found["chi_loss", 0] == pytest.approx(slow.chi_loss, rel=1e-9)
    assert found["delta_loss", 0] == pytest.approx(slow.delta_loss, rel=1e-8)
    assert found["delta_loss_self", 0] == pytest.approx(slow.delta_loss_self, rel=1e-9)
    assert found["chi_net", 0] == pytest.approx(slow.chi_net, rel=0.2)  # one vector of signs for each sequence


def test_smaller_pieces_of_a_batch_give_the_same_windows_but_for_rounding(tmp_path):
    workload = replace(LOGGED, dtype="float64")
    whole = last(committed(tmp_path / "whole", workload))
    execute(tmp_path / "pieces", replace(task_of(workload), halvings=2), attempt="a", code="test", reraise=True)
    found = last(taskdir.read_commit(tmp_path / "pieces", task_of(workload).commit_name))
    assert found == pytest.approx(whole, rel=1e-8)


@pytest.mark.parametrize(("at", "step"), [("init", 0), ("final", 23)])
def test_a_position_task_decomposes_the_gradient_of_the_mean_token(tmp_path, at, step):
    found = last(committed(tmp_path, Position(train=TRAIN, snapshot=at, probe_size=12, estimator="exact")))
    module, (inputs_NT, targets_NT) = snapshot(tmp_path, TRAIN, step), probe_tokens(12)
    loss = LOSS(module(inputs_NT), targets_NT).mean()
    square = sum(float(one.square().sum()) for one in torch.autograd.grad(loss, list(module.parameters())))
    assert found["delta_loss_self"] == pytest.approx(square, rel=1e-8)
    assert found["chi_loss"] * found["chi_net"] * found["chi_pos_self"] == pytest.approx(square, rel=1e-8)
    assert (found["num_units"], found["num_clusters"], found["num_outputs"]) == (12 * 8, 12, 11)
    assert found["mean_loss"] == pytest.approx(loss.item())


def test_a_gram_task_has_a_row_for_each_token(tmp_path):
    gram = Gram(train=TRAIN, probe_size=3)
    commit = committed(tmp_path, gram)
    module, (inputs_NT, targets_NT) = snapshot(tmp_path, TRAIN, 23), probe_tokens(3)
    outputs = module(inputs_NT)
    rows = [torch.autograd.grad(output, list(module.parameters()), retain_graph=True) for output in outputs.flatten()]
    slow = torch.stack([torch.cat([one.flatten() for one in row]) for row in rows])
    full, traced = (np.load(taskdir.payload_path(tmp_path, commit, name)) for name in (FULL, TRACED))
    np.testing.assert_allclose(full, slow @ slow.T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(traced, np.einsum("ncmc->nm", full.reshape(24, 11, 24, 11)) / 11, rtol=1e-8, atol=1e-8)
    with np.load(taskdir.payload_path(tmp_path, commit, PROBE)) as arrays:
        assert arrays["residuals"].shape == arrays["outputs"].shape == (24, 11)
        assert arrays["labels"].tolist() == targets_NT.flatten().tolist()
        np.testing.assert_allclose(arrays["residuals"].sum(1), 0, atol=1e-12)
    found = last(commit)
    assert found["trace"] == pytest.approx(np.trace(full) / (24 * 11))
    assert (found["num_units"], found["num_outputs"]) == (24, 11)
    assert found["probe_loss"] == pytest.approx(LOSS(outputs, targets_NT).mean().item())


def test_spectrum_and_motion_tasks_follow_from_it(tmp_path):
    single, double = (Gram(train=TRAIN, probe_size=2, dtype=dtype) for dtype in ("float32", "float64"))
    found = last(committed(tmp_path, Spectrum(gram=single)))
    assert (found["num_rows"], found["num_units"], found["psd"]) == (176, 16, 1.0)
    moved = last(committed(tmp_path, Motion(gram=double, reference=replace(double, snapshot="init"))))
    assert moved["num_rows"] == 176
    assert moved["kernel_distance"] > 0


def test_memory_is_asked_for_by_tokens():
    """Sequences of 8 tokens and, as far as is known, ten outputs."""
    few, many = (Gram(train=replace(TRAIN, data=Echoes(num_tokens=8)), probe_size=size).resources().memory_gib for size in (1, 32))
    assert many - few == pytest.approx(4 * 8 / 2**30 * ((10 * 32 * 8) ** 2 - (10 * 8) ** 2))


def test_time_is_foretold_by_operations():
    """A training of twice the batches, or of a network with twice the products, takes twice as long."""
    large = replace(TRAIN, model=Llama(width=512, head_dim=64, depth=8), num_steps=1000)
    products = sum(layer.positions * layer.fan_in * layer.num_outputs for layer in large.model.layers((8,), 1024))
    assert large.estimated_seconds() == pytest.approx(0.3 + 1000 * (5e-3 + 16 * 6 * products / 4e10))
    assert 1 <= large.resources().walltime_minutes / (large.estimated_seconds() / 6) < 2
    on_gpu = large.adapted(Resources(gpus=1))
    assert large.seconds_on(on_gpu) < large.estimated_seconds() / 40
    assert on_gpu.gpus == 1
    assert on_gpu.walltime_minutes == 10.0
