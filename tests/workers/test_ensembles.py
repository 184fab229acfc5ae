"""Ensembles: each member learns as it would alone, whatever its rates, batches and temperature, and whoever is beside it."""

from dataclasses import replace

import pytest
import torch

from workers import training
from workers.ensembles.fused import stages
from workers.ensembles.products import batched_product
from workers.ensembles.stacked import Ensemble, Member
from workers.layers import parameter_groups
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.models.random_features import RandomFeatures
from workers.models.vit import Vit
from workers.models.wide_resnet import WideResnet
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd

NUM_MEMBERS, BATCH, NUM_CLASSES, SHAPE = 5, 12, 10, (1, 8, 8)
RATES = (0.03, 0.03, 0.01, 0.02, 0.02)  # neighbours in common, and not
DECAYS = (0.0, 0.1, 0.1, 0.1, 0.1)


def network(model, number, dtype=torch.float64):
    return model.build(SHAPE, NUM_CLASSES, number).to(dtype)


def optimisers(optimizer, rates=RATES, decays=DECAYS):
    return [replace(optimizer, learning_rate=rate, weight_decay=decay) for rate, decay in zip(rates, decays)]


def members(model, settings, dtype=torch.float64, temperatures=None):
    made = []
    for number, one in enumerate(settings):
        module = network(model, number, dtype)
        optimizer = one.build(parameter_groups(module, normalised=one.normalised))
        made.append(Member(module, optimizer, one.learning_rate, (temperatures or [1.0] * len(settings))[number]))
    return made


def batches(steps, *, shared, dtype=torch.float64, values=False):
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        lead = (BATCH,) if shared else (NUM_MEMBERS, BATCH)
        inputs = torch.randn(*lead, *SHAPE, generator=generator, dtype=dtype)
        targets = torch.randn(*lead, NUM_CLASSES, generator=generator, dtype=dtype)
        yield inputs, targets if values else targets.argmax(-1)


def alone(model, settings, loss, data, *, shared, dtype=torch.float64, temperatures=None):
    """The slow way: each network by itself."""
    found = []
    for number, one in enumerate(settings):
        module = network(model, number, dtype)
        optimizer = one.build(parameter_groups(module, normalised=one.normalised))
        temperature = (temperatures or [1.0] * len(settings))[number]
        for inputs, targets in data:
            batch = (inputs, targets) if shared else (inputs[number], targets[number])
            training.update(module, optimizer, one.learning_rate, loss, *batch, logit_temperature=temperature)
        found.append(module)
    return found


def together(model, settings, loss, data, *, shared, fused=True, dtype=torch.float64, temperatures=None, num_at_once=None):
    made = members(model, settings, dtype, temperatures)
    ensemble = Ensemble(made, settings[0].build, loss, fused=fused)
    for inputs, targets in data:
        ensemble.update([one.learning_rate for one in settings], inputs, targets, shared=shared, num_at_once=num_at_once)
    return [member.module for member in made]


def assert_equal_weights(ours, theirs, **tolerance):
    for one, other in zip(ours, theirs, strict=True):
        for mine, slow in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, slow, **tolerance)


SGD = Sgd(momentum=0.9, nesterov=True)
CASES = {
    "relu": (Mlp(width=6), Sgd(), "cross_entropy"),
    "momentum": (Mlp(width=6, depth=2, activation="gelu"), SGD, "mse"),
    "adam": (Mlp(width=6, depth=2, activation="tanh", bias=False), Adam(), "cross_entropy"),
    "ntk": (Mlp(width=6, depth=3, activation="erf", parameterisation="ntk"), Adam(), "mse"),
    "mup": (Mlp(width=64, depth=2, parameterisation="mup"), Adam(), "cross_entropy"),
    "linear": (Mlp(depth=0), SGD, "cross_entropy"),
}
OTHERS = {
    "cnn": (Cnn(width=2), Adam(), "cross_entropy"),
    "random_features": (RandomFeatures(), SGD, "cross_entropy"),
    "vit": (Vit(width=16, depth=1), SGD, "cross_entropy"),
}


