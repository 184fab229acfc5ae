"""Position tasks and the windows of a training run: their rows against plain gradients, and across interruptions."""

import math
from dataclasses import replace

import pytest
import torch
from task_runs import StopAfter, attempt, committed, last, scalars, task_of

from workers import taskdir
from workers.data.digits import Digits
from workers.entk.position import lnp
from workers.errors import ConfigError
from workers.execute import execute
from workers.losses import loss_per_unit
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.seeds import role_seed
from workers.subsets import permutation, probe, subset
from workers.workloads.position import Position
from workers.workloads.train import Train

TRAIN = Train(model=Mlp(width=6, depth=2), num_steps=23, train_size=200, batch_size=48, num_evaluations=3, num_snapshots=4)
LOGGED = replace(TRAIN, position_windows_per_decade=2)


@pytest.mark.parametrize(("snapshot", "step"), [("init", 0), ("final", 23), ("5", 5)])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_task_decomposes_the_gradient_of_the_mean_loss(tmp_path, snapshot, step, loss):
    train = replace(TRAIN, loss=loss)
    commit = committed(tmp_path, Position(train=train, snapshot=snapshot, probe_size=12, estimator="exact"))
    module = train.load_snapshot(taskdir.payload_path(tmp_path, committed(tmp_path, train), f"snapshot-{step}.safetensors")).double()
    images, index = Digits().load(), probe(359, 12)
    outputs_NC = module(torch.from_numpy(images.test_inputs[index]).double())
    mean_loss = loss_per_unit(loss, outputs_NC, torch.from_numpy(images.test_targets[index])).mean()
    gradients = torch.autograd.grad(mean_loss, list(module.parameters()))
    found = last(commit)
    assert {at for _, at in scalars(commit)} == {step}
    assert found["chi_loss"] * found["chi_net"] * found["chi_pos_self"] == pytest.approx(
        sum(float(gradient.square().sum()) for gradient in gradients), rel=1e-8
    )
    assert found["mean_loss"] == pytest.approx(mean_loss.item())
    assert sum(found[f"chi_net/{name}"] for name, _ in module.named_parameters()) == pytest.approx(found["chi_net"])
    assert (found["num_units"], found["num_outputs"], found["num_micro_batches"]) == (12, 10, 12)


def test_too_large_a_probe_is_refused():
    with pytest.raises(ConfigError, match="probe_size must be at most 359, the test samples of this data set, got 400"):
        Position(train=TRAIN, probe_size=400)


def test_a_snapshot_that_an_earlier_run_did_not_keep_is_trained_again(tmp_path):
    few = committed(tmp_path, replace(TRAIN, num_snapshots=2))
    plain = {name: getattr(few, name) for name in few.__slots__}
    taskdir.write_commit(tmp_path, taskdir.Commit(**{**plain, "key": task_of(TRAIN).key}))
    assert (
        committed(tmp_path, Position(train=TRAIN, snapshot="5")).rows
        == committed(tmp_path / "kept", Position(train=TRAIN, snapshot="5")).rows
    )


@pytest.mark.parametrize("model", [TRAIN.model, Cnn(width=2, depth=1)], ids=["mlp", "cnn"])
def test_measuring_changes_nothing_of_the_training(tmp_path, model):
    plain, logged = (committed(tmp_path, replace(one, model=model)) for one in (TRAIN, LOGGED))
    assert {payload.name: payload.sha256 for payload in plain.files} == {payload.name: payload.sha256 for payload in logged.files}
    assert scalars(plain).items() <= scalars(logged).items()


def test_windows_have_rows_at_their_middle_steps(tmp_path):
    found = scalars(committed(tmp_path, LOGGED))
    # windows 0, 1-2, 3-9, 10-12 and 13-22
    assert [step for name, step in found if name == "chi_pos"] == [0, 1, 6, 11, 17]
    assert [step for name, step in found if name == "probe_chi_pos"] == [0, 6, 17]
    assert math.isnan(found["chi_pos_standard_error", 0])
    assert 0 < found["chi_pos_standard_error", 17] < 1
    for prefix in ("", "probe_"):
        for step in (0, 17):
            product = math.prod(found[f"{prefix}{name}", step] for name in ("chi_loss", "chi_net", "chi_pos"))
            assert product == pytest.approx(found[f"{prefix}delta_loss", step], rel=1e-9)


