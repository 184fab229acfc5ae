"""Training: resumed runs are bit-identical, seeds act by role, what diverges says so."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from task_runs import StopAfter, attempt, committed, contents, last, scalars, task_of

from workers import taskdir, training
from workers.data.cifar10 import Cifar10
from workers.data.digits import Digits
from workers.data.fashion_mnist import FashionMnist
from workers.data.power_law import PowerLaw
from workers.data.tokens import Tokens
from workers.errors import ConfigError
from workers.execute import execute
from workers.losses import loss_per_unit, residual
from workers.models.cnn import Cnn
from workers.models.llama import Llama
from workers.models.mlp import Mlp
from workers.models.wide_resnet import WideResnet
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.taskdir import Commit
from workers.workloads.train import Train

# batches do not divide the training set, and the run spans several epochs
SHORT = Train(train_size=200, batch_size=48, num_steps=23, num_evaluations=5, num_snapshots=4)


@pytest.mark.parametrize(
    "workload",
    [
        SHORT,
        replace(SHORT, optimizer=Sgd(momentum=0.9, nesterov=True, schedule="cosine", warmup_steps=5)),
        replace(SHORT, optimizer=Adam(weight_decay=0.01), dtype="float64"),
        replace(SHORT, model=Cnn(width=2), optimizer=Adam(schedule="linear"), num_steps=9),
        replace(SHORT, model=WideResnet(width=2, normalisation="batch"), optimizer=Adam(), num_steps=7),
        replace(SHORT, model=Mlp(width=64, depth=2, parameterisation="mup"), optimizer=Adam(), num_steps=7),
        replace(SHORT, optimizer=Sgd(langevin_temperature=1e-3), num_steps=7),
    ],
    ids=["sgd", "momentum", "adam", "cnn", "batch_norm", "mup", "langevin"],
)
@pytest.mark.parametrize("stops", [(1,), (4,), (2, 3, 1)])
def test_an_interrupted_run_ends_bit_identical_to_an_uninterrupted_one(tmp_path, workload, stops):
    whole = committed(tmp_path / "whole", workload)
    for number, stop in enumerate(stops):
        ended = attempt(tmp_path / "cut", workload, f"attempt-{number}", stop=StopAfter(stop))
        assert ended.outcome in ("interrupted", "timeout_progress"), ended
        assert ended.checkpoint == sum(stops[: number + 1])
    assert attempt(tmp_path / "cut", workload, "last").resumed_at == sum(stops)
    cut = taskdir.read_commit(tmp_path / "cut", task_of(workload).commit_name)
    assert cut.rows == whole.rows
    assert contents(tmp_path / "cut", cut) == contents(tmp_path / "whole", whole)


def test_checkpoints_by_the_clock_change_nothing(tmp_path):
    often = replace(SHORT, checkpoint_every_seconds=1e-9)
    messages: list[dict] = []
    ended = attempt(tmp_path / "often", often, report=messages.append)
    assert ended.outcome == "completed"
    assert [message["checkpoint"] for message in messages if "checkpoint" in message] == list(range(1, SHORT.num_steps))
    commit = taskdir.read_commit(tmp_path / "often", task_of(often).commit_name)
    assert commit.rows == committed(tmp_path / "calm", SHORT).rows


def test_which_snapshots_are_kept_changes_no_row(tmp_path):
    assert committed(tmp_path, SHORT).rows == committed(tmp_path, replace(SHORT, num_snapshots=2)).rows


def test_training_learns_the_digits(tmp_path):
    found = last(committed(tmp_path, Train()))
    assert found["test_accuracy"] > 0.85
    assert found["test_loss"] < 0.5


def test_the_loss_rows_are_those_of_the_snapshot(tmp_path):
    commit = committed(tmp_path, SHORT)
    module = SHORT.load_snapshot(taskdir.payload_path(tmp_path, commit, f"snapshot-{SHORT.num_steps}.safetensors"))
    images = Digits().load()
    outputs_NC = module(torch.from_numpy(images.test_inputs))
    labels_N = torch.from_numpy(images.test_targets)
    assert last(commit)["test_loss"] == pytest.approx(torch.nn.functional.cross_entropy(outputs_NC, labels_N).item(), rel=1e-5)
    assert last(commit)["test_accuracy"] == pytest.approx((outputs_NC.argmax(1) == labels_N).double().mean().item())


def test_first_updates_are_those_of_plain_gradient_descent(tmp_path):
    """The slow way: full batch, float64, autograd.grad and a subtraction."""
    workload = Train(
        train_size=64, batch_size=64, num_steps=3, num_snapshots=5, dtype="float64", loss="mse", optimizer=Sgd(learning_rate=0.03)
    )
    commit = committed(tmp_path, workload)
    images = Digits().load()

    def snapshot(step: int) -> torch.nn.Module:
        return workload.load_snapshot(taskdir.payload_path(tmp_path, commit, f"snapshot-{step}.safetensors"))

    from workers.seeds import role_seed
    from workers.subsets import subset

    chosen = subset(len(images.train_targets), 64, role_seed(0, "subset"))
    inputs_N, labels_N = torch.from_numpy(images.train_inputs[chosen]).double(), torch.from_numpy(images.train_targets[chosen])
    module = snapshot(0)
    for step in (1, 2, 3):
        loss = 0.5 * (module(inputs_N) - torch.nn.functional.one_hot(labels_N, 10)).square().sum(1).mean()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for weights, gradient in zip(module.parameters(), gradients):
                weights -= 0.03 * gradient
        for ours, slow in zip(snapshot(step).parameters(), module.parameters()):
            torch.testing.assert_close(ours, slow, rtol=1e-10, atol=1e-12)


def test_a_logit_temperature_divides_the_outputs_and_noise_of_a_step_has_its_variance(tmp_path):
    """The slow way, in float64: cross entropy of the outputs over 2.5, and draws of variance 2 rate temperature."""
    workload = Train(
        train_size=64,
        batch_size=64,
        num_steps=1,
        dtype="float64",
        logit_temperature=2.5,
        model=Mlp(width=300),
        optimizer=Sgd(learning_rate=0.03),
    )
    quiet, noisy = committed(tmp_path, workload), replace(workload, optimizer=Sgd(learning_rate=0.03, langevin_temperature=0.5))

    def network(of: Train, commit: Commit, step: int) -> torch.nn.Module:
        return of.load_snapshot(taskdir.payload_path(tmp_path, commit, f"snapshot-{step}.safetensors"))

    module, (inputs_N, labels_N) = (
        network(workload, quiet, 0),
        map(torch.from_numpy, (Digits().load().test_inputs, Digits().load().test_targets)),
    )
    loss = torch.nn.functional.cross_entropy(module(inputs_N.double()) / 2.5, labels_N)
    assert scalars(quiet)["test_loss", 0] == pytest.approx(loss.item(), rel=1e-12)
    pairs = zip(network(workload, quiet, 1).parameters(), network(noisy, committed(tmp_path, noisy), 1).parameters())
    noise = torch.cat([(other - one).flatten() for one, other in pairs])
    assert len(noise) > 20_000
    assert noise.var().item() == pytest.approx(2 * 0.03 * 0.5, rel=0.05)
    assert abs(noise.mean().item()) < 4 * (noise.var() / len(noise)).sqrt()


@pytest.mark.parametrize("halvings", [1, 3])
def test_gradients_of_smaller_pieces_add_up_to_the_same_but_for_rounding(tmp_path, halvings):
    """A batch of 48 in pieces of 24, and of 6; in float64, so that nothing but rounding is left."""
    workload = replace(SHORT, dtype="float64")
    whole, pieces = last(committed(tmp_path / "whole", workload)), tmp_path / "pieces"
    ended = execute(pieces, replace(task_of(workload), halvings=halvings), attempt="a", code="test", reraise=True)
    assert ended.outcome == "completed"
    found = last(taskdir.read_commit(pieces, task_of(workload).commit_name))
    assert found == pytest.approx(whole, rel=1e-9)


def test_memory_of_an_update_falls_with_the_piece(monkeypatch):
    """What is computed at once is never more than the piece."""
    seen = []
    module = Mlp(width=4).build((1, 8, 8), 10, 0)
    module.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    optimizer = Sgd().build(module.parameters())
    training.update(module, optimizer, 0.1, "mse", torch.randn(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64), num_at_once=4)
    assert seen == [4, 4, 2]


@pytest.mark.parametrize(("role", "same_start"), [("init", False), ("subset", True), ("order", True)])
def test_each_role_has_a_seed_of_its_own(tmp_path, role, same_start):
    one, other = committed(tmp_path, SHORT), committed(tmp_path, replace(SHORT, **{f"seed_{role}": 7}))
    start = contents(tmp_path, one)["snapshot-0.safetensors"] == contents(tmp_path, other)["snapshot-0.safetensors"]
    assert start == same_start
    assert last(one)["test_loss"] != last(other)["test_loss"]


def test_one_width_sees_the_same_images_as_another(tmp_path):
    seen = [last(committed(tmp_path, replace(SHORT, model=Mlp(width=width)))) for width in (4, 8)]
    assert seen[0]["unique_images"] == seen[1]["unique_images"] == 200


def test_sizes_and_compute(tmp_path):
    found = last(committed(tmp_path, SHORT))
    num_params = 64 * 32 + 32 + 32 * 10 + 10
    assert found["num_params"] == num_params
    assert found["images_seen"] == 23 * 48
    assert found["flops_6nd"] == 6 * num_params * 23 * 48
    # forward and weight gradient of both layers, input gradient of the second: 2 operations each
    assert found["flops_counted"] == 2 * (2 * 64 * 32 + 3 * 32 * 10) * 23 * 48


def test_a_run_that_diverges_is_committed_with_its_rows_up_to_there(tmp_path):
    ended = attempt(tmp_path, replace(SHORT, optimizer=Sgd(learning_rate=1e30)))
    assert ended.outcome == "diverged"
    assert "try a smaller optimizer.learning_rate" in ended.message
    commit = taskdir.read_commit(tmp_path, task_of(replace(SHORT, optimizer=Sgd(learning_rate=1e30))).commit_name)
    assert commit.status == "diverged"
    losses = [value for (name, _), value in scalars(commit).items() if name == "test_loss"]
    assert math.isfinite(losses[0])
    assert not math.isfinite(losses[-1])


@pytest.mark.parametrize(("field", "available"), [("train_size", 1438), ("test_size", 359)])
def test_more_images_than_there_are_is_refused(tmp_path, field, available):
    ended = attempt(tmp_path, replace(SHORT, **{field: 99999}))
    assert ended.outcome == "user_error"
    assert f"{field} must be at most {available}, the samples of this data set, got 99999" in ended.message


@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_the_residual_is_the_gradient_of_each_units_loss(name):
    outputs_NC = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels_N = torch.tensor([0, 1, 2, 3, 0, 1])
    (gradient_NC,) = torch.autograd.grad(loss_per_unit(name, outputs_NC, labels_N).sum(), outputs_NC)
    torch.testing.assert_close(residual(name, outputs_NC.detach(), labels_N), gradient_NC)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match="nesterov needs momentum above 0, got momentum 0.0"):
        Sgd(nesterov=True)


def test_noise_of_a_step_depends_on_seed_and_number_of_the_step_alone():
    def noise(seed: int, step: int) -> torch.Tensor:
        module = torch.nn.Linear(30, 30)
        before = module.weight.detach().clone()
        training.add_noise(torch.optim.SGD(module.parameters(), 1.0), 0.5, 1.0, seed, step)
        return module.weight.detach() - before

    torch.testing.assert_close(noise(1, 5), noise(1, 5), rtol=0, atol=1e-6)
    for other in (noise(2, 5), noise(1, 6)):
        assert torch.corrcoef(torch.stack([noise(1, 5).flatten(), other.flatten()]))[0, 1].abs() < 0.15


def test_the_test_images_are_never_trained_on():
    images = Digits().load()
    train = {image.tobytes() for image in images.train_inputs}
    shared = np.mean([image.tobytes() in train for image in images.test_inputs])
    assert shared == 0.0


def test_memory_grows_with_what_is_held_and_with_the_samples_that_are_taken(tmp_path):
    """Beside 1.5 GiB, in whole GiB; 2.0 at least."""

    def asked(**settings: Any) -> float:
        return Train(**settings).resources().memory_gib

    assert asked() == asked(data=FashionMnist(), train_size=None) == 2.0
    # 4 bytes a pixel of 60,000 images of 3,072 are 0.69 GiB; none is held but those that are taken
    assert asked(data=Cifar10(), train_size=None) == 3.0
    assert asked(data=Cifar10(), train_size=None, dtype="float64") == 4.0
    assert asked(data=Cifar10(), train_size=512) == 2.0
    # 2^20 + 2^10 samples of 2^12 modes: 16.02 GiB as they are kept, 32.03 GiB while they are made, and 16 GiB or 512 samples of a copy
    many = PowerLaw(num_modes=2**12, num_train=2**20, num_test=2**10)
    assert asked(data=many, train_size=None, loss="mse") == 66.0
    assert asked(data=many, train_size=512, test_size=512, loss="mse") == 50.0
    for name in ("train", "val"):  # 2^28 tokens, of which none takes room on the disk
        with (tmp_path / f"{name}.bin").open("wb") as file:
            file.truncate(2**29)
    tokens = Tokens(path=str(tmp_path), sequence_length=1024)
    # 20 bytes a token: 5 GiB a split
    assert asked(data=tokens, model=Llama(), train_size=None) == 12.0
    assert asked(data=tokens, model=Llama(), train_size=512, test_size=512) == 2.0
