"""Select and train_selected tasks: their rows against what one backward pass per sample and output gives."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from task_runs import attempt, committed, last, scalars, task_of

from workers import taskdir
from workers.data.digits import Digits
from workers.errors import ConfigError
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.optimizers.sgd import Sgd
from workers.seeds import role_seed
from workers.selections.maximum_entropy import MaximumEntropy
from workers.selections.pivoted_cholesky import PivotedCholesky
from workers.selections.random import Random
from workers.selections.rnd import Rnd
from workers.subsets import subset
from workers.workload import Model
from workers.workloads.select import Select, chosen_set
from workers.workloads.train_selected import TrainSelected

MODEL = Mlp(width=6, activation="tanh")
SELECT = Select(model=MODEL, method=MaximumEntropy(num_sets=4), pool_size=60, max_size=9, seed=2)


def points(root, select: Select) -> dict:
    return dict(taskdir.read_rows(root, committed(root, select), "select.points"))


def slow_kernel(select: Select, chosen: list[int]) -> np.ndarray:
    """The traced kernel of the production network at initialisation on training images, in float64."""
    images = Digits().load()
    module = select.model.build((1, 8, 8), 10, role_seed(select.seed, "init", select.seed_init)).double()
    weights, kernel = list(module.parameters()), np.zeros((len(chosen), len(chosen)))
    outputs_NC = module(torch.from_numpy(images.train_inputs[chosen]).double())
    for output in range(10):
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(one[output], weights, retain_graph=True)]).numpy() for one in outputs_NC
        ]
        kernel += np.array(rows) @ np.array(rows).T / 10
    return kernel


@pytest.mark.parametrize("model", [MODEL, Cnn(width=2, depth=1)], ids=["mlp", "cnn"])
def test_rows_are_those_of_the_production_networks_kernel_on_the_chosen_images(tmp_path, model: Model):
    select = dataclasses.replace(SELECT, model=model)
    found = scalars(committed(tmp_path, select))
    for size in {step for _, step in found}:
        shares = np.linalg.eigvalsh(kernel := slow_kernel(select, chosen_set(points(tmp_path, select), size).tolist())) / kernel.trace()
        entropy = -(shares * np.log(shares)).sum()
        assert found["entropy_traced", size] == pytest.approx(entropy, rel=1e-9)
        assert found["entropy_normalised_traced", size] == pytest.approx(entropy / np.log(size), rel=1e-9)
        assert found["effective_rank_traced", size] == pytest.approx(np.exp(entropy), rel=1e-9)
        assert found["trace_traced", size] == pytest.approx(kernel.trace() / size, rel=1e-9)
    assert {step for _, step in found} >= {2, 9}


@pytest.mark.parametrize("method", [Random(), Rnd(num_outputs=8, max_steps=30), MaximumEntropy(num_sets=4), PivotedCholesky()])
def test_chosen_images_are_in_the_pool_which_depends_on_the_seed_alone(tmp_path, method):
    columns = points(tmp_path, dataclasses.replace(SELECT, method=method))
    pool = subset(1438, 60, role_seed(2, "subset"))
    assert set(columns["index"]) <= set(pool.tolist())
    assert list(columns["label"]) == Digits().load().train_targets[list(columns["index"])].tolist()


def test_sets_in_the_table_are_the_same_for_every_largest_size(tmp_path):
    whole, smaller = (points(tmp_path, dataclasses.replace(SELECT, max_size=size)) for size in (9, 6))
    for size in range(1, 7):
        assert chosen_set(whole, size).tolist() == chosen_set(smaller, size).tolist()


def test_the_chosen_set_is_what_is_trained_on(tmp_path):
    """One step of gradient descent on all of it, from the production network's initialisation."""
    trained = TrainSelected(
        select=SELECT, set_size=5, batch_size=5, num_steps=1, optimizer=Sgd(learning_rate=0.5), dtype="float64", num_evaluations=2
    )
    found = scalars(committed(tmp_path, trained))
    images = Digits().load()
    module = MODEL.build((1, 8, 8), 10, role_seed(2, "init")).double()
    chosen = chosen_set(points(tmp_path, SELECT), 5)
    test = torch.from_numpy(images.test_inputs).double(), torch.from_numpy(images.test_targets)
    losses = [torch.nn.functional.cross_entropy(module(test[0]), test[1]).item()]
    loss = torch.nn.functional.cross_entropy(
        module(torch.from_numpy(images.train_inputs[chosen]).double()), torch.from_numpy(images.train_targets[chosen])
    )
    for weights, gradient in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True):
        weights.data -= 0.5 * gradient
    losses.append(torch.nn.functional.cross_entropy(module(test[0]), test[1]).item())
    assert [found["test_loss", 0], found["test_loss", 1]] == pytest.approx(losses, rel=1e-10)
    assert found["train_loss", 0] == pytest.approx(loss.item(), rel=1e-10)
    kernel = slow_kernel(SELECT, chosen.tolist())
    assert found["trace_traced", 0] == pytest.approx(kernel.trace() / 5, rel=1e-9)


def test_methods_that_share_a_seed_share_the_initialisation_and_the_test_set(tmp_path):
    losses = {
        scalars(committed(tmp_path, TrainSelected(select=dataclasses.replace(SELECT, method=method), set_size=4, num_steps=2)))[
            "test_loss", 0
        ]
        for method in (Random(), MaximumEntropy(num_sets=2), PivotedCholesky())
    }
    assert len(losses) == 1


def test_a_training_that_was_stopped_goes_on_to_equal_rows(tmp_path):
    trained = TrainSelected(select=SELECT, set_size=6, num_steps=40, batch_size=4)
    whole = committed(tmp_path / "whole", trained)
    committed(tmp_path, SELECT)
    stop = threading.Event()
    stop.set()
    attempt(tmp_path, trained, "first", stop=stop)
    assert not taskdir.is_committed(tmp_path, task_of(trained).commit_name)
    attempt(tmp_path, trained, "second", reraise=True)
    assert taskdir.read_commit(tmp_path, task_of(trained).commit_name).rows == whole.rows


def test_a_method_that_stopped_early_says_so_and_larger_sets_are_refused(tmp_path):
    select = dataclasses.replace(SELECT, method=Rnd(num_outputs=8, stop_below=2.0, max_steps=50))
    num_selected = int(last(committed(tmp_path, select))["num_selected"])
    assert 1 <= num_selected < 9
    columns = points(tmp_path, select)
    assert len(chosen_set(columns, num_selected)) == num_selected
    with pytest.raises(ConfigError, match=f"sets of up to {num_selected} samples, got set_size=9; raise select.max_size"):
        chosen_set(columns, 9)


def test_settings_that_do_not_fit_are_refused_before_anything_runs():
    with pytest.raises(ConfigError, match="set_size must be at most select.max_size=9, the samples that are chosen, got 10"):
        TrainSelected(select=SELECT, set_size=10)
    with pytest.raises(ConfigError, match="max_size must be at most pool_size=60, the samples to choose from, got 61"):
        dataclasses.replace(SELECT, max_size=61)


def test_a_pool_of_all_samples_must_hold_the_set(tmp_path):
    with pytest.raises(ConfigError, match="max_size must be at most 1438, the training samples of this data set, got 2000"):
        committed(tmp_path, dataclasses.replace(SELECT, pool_size=None, max_size=2000))


def test_sequences_of_tokens_are_refused():
    class Tokens(Mlp):
        reads_tokens = True

    with pytest.raises(ConfigError, match="reads sequences of tokens"):
        Select(model=Tokens())
