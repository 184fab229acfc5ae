"""The decomposition in training scripts: wrappers, low precision, ranks, windows and accumulation; the model is left as found."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from position_cases import CROSS_ENTROPY, MODELS, batch_of, cnn, half_squared, mlp, slow, tied
from position_ranks import SIZES, batch_of_rank, measure
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from workers.entk.norms import network, norms_by_parameter, squared_gradient_norms
from workers.entk.position import lnp
from workers.entk.position_trace import balanced_probes, rademacher
from workers.entk.position_windows import PositionAccumulator, PositionWindow, log_windows, step_sums
from workers.errors import ConfigError


@pytest.mark.parametrize("estimator", ["exact", "ghost", "hutchinson"])
def test_the_model_and_the_random_state_are_left_as_found(estimator):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).double().eval()
    model[3].train()
    CROSS_ENTROPY(model(batch_of(mlp(), 8)[0]), batch_of(mlp(), 8)[1]).mean().backward()
    before = copy.deepcopy(model)
    gradients, state = [weights.grad.clone() for weights in model.parameters()], torch.get_rng_state()
    with torch.no_grad():
        lnp(model, CROSS_ENTROPY, batch_of(mlp(), 8), estimator=estimator)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    for now, then in zip(model.modules(), before.modules()):
        assert now.training == then.training
        assert not now._forward_hooks and not now._forward_pre_hooks and not now._backward_hooks
    for name, value in model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]), name
    assert all(torch.equal(weights.grad, gradient) for weights, gradient in zip(model.parameters(), gradients))


def test_a_compiled_model_is_measured_as_the_one_under_it():
    model = mlp()
    assert lnp(torch.compile(model), CROSS_ENTROPY, batch_of(model, 20)) == lnp(model, CROSS_ENTROPY, batch_of(model, 20))


@dataclasses.dataclass
class Answer:
    """What models of language libraries return."""

    logits: torch.Tensor


class Answering(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return Answer(logits=self.model(inputs))


@pytest.mark.parametrize("estimator", ["exact", "ghost", "hutchinson"])
def test_logits_of_an_object_are_the_outputs(estimator):
    model = tied()
    options = {"estimator": estimator, "num_micro_batches": 4}
    found = lnp(Answering(model), CROSS_ENTROPY, batch_of(model, 8), **options)
    plain = lnp(model, CROSS_ENTROPY, batch_of(model, 8), **options)
    assert (found.chi_net, found.chi_pos) == pytest.approx((plain.chi_net, plain.chi_pos), rel=1e-10)


class Checkpointed(nn.Sequential):
    """Forgets its activations and computes them again."""

    def forward(self, inputs):
        for layer in self:
            inputs = checkpoint(layer, inputs, use_reentrant=False)
        return inputs


@pytest.mark.parametrize("estimator", ["auto", "hutchinson"])
def test_activation_checkpointing_changes_nothing(estimator):
    model = mlp()
    forgetful = Checkpointed(*model)
    batch, options = batch_of(model, 20), {"estimator": estimator, "num_probes": 200}
    plain, found = lnp(model, CROSS_ENTROPY, batch, **options), lnp(forgetful, CROSS_ENTROPY, batch, **options)
    assert found.delta_loss == pytest.approx(plain.delta_loss, rel=1e-12)
    assert found.chi_loss == pytest.approx(plain.chi_loss, rel=1e-12)
    assert abs(found.chi_net - slow(model, CROSS_ENTROPY, batch).chi_net) <= 4 * found.chi_net_probe_error + 1e-9


@pytest.mark.parametrize("estimator", ["ghost", "hutchinson"])
@pytest.mark.parametrize("model", [mlp, tied], ids=["samples", "sequences"])
def test_autocast_gives_the_decomposition_of_the_float_network_to_its_precision(model, estimator):
    model = model().float()
    inputs, targets = batch_of(model, 32)
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    exact = lnp(model, CROSS_ENTROPY, (inputs, targets), estimator=estimator, num_probes=50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lnp(model, CROSS_ENTROPY, (inputs, targets), estimator=estimator, num_probes=50)
    for name in ("chi_loss", "chi_net", "chi_pos", "delta_loss"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.05), name
        assert getattr(found, name) != getattr(exact, name), "bfloat16 was in use"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks measured."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(measure, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank-{rank}", weights_only=False) for rank in (0, 1)]


def test_gradients_of_all_ranks_are_summed_and_then_squared(ranks):
    model, parts = mlp(), [batch_of_rank(rank) for rank in (0, 1)]
    reference = slow(model, CROSS_ENTROPY, tuple(torch.cat(tensors) for tensors in zip(*parts)))
    found = ranks[0]["position"]
    assert found == dataclasses.replace(ranks[1]["position"], cross_check=found.cross_check)  # that is each rank's own
    assert found.delta_loss_self == pytest.approx(float(reference.gradients_NP.mean(0).square().sum()), rel=1e-10)
    assert found.chi_loss == pytest.approx(reference.chi_loss, rel=1e-10)
    assert found.chi_net == pytest.approx(reference.chi_net, rel=1e-10)
    assert (found.num_units, found.num_clusters, found.num_micro_batches) == (16, 16, 8)
    # rank 0 has clusters 0-9 in blocks k, k + 5; rank 1 has 10-15 in blocks k, k + 3
    blocks = [[k, k + SIZES[0] // 2] for k in range(5)] + [[10 + k, 10 + k + 3] for k in range(3)]
    sums = [reference.of_clusters(torch.tensor(block)) for block in blocks]
    pairs = [float(one @ two) for i, one in enumerate(sums) for j, two in enumerate(sums) if i != j]
    assert found.delta_loss == pytest.approx(sum(pairs) / (len(pairs) * 4), rel=1e-10)
    assert math.isfinite(found.cosine)


def test_windows_and_accumulators_sum_over_ranks_too(ranks):
    model, parts = mlp(), [batch_of_rank(rank) for rank in (0, 1)]
    reference = slow(model, CROSS_ENTROPY, tuple(torch.cat(tensors) for tensors in zip(*parts)))
    total = reference.gradients_NP.sum(0)
    unlike = float(total @ total - reference.gradients_NP.square().sum()) / (16 * 15)
    for rank in ranks:
        assert rank["window"].delta_loss == pytest.approx(unlike, rel=1e-10)
        unbiased, biased, num_units, num_micro_batches = rank["accumulated"]
        assert biased == pytest.approx(float(total @ total) / 256, rel=1e-10)
        pairs = [reference.gradients_NP[first : first + 2].sum(0) for first in range(0, 16, 2)]
        assert unbiased == pytest.approx((float(total @ total) - sum(float(one @ one) for one in pairs)) / (256 - 32), rel=1e-10)
        assert (num_units, num_micro_batches) == (16, 8)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_accumulated_micro_batches_of_unequal_sizes_give_the_pairs_of_unlike_ones(sizes, seed):
    draw = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(4, dtype=torch.float64, generator=draw) for _ in sizes]
    accumulator = PositionAccumulator()
    for gradient, size in zip(gradients, sizes):
        accumulator.add({"a": gradient[:3], "b": gradient[3:]}, num_units=size)
    pairs = [(i, j) for i in range(len(sizes)) for j in range(len(sizes)) if i != j]
    weight = sum(sizes[i] * sizes[j] for i, j in pairs)
    expected = sum(sizes[i] * sizes[j] * float(gradients[i] @ gradients[j]) for i, j in pairs) / weight if weight else math.nan
    assert accumulator.unbiased == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
    mean = sum(size * gradient for size, gradient in zip(sizes, gradients)) / sum(sizes) if sum(sizes) else None
    assert accumulator.biased == pytest.approx(math.nan if mean is None else float(mean @ mean), rel=1e-9, nan_ok=True)
    assert accumulator.num_units == sum(sizes)


def test_a_parameter_without_a_part_in_the_loss_counts_as_zero():
    accumulator = PositionAccumulator()
    for value in (1.0, 2.0):
        accumulator.add([None, torch.tensor([value])], num_units=1)
    assert accumulator.unbiased == 2.0


def test_gradients_that_do_not_fit_each_other_are_refused():
    accumulator = PositionAccumulator()
    accumulator.add([torch.ones(2)], num_units=1)
    with pytest.raises(ConfigError, match="each gradient must have the same tensors, got 2 after 1"):
        accumulator.add([torch.ones(2), torch.ones(2)], num_units=1)
    with pytest.raises(ConfigError, match="num_units must not be negative, got -1"):
        accumulator.add([torch.ones(2)], num_units=-1)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_the_sums_of_a_step_are_those_of_all_pairs_of_clusters(model):
    model = model()
    batch = batch_of(model, 6)
    reference = slow(model, CROSS_ENTROPY, batch)
    units, squared_units, energy, trace, square, squares, losses = step_sums(model, CROSS_ENTROPY, batch, num_probes=4000).tolist()
    by_cluster = [reference.of_clusters(torch.tensor([cluster])) for cluster in range(6)]
    assert units == len(reference.cluster_N)
    assert squared_units == units**2 / 6
    assert energy / units == pytest.approx(reference.chi_loss, rel=1e-10)
    assert square == pytest.approx(float(sum(by_cluster).square().sum()), rel=1e-9)
    assert squares == pytest.approx(sum(float(one.square().sum()) for one in by_cluster), rel=1e-9)
    assert trace / units == pytest.approx(reference.chi_net, rel=0.03)
    with torch.no_grad():
        assert losses / units == pytest.approx(float(CROSS_ENTROPY(model(batch[0]).flatten(0, -2), batch[1].flatten()).mean()), rel=1e-10)


@pytest.mark.parametrize("num_at_once", [None, 4])
@pytest.mark.parametrize("keep", [True, False])
def test_outputs_and_gradient_of_a_training_step_save_its_passes(num_at_once, keep):
    """The forward pass of the norms too, where the step has kept its graph and all samples go together."""
    model, num_passes = mlp(), []
    inputs, labels = batch_of(model, 9)
    outputs = model(inputs)
    gradient = torch.autograd.grad(CROSS_ENTROPY(outputs, labels).mean(), list(model.parameters()), retain_graph=keep)
    known = network(model, inputs)
    model.register_forward_hook(lambda *_: num_passes.append(1))
    found = step_sums(model, CROSS_ENTROPY, (inputs, labels), trained=(outputs, gradient), known=known, num_at_once=num_at_once)
    assert len(num_passes) == (3 if num_at_once else 0 if keep else 1)
    torch.testing.assert_close(found, step_sums(model, CROSS_ENTROPY, (inputs, labels)), rtol=1e-10, atol=0.0)


def test_outputs_by_other_operations_are_not_taken_for_those_of_the_network():
    model, num_passes = mlp(), []
    inputs, labels = batch_of(model, 9)
    known, other = network(model, inputs), nn.Sequential(nn.Linear(5, 3)).double()
    model.register_forward_hook(lambda *_: num_passes.append(1))
    probes = torch.ones(1, 9, 3, dtype=torch.float64)
    found, expected = (norms_by_parameter(known, inputs, probes, outputs) for outputs in (other(inputs), None))
    assert len(num_passes) == 2
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0)


def test_a_known_network_gives_equal_numbers():
    model, batch = cnn(), batch_of(cnn(), 12)
    assert lnp(model, CROSS_ENTROPY, batch, known=network(model, batch[0])) == lnp(model, CROSS_ENTROPY, batch)


def test_a_network_that_is_known_for_another_shape_is_refused():
    model = nn.Linear(5, 3).double()
    known = network(model, torch.randn(4, 1, 5, dtype=torch.float64))
    with pytest.raises(ConfigError, match="known for samples of another shape; find it out again"):
        norms_by_parameter(known, torch.randn(4, 2, 5, dtype=torch.float64), torch.ones(1, 4, 2, 3, dtype=torch.float64))


def test_a_network_that_reads_other_weights_than_before_is_refused():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(5, 3), nn.Linear(5, 3)]).double()

        def forward(self, inputs):
            return self.experts[int(len(inputs) > 3)](inputs)

    with pytest.raises(ConfigError, match="Before: Addmm of experts.0.bias and experts.0.weight; now: Addmm of experts.1.bias"):
        squared_gradient_norms(Routed(), torch.ones(4, 5, dtype=torch.float64), torch.ones(1, 4, 3, dtype=torch.float64))


@given(num_probes=st.integers(1, 3), num_clusters=st.integers(1, 40), num_outputs=st.integers(1, 12), seed=st.integers(0, 99))
def test_probes_are_vectors_of_an_orthogonal_basis_in_equal_numbers(num_probes, num_clusters, num_outputs, seed):
    like = torch.zeros(1, num_outputs, dtype=torch.float64)
    probes = balanced_probes(num_probes, like, num_clusters, torch.Generator().manual_seed(seed))
    assert probes.shape == (num_probes, num_clusters, num_outputs)
    if num_outputs > num_clusters:
        assert torch.equal(probes.abs(), torch.ones_like(probes))
        return
    same = probes @ probes.mT / num_outputs
    torch.testing.assert_close(same, same.round(), atol=1e-12, rtol=0.0)
    turns = same.round().sum(2)
    assert set(turns.unique().tolist()) <= {float(num_clusters // num_outputs), float(-(-num_clusters // num_outputs))}


def test_balanced_probes_estimate_chi_net_without_bias_and_better_than_signs():
    """7 samples and 3 outputs, which do not come out even."""
    model = mlp()
    inputs, _ = batch_of(model, 7)
    exact = slow(model, CROSS_ENTROPY, batch_of(model, 7)).chi_net
    outputs, draw = model(inputs).detach(), torch.Generator().manual_seed(0)
    spreads = {}
    for name, probes in (("balanced", balanced_probes(3000, outputs, 7, draw)), ("signs", rademacher((3000, 7, 3), outputs, draw))):
        values = squared_gradient_norms(model, inputs, probes).sum(1) / 7
        spreads[name] = float(values.std())
        assert abs(float(values.mean()) - exact) < 4 * spreads[name] / math.sqrt(3000), name
    assert spreads["balanced"] < 0.7 * spreads["signs"]


def test_a_window_is_a_ratio_of_means_weighted_by_units():
    window, model = PositionWindow(), mlp()
    batches = [batch_of(model, size, seed) for seed, size in enumerate((4, 9, 6))]
    for seed, batch in enumerate(batches):
        window.add(step_sums(model, half_squared, batch, seed=seed))
    found, steps = window.result(), [PositionWindow([sums]).result() for sums in window.steps]
    weights = [4, 9, 6]
    means = {
        name: sum(weight * getattr(step, name) for weight, step in zip(weights, steps)) / 19
        for name in ("delta_loss", "chi_loss", "chi_net", "delta_loss_self")
    }
    for name, mean in means.items():
        assert getattr(found, name) == pytest.approx(mean, rel=1e-10), name
    assert found.chi_pos == pytest.approx(means["delta_loss"] / (means["chi_loss"] * means["chi_net"]), rel=1e-10)
    assert found.chi_pos_self == pytest.approx(means["delta_loss_self"] / (means["chi_loss"] * means["chi_net"]), rel=1e-10)
    assert (found.num_units, found.num_steps) == (19, 3)
    assert all(math.isnan(step.chi_pos_standard_error) for step in steps)


@pytest.mark.parametrize("name", ["chi_loss", "chi_net", "chi_pos", "delta_loss"])
def test_standard_errors_of_a_window_are_the_spread_over_windows(name):
    """40 windows of 10 steps; the weights stay, so that all estimate one number."""
    model = mlp()
    truth = getattr(lnp(model, half_squared, batch_of(model, 2000, seed=999_999), estimator="exact"), name)
    scores = []
    for number in range(40):
        seeds = range(10 * number, 10 * number + 10)
        window = PositionWindow([step_sums(model, half_squared, batch_of(model, 16, seed), seed=seed) for seed in seeds])
        scores.append((getattr(window.result(), name) - truth) / getattr(window.result(), f"{name}_standard_error"))
    assert 0.7 < float(torch.tensor(scores).std()) < 1.4
    assert abs(float(torch.tensor(scores).mean())) < 0.7


@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_batches_of_a_finite_pool_estimate_the_gradient_of_the_pool_without_bias(size):
    """All batches without replacement from 6 samples, exactly; pairs alone are too low."""
    model = mlp()
    inputs, labels = batch_of(model, 6)
    reference = slow(model, CROSS_ENTROPY, (inputs, labels))
    batches = [list(rows) for rows in itertools.combinations(range(6), size)]
    steps = [step_sums(model, CROSS_ENTROPY, (inputs[rows], labels[rows])) for rows in batches]
    pool = float(reference.gradients_NP.mean(0).square().sum())
    assert PositionWindow(steps, pool_size=6).result().delta_loss == pytest.approx(pool, rel=1e-10)
    spread = float((reference.gradients_NP - reference.gradients_NP.mean(0)).square().sum()) / 6
    assert PositionWindow(steps).result().delta_loss == pytest.approx(pool - spread / 5, rel=1e-10)


def test_a_window_survives_an_interruption():
    window, model = PositionWindow(), mlp()
    for seed in range(3):
        window.add(step_sums(model, CROSS_ENTROPY, batch_of(model, 8, seed), seed=seed))
    assert PositionWindow.of_state(window.state()).result() == window.result()
    assert PositionWindow.of_state(window.state(), 40).result() == PositionWindow(window.steps, 40).result() != window.result()
    assert PositionWindow.of_state([]).steps == []
    with pytest.raises(ConfigError, match="the window holds no step"):
        PositionWindow().result()


@given(num_steps=st.integers(1, 30_000), per_decade=st.integers(1, 10), width=st.integers(1, 60))
def test_windows_are_disjoint_ordered_and_reach_from_the_first_step_to_the_last(num_steps, per_decade, width):
    windows = log_windows(num_steps, per_decade, width)
    steps = [step for window in windows for step in window]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == num_steps - 1
    assert all(1 <= len(window) <= width for window in windows)
    assert len(windows[-1]) == min(width, num_steps)


def test_windows_of_a_run_of_ten_thousand_steps():
    windows = log_windows(10_000)
    assert [window.start for window in windows[:12]] == [0, 1, 2, 3, 6, 10, 15, 25, 39, 63, 100, 158]
    assert windows[-2:] == (range(6309, 6319), range(9990, 10_000))
    assert sum(map(len, windows)) == 165


@pytest.mark.parametrize("name", ["num_steps", "per_decade", "width"])
def test_windows_of_nothing_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        log_windows(**{"num_steps": 10, name: 0})


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Dropout(0.1), "dropout is active in 1; call model.eval"),
        (nn.BatchNorm1d(3), "batch statistics are active in 1"),
    ],
)
@pytest.mark.parametrize("function", [lnp, step_sums])
def test_random_or_mixing_layers_are_refused_while_they_train(layer, reason, function):
    model = nn.Sequential(nn.Linear(5, 3), layer).double().train()
    with pytest.raises(ConfigError, match=reason):
        function(model, CROSS_ENTROPY, batch_of(mlp(), 4))
    function(model.eval(), CROSS_ENTROPY, batch_of(mlp(), 4))


@pytest.mark.parametrize(
    ("unit_loss", "message"),
    [
        (nn.CrossEntropyLoss(), 'shape \\(3,\\) for outputs \\(3, 3\\), got a single one; take reduction="none"'),
        (nn.MSELoss(reduction="sum"), 'take reduction="none"'),
        (lambda outputs, labels: outputs.square(), "for outputs \\(3, 3\\), got \\(3, 3\\); sum over what belongs to one unit"),
        (lambda outputs, labels: labels.double(), "does not depend on the model's outputs"),
    ],
)
def test_a_loss_that_is_not_one_number_per_unit_is_refused(unit_loss, message):
    targets = torch.randn(8, 3).double() if isinstance(unit_loss, nn.MSELoss) else batch_of(mlp(), 8)[1]
    with pytest.raises(ConfigError, match=message):
        lnp(mlp(), unit_loss, (batch_of(mlp(), 8)[0], targets))


def test_a_loss_that_needs_all_axes_gets_them():
    def with_axes(outputs_BSV, targets_BS):
        return functional.cross_entropy(outputs_BSV.transpose(1, 2), targets_BS, reduction="none")

    model = tied()
    found, flat = (lnp(model, unit_loss, batch_of(model, 8)) for unit_loss in (with_axes, CROSS_ENTROPY))
    assert found.chi_pos == pytest.approx(flat.chi_pos, rel=1e-10)
    assert found.chi_loss == pytest.approx(flat.chi_loss, rel=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "hutch"}, "estimator must be one of auto, exact, ghost, hutchinson, got 'hutch'"),
        ({"num_probes": 0}, "num_probes must be a whole number, at least 1, got 0"),
        ({"num_micro_batches": 0}, "num_micro_batches must be a whole number, at least 1, got 0"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask must be of dtype bool and shape \\(8,\\).*got torch.bool \\(3,\\)"),
        ({"mask": torch.ones(8)}, "mask must be of dtype bool and shape \\(8,\\).*got torch.float32 \\(8,\\)"),
        ({"preconditioner": {}}, "needs a tensor of shape \\(6, 5\\) for 0.weight, got nothing"),
        ({"preconditioner": {"0.weight": torch.ones(2)}}, "shape \\(6, 5\\) for 0.weight, got shape \\(2,\\)"),
        ({"preconditioner": torch.optim.Adam(mlp().parameters())}, "an optimiser has one after its first step"),
        ({"preconditioner": torch.optim.SGD(mlp().parameters())}, "the preconditioner of SGD is not known; known are Adam and AdamW"),
        (
            {"preconditioner": {name: -torch.ones_like(weights) for name, weights in mlp().named_parameters()}},
            "the preconditioner of 0.bias must not be negative, got -1.0",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 8), **options)


def test_a_preconditioner_has_no_ghost_norms():
    scales = {name: torch.ones_like(weights) for name, weights in mlp().named_parameters()}
    with pytest.raises(ConfigError, match='a preconditioner needs estimator="hutchinson" or "auto", got \'ghost\''):
        lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 8), estimator="ghost", preconditioner=scales)


def test_batches_and_models_that_cannot_be_are_refused():
    inputs, labels = batch_of(mlp(), 8)
    with pytest.raises(ConfigError, match="the batch is empty: it has shape \\(0, 5\\)"):
        lnp(mlp(), CROSS_ENTROPY, (inputs[:0], labels[:0]))
    with pytest.raises(ConfigError, match="the tensors of the batch must have one number of samples, got 8, 5"):
        lnp(mlp(), CROSS_ENTROPY, (inputs, labels[:5]))
    with pytest.raises(ConfigError, match="the probe set has dtype torch.float32, the model torch.float64"):
        lnp(mlp(), CROSS_ENTROPY, (inputs.float(), labels))
    for function in (lnp, step_sums):
        with pytest.raises(ConfigError, match="the inputs of a batch must be one tensor, got tuple; wrap the model"):
            function(mlp(), CROSS_ENTROPY, ((inputs, inputs), labels))
    with pytest.raises(ConfigError, match="no parameter with requires_grad=True"):
        lnp(mlp().requires_grad_(False), CROSS_ENTROPY, (inputs, labels))
    with pytest.raises(ConfigError, match="the last axis of the outputs must be outputs"):
        lnp(nn.Sequential(mlp(1), nn.Flatten(0)), half_squared, (inputs, labels))
    with pytest.raises(ConfigError, match="the first axis of the outputs must be that of the samples, got shape \\(6, 1\\) for 2 samples"):
        lnp(nn.Sequential(mlp(), nn.Flatten(0), nn.Unflatten(0, (-1, 1))), half_squared, (inputs, labels))