def test_the_first_window_is_the_decomposition_of_the_first_batch(tmp_path):
    found = scalars(committed(tmp_path, replace(LOGGED, dtype="float64")))
    images = Digits().load()
    order = subset(len(images.train_targets), 200, role_seed(0, "subset"))[permutation(200, role_seed(0, "order"), 0)[:48]]
    batch = torch.from_numpy(images.train_inputs[order]).double(), torch.from_numpy(images.train_targets[order])
    module = LOGGED.build(images).double()
    slow = lnp(module, lambda *pair: loss_per_unit("cross_entropy", *pair), batch, estimator="exact", num_micro_batches=48)
    assert found["chi_loss", 0] == pytest.approx(slow.chi_loss, rel=1e-6)
    # of a training set of 200 images, of which the batch holds 48 without repetition
    mean_square = slow.kappa_over_units * slow.chi_loss * slow.chi_net * 48
    assert found["delta_loss", 0] == pytest.approx(slow.delta_loss + (mean_square - slow.delta_loss) / 200, rel=1e-6)
    assert found["delta_loss_self", 0] == pytest.approx(slow.delta_loss_self, rel=1e-6)
    assert found["chi_net", 0] == pytest.approx(slow.chi_net, rel=0.1)  # one output of an image


def test_the_cross_response_is_the_product_of_two_gradients(tmp_path):
    """Of the first batch and the fixed probe set; its position lies between -1 and 1 as its cosine does."""
    found = scalars(committed(tmp_path, replace(LOGGED, dtype="float64", position_probe_size=20)))
    samples = Digits().load()
    order = subset(len(samples.train_targets), 200, role_seed(0, "subset"))[permutation(200, role_seed(0, "order"), 0)[:48]]
    module, gradients = LOGGED.build(samples).double(), []
    for taken in (samples.train(order, "cpu", torch.float64), samples.test(probe(359, 20), "cpu", torch.float64)):
        loss = torch.nn.functional.cross_entropy(module(taken[0]), taken[1])
        gradients.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(module.parameters()))]))
    product = float(gradients[0] @ gradients[1])
    assert found["cross_delta_loss", 0] == pytest.approx(product, rel=1e-9)
    assert found["cross_cosine", 0] == pytest.approx(product / float(gradients[0].norm() * gradients[1].norm()), rel=1e-9)
    factors = math.prod(found[f"{prefix}{name}", 0] for prefix in ("", "probe_") for name in ("chi_loss", "chi_net"))
    assert found["cross_chi_pos", 0] == pytest.approx(product / math.sqrt(factors), rel=1e-9)


def test_with_full_batches_nothing_is_left_to_estimate(tmp_path):
    found = scalars(committed(tmp_path, replace(LOGGED, train_size=48, batch_size=48, dtype="float64")))
    steps = [step for name, step in found if name == "chi_pos"]
    for step in steps:
        assert found["delta_loss", step] == pytest.approx(found["delta_loss_self", step], rel=1e-9)


@pytest.mark.parametrize("stops", [(1,), (5,), (2, 4, 12)])
def test_an_interruption_within_a_window_changes_no_row(tmp_path, stops):
    whole = committed(tmp_path / "whole", LOGGED)
    for number, stop in enumerate(stops):
        attempt(tmp_path / "cut", LOGGED, f"attempt-{number}", stop=StopAfter(stop))
    assert attempt(tmp_path / "cut", LOGGED, "last").resumed_at == sum(stops)
    cut = taskdir.read_commit(tmp_path / "cut", task_of(LOGGED).commit_name)
    assert repr(cut.rows) == repr(whole.rows)  # NaN is NaN


def test_smaller_pieces_of_a_batch_give_the_same_windows_but_for_rounding(tmp_path):
    workload = replace(LOGGED, dtype="float64")
    whole = last(committed(tmp_path / "whole", workload))
    execute(tmp_path / "pieces", replace(task_of(workload), halvings=2), attempt="a", code="test", reraise=True)
    found = last(taskdir.read_commit(tmp_path / "pieces", task_of(workload).commit_name))
    assert found == pytest.approx(whole, rel=1e-8)