def test_dense_layers_that_end_in_an_activation_are_another_kind_of_network():
    assert stages(torch.nn.Sequential(*network(Mlp(), 0), torch.nn.ReLU())) is None


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(("case", "fused"), [*((one, True) for one in CASES), *((one, False) for one in ("momentum", "mup", *OTHERS))])
def test_members_learn_as_they_would_alone(case, fused, shared):
    model, optimizer, loss = {**CASES, **OTHERS}[case]
    settings, data = optimisers(optimizer), list(batches(8, shared=shared))
    assert (stages(network(model, 0)) is not None) == (case in CASES)
    ours = together(model, settings, loss, data, shared=shared, fused=fused)
    assert_equal_weights(ours, alone(model, settings, loss, data, shared=shared), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("fused", [False, True])
def test_values_as_targets_temperatures_and_pieces_of_a_batch_are_those_of_training_alone(fused):
    model, settings = Mlp(width=6), optimisers(Sgd())
    values = list(batches(3, shared=False, values=True))
    ours = together(model, settings, "mse", values, shared=False, fused=fused, num_at_once=5)
    assert_equal_weights(ours, alone(model, settings, "mse", values, shared=False), rtol=1e-9, atol=1e-11)
    labels, temperatures = list(batches(3, shared=True)), [0.5, 1.0, 2.0, 4.0, 8.0]
    how = {"shared": True, "temperatures": temperatures}
    ours = together(model, settings, "cross_entropy", labels, fused=fused, **how)
    assert_equal_weights(ours, alone(model, settings, "cross_entropy", labels, **how), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer", [Adam(), SGD], ids=["adam", "momentum"])
def test_fifty_steps_in_float32_are_equal_to_one_part_in_ten_thousand(optimizer, fused):
    """As large as in a study, so that the products of large matrices are used."""
    model, settings = Mlp(width=256), optimisers(optimizer, rates=(1e-3,) * 3, decays=(0.0,) * 3)
    generator = torch.Generator().manual_seed(3)
    data = [(torch.randn(3, 70, *SHAPE, generator=generator), torch.randint(0, 10, (3, 70), generator=generator)) for _ in range(50)]
    ours = together(model, settings, "cross_entropy", data, shared=False, fused=fused, dtype=torch.float32)
    theirs = alone(model, settings, "cross_entropy", data, shared=False, dtype=torch.float32)
    for one, other in zip(ours, theirs, strict=True):
        mine, slow = (torch.cat([values.flatten() for values in module.parameters()]) for module in (one, other))
        assert (mine - slow).norm() / slow.norm() < 1e-4


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_on_one_thread_what_a_member_learns_does_not_depend_on_the_others(shared, fused):
    """Bit for bit: five together, and the fourth alone; with products that oneDNN computes, and others."""
    model, settings = Mlp(width=2048), optimisers(Adam())
    data = list(batches(5, shared=shared, dtype=torch.float32))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        five = together(model, settings, "cross_entropy", data, shared=shared, fused=fused, dtype=torch.float32)
        own = [(inputs if shared else inputs[3:4], targets if shared else targets[3:4]) for inputs, targets in data]
        made = members(model, settings, torch.float32)[3:4]
        ensemble = Ensemble(made, settings[0].build, "cross_entropy", fused=fused)
        for inputs, targets in own:
            ensemble.update([settings[3].learning_rate], inputs, targets, shared=shared)
    finally:
        torch.set_num_threads(before)
    assert_equal_weights([five[3]], [made[0].module], rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_members_learn_on_a_gpu_as_on_a_cpu(fused):
    model, settings, data = Mlp(width=6, depth=2), optimisers(Adam()), list(batches(8, shared=False))
    made = []
    for number, one in enumerate(settings):
        module = network(model, number).to("cuda")
        made.append(Member(module, one.build(parameter_groups(module, normalised=one.normalised)), one.learning_rate))
    ensemble = Ensemble(made, settings[0].build, "cross_entropy", fused=fused)
    for inputs, targets in data:
        ensemble.update([one.learning_rate for one in settings], inputs.to("cuda"), targets.to("cuda"), shared=False)
    ours = [member.module.to("cpu") for member in made]
    assert_equal_weights(ours, alone(model, settings, "cross_entropy", data, shared=False), rtol=1e-7, atol=1e-9)


def test_a_member_that_diverges_does_not_touch_the_others():
    model, loss, data = Mlp(width=6), "mse", list(batches(30, shared=False))
    settings = optimisers(Sgd(), rates=(0.03, 1e9, 0.01, 0.02, 0.02))
    ours = together(model, settings, loss, data, shared=False)
    assert not torch.isfinite(next(ours[1].parameters())).all()
    theirs = alone(model, settings, loss, data, shared=False)
    others = [0, 2, 3, 4]
    assert_equal_weights([ours[i] for i in others], [theirs[i] for i in others], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", [Adam(), SGD, Sgd()], ids=["adam", "momentum", "sgd"])
def test_states_that_were_lent_continue_bit_identically_in_another_ensemble(optimizer):
    """What a checkpoint holds is what a single run's would, and members may go on in other company."""
    model, data = Mlp(width=6), list(batches(6, shared=False))
    settings = optimisers(optimizer)
    rates = [one.learning_rate for one in settings]
    whole = together(model, settings, "mse", data, shared=False)
    made = members(model, settings)
    first = Ensemble(made, settings[0].build, "mse")
    for inputs, targets in data[:3]:
        first.update(rates, inputs, targets, shared=False)
    first.lend_states()
    stored = [{k: v.clone() for k, v in training.state(member.module, member.optimizer).items()} for member in made]
    again = members(model, settings)
    for member, tensors in zip(again, stored, strict=True):
        training.set_state(member.module, member.optimizer, tensors)
    for chosen in (slice(0, 2), slice(2, 5)):
        ensemble = Ensemble(again[chosen], settings[0].build, "mse")
        for inputs, targets in data[3:]:
            ensemble.update(rates[chosen], inputs[chosen], targets[chosen], shared=False)
    assert_equal_weights([member.module for member in again], whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_losses_are_those_of_each_member(shared, fused):
    model, settings = Mlp(width=6), optimisers(Sgd())
    ensemble = Ensemble(members(model, settings), settings[0].build, "cross_entropy", fused=fused)
    ((inputs, targets),) = batches(1, shared=shared)
    found = ensemble.losses(inputs, targets, shared=shared) / BATCH
    for number, member in enumerate(ensemble.members):
        batch = (inputs, targets) if shared else (inputs[number], targets[number])
        assert found[number].tolist() == pytest.approx(training.evaluate(member.module, "cross_entropy", *batch))


def test_networks_with_running_means_are_refused():
    with pytest.raises(
        ValueError, match="an ensemble holds networks without running means, got one that normalises batches; train it alone"
    ):
        Ensemble(members(WideResnet(width=2, normalisation="batch"), optimisers(Sgd())), Sgd().build, "mse")


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(("first_shared", "second_shared"), [(False, False), (True, False), (False, True)])
def test_products_of_large_matrices_are_those_in_float64(num_threads, first_shared, second_shared):
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(3, 33, 520, generator=generator), torch.randn(3, 70, 520, generator=generator).mT
    first = first[:1].expand(3, -1, -1) if first_shared else first
    second = second[:1].expand(3, -1, -1) if second_shared else second
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        found = batched_product(first, second)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.double(), first.double() @ second.double(), rtol=1e-4, atol=1e-4)
