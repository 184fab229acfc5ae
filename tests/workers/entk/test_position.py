"""The decomposition against Jacobians of single backward passes: values, estimators, errors, masks, layers, preconditioners."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from position_cases import CROSS_ENTROPY, LOSSES, MODELS, Encoder, Recurrent, Shared, batch_of, cnn, half_squared, mlp, slow, tied
from torch import nn
from torch.nn import functional

from workers.entk import position_trace
from workers.entk.kernels import loss_gram
from workers.entk.position import lnp
from workers.entk.position_windows import step_sums
from workers.errors import ConfigError, Diverged


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("unit_loss", LOSSES.values(), ids=LOSSES.keys())
def test_the_product_is_the_squared_gradient_and_the_mean_over_modes_of_the_dense_kernel(model, unit_loss):
    model = model()
    batch = batch_of(model, 4)
    found, reference = lnp(model, unit_loss, batch, estimator="exact"), slow(model, unit_loss, batch)
    jacobian, residual = reference.jacobian_NCP.flatten(0, 1), reference.residual_NC.flatten() / found.num_units
    gradient_square = float((jacobian.T @ residual).square().sum())
    eigenvalues, modes = torch.linalg.eigh(jacobian @ jacobian.T)
    weights = (modes.T @ residual).square() / residual.square().sum()
    assert found.chi_pos_self == pytest.approx(float((weights * eigenvalues).sum() / eigenvalues.sum()), rel=1e-12)
    assert found.delta_loss_self == pytest.approx(gradient_square, rel=1e-12)
    assert found.chi_loss * found.chi_net * found.chi_pos_self == pytest.approx(gradient_square, rel=1e-12)
    assert found.chi_loss_raw * found.chi_net_raw * found.chi_pos == pytest.approx(found.delta_loss, rel=1e-10)
    assert found.chi_loss == pytest.approx(reference.chi_loss, rel=1e-10)
    assert found.chi_net == pytest.approx(reference.chi_net, rel=1e-10)
    assert found.chi_net_raw == pytest.approx(float(eigenvalues.sum()), rel=1e-10)
    assert found.chi_loss_raw == pytest.approx(float(residual.square().sum()), rel=1e-10)


@pytest.mark.parametrize("kind", [Recurrent, Encoder, Shared])
@pytest.mark.parametrize("estimator", ["exact", "ghost"])
def test_any_architecture_has_the_jacobians_of_plain_backward_passes(kind, estimator):
    torch.manual_seed(0)
    model = kind().double().eval()
    batch = batch_of(model, 20)
    found, reference = lnp(model, CROSS_ENTROPY, batch, estimator=estimator, num_probes=32), slow(model, CROSS_ENTROPY, batch)
    assert found.delta_loss_self == pytest.approx(float(reference.gradients_NP.mean(0).square().sum()), rel=1e-12)
    assert abs(found.chi_net / reference.chi_net - 1) < 1e-10 + 4 * found.chi_net_probe_error / reference.chi_net
    assert found.chi_net_probe_error < 0.03 * reference.chi_net
    assert found.cross_check.difference < 1e-12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_a_gpu_gives_what_the_cpu_gives(model):
    model = model()
    batch = batch_of(model, 8)
    here = lnp(model, CROSS_ENTROPY, batch, estimator="exact")
    there = lnp(model.cuda(), CROSS_ENTROPY, tuple(tensor.cuda() for tensor in batch), estimator="exact")
    for name in ("chi_loss", "chi_net", "chi_pos", "delta_loss", "chi_pos_standard_error", "cosine"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=1e-9), name


@settings(max_examples=25, deadline=None)
@given(clusters=st.integers(2, 9), blocks=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_unbiased_estimate_is_the_sum_over_pairs_of_unlike_micro_batches(clusters, blocks, seed):
    """Masks leave micro-batches of unequal numbers of units, some of none."""
    model = tied(seed)
    batch = batch_of(model, clusters, seed)
    mask = torch.rand(batch[1].shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    mask[0, 0] = mask[1, 0] = True
    found, reference = lnp(model, CROSS_ENTROPY, batch, mask=mask, num_micro_batches=blocks), slow(model, CROSS_ENTROPY, batch, mask)
    blocks = min(blocks, clusters)
    parts = [torch.arange(clusters)[first::blocks] for first in range(blocks)]
    sums, sizes = [reference.of_clusters(part) for part in parts], [int(torch.isin(reference.cluster_N, part).sum()) for part in parts]
    pairs = [(i, j) for i in range(blocks) for j in range(blocks) if i != j]
    slow_value = sum(float(sums[i] @ sums[j]) for i, j in pairs) / sum(sizes[i] * sizes[j] for i, j in pairs)
    assert found.delta_loss == pytest.approx(slow_value, rel=1e-8, abs=1e-12)
    assert found.num_units == int(mask.sum())
    assert found.num_clusters == int(mask.any(1).sum())
    assert found.chi_pos == pytest.approx(slow_value / (found.chi_loss * found.chi_net), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("model", [mlp, tied], ids=["samples", "sequences"])
def test_self_is_inflated_by_kappa_over_n_and_the_unbiased_estimate_is_not(model):
    """Over many batches from one pool; the pool's own gradient is the truth."""
    model = model()
    pool = batch_of(model, 60)
    everything = slow(model, half_squared, pool)
    true_delta = float(everything.gradients_NP.mean(0).square().sum())
    found = []
    for seed in range(150):
        rows = torch.randint(60, (8,), generator=torch.Generator().manual_seed(seed))
        found.append(lnp(model, half_squared, (pool[0][rows], pool[1][rows]), num_micro_batches=8))
    delta, delta_self = (torch.tensor([getattr(one, name) for one in found]) for name in ("delta_loss", "delta_loss_self"))
    kappa = torch.tensor([one.kappa_over_units * one.chi_loss * one.chi_net for one in found])
    clusters = torch.unique(everything.cluster_N)
    units = len(everything.cluster_N) // len(clusters) * 8
    true_kappa = sum(float(everything.of_clusters(one).square().sum()) for one in clusters) / len(clusters) * 8 / units**2
    assert abs(float(delta.mean()) - true_delta) < 4 * float(delta.std()) / math.sqrt(len(delta))
    assert float(kappa.mean()) == pytest.approx(true_kappa, rel=0.05)
    # (1 - 1/8) of the truth and kappa / N, so more than the truth by their difference
    inflation, error = delta_self - delta, float((delta_self - delta).std()) / math.sqrt(len(delta))
    assert abs(float(inflation.mean()) - (true_kappa - true_delta / 8)) < 4 * error
    assert float(inflation.mean()) > 10 * error


@pytest.mark.parametrize("model", [mlp, tied], ids=["samples", "sequences"])
@pytest.mark.parametrize(("size", "blocks"), [(2, 2), (3, 2), (4, 2), (4, 3), (4, 4)])
def test_batches_of_a_finite_pool_estimate_the_gradient_of_the_pool_without_bias(model, size, blocks):
    """All batches without replacement from 4 clusters in all orders, exactly; pairs alone are too low."""
    model = model()
    inputs, targets = batch_of(model, 4)
    gradients_NP = slow(model, CROSS_ENTROPY, (inputs, targets)).gradients_NP
    gradients_BP = gradients_NP.unflatten(0, (4, -1)).mean(1)
    pool = float(gradients_BP.mean(0).square().sum())
    spread = float((gradients_BP - gradients_BP.mean(0)).square().sum()) / 4
    batches = [(inputs[list(rows)], targets[list(rows)]) for rows in itertools.permutations(range(4), size)]
    mean = {}
    for pool_size in (4, None):
        found = [lnp(model, CROSS_ENTROPY, batch, num_micro_batches=blocks, num_probes=1, pool_size=pool_size) for batch in batches]
        assert all(sum(layer.delta_loss for layer in one.layers.values()) == pytest.approx(one.delta_loss) for one in found)
        assert all(one.chi_pos == pytest.approx(one.delta_loss / (one.chi_loss * one.chi_net)) for one in found)
        mean[pool_size] = sum(one.delta_loss for one in found) / len(found)
        if size == 4 and pool_size:
            assert all(one.delta_loss == pytest.approx(one.delta_loss_self, rel=1e-10) for one in found)
    assert mean[4] == pytest.approx(pool, rel=1e-10)
    assert mean[None] == pytest.approx(pool - spread / 3, rel=1e-10)


def test_the_error_beside_a_large_pool_is_that_of_the_distribution():
    model = mlp()
    batch = batch_of(model, 16)
    found, finite = (lnp(model, CROSS_ENTROPY, batch, pool_size=size) for size in (None, 10**6))
    assert finite.delta_loss_standard_error == pytest.approx(found.delta_loss_standard_error, rel=1e-3)
    assert finite.kappa_over_units == found.kappa_over_units


def test_a_pool_below_the_batch_and_one_of_two_batches_are_refused():
    model = mlp()
    batch = batch_of(model, 8)
    with pytest.raises(ConfigError, match="pool_size must be at least 8, the clusters of the batch, got 7"):
        lnp(model, CROSS_ENTROPY, batch, pool_size=7)
    with pytest.raises(ConfigError, match="pool_size is for one batch; two batches .* leave out one of the two"):
        lnp(model, CROSS_ENTROPY, batch, batch, pool_size=100)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("estimator", ["ghost", "hutchinson"])
def test_probes_estimate_chi_net_within_the_error_that_they_state(model, estimator):
    """z-scores of 60 seeds, on one batch and against its exact value."""
    model = model()
    batch = batch_of(model, 6)
    exact = slow(model, CROSS_ENTROPY, batch).chi_net
    found = [lnp(model, CROSS_ENTROPY, batch, estimator=estimator, num_micro_batches=3, num_probes=16, seed=seed) for seed in range(60)]
    scores = torch.tensor([(one.chi_net - exact) / one.chi_net_probe_error for one in found])
    assert 0.7 < float(scores.std()) < 1.3
    assert abs(float(scores.mean())) < 4 / math.sqrt(60)


def test_independent_probes_of_each_cluster_are_more_exact_than_those_of_a_whole_batch():
    model = mlp()
    batch = batch_of(model, 32)
    errors = {
        name: lnp(model, CROSS_ENTROPY, batch, estimator=name, num_micro_batches=2, num_probes=32).chi_net_probe_error
        for name in ("ghost", "hutchinson")
    }
    assert errors["hutchinson"] > 3 * errors["ghost"]


@pytest.mark.parametrize("estimator", ["exact", "ghost"])
@pytest.mark.parametrize("name", ["chi_loss", "chi_net", "chi_pos", "delta_loss"])
def test_standard_errors_are_the_spread_over_batches(name, estimator):
    """60 batches from one population, whose mean is that of 2,000 samples."""
    model = mlp()
    truth = lnp(model, half_squared, batch_of(model, 2000, seed=999), estimator="exact")
    found = [lnp(model, half_squared, batch_of(model, 64, seed), estimator=estimator, seed=seed) for seed in range(60)]
    scores = torch.tensor([(getattr(one, name) - getattr(truth, name)) / getattr(one, f"{name}_standard_error") for one in found])
    assert 0.7 < float(scores.std()) < 1.4
    assert abs(float(scores.mean())) < 0.6


def test_masked_units_are_as_if_they_were_not_there():
    model = mlp()
    inputs, labels = batch_of(model, 12)
    mask = torch.arange(12) % 3 != 1
    masked = lnp(model, CROSS_ENTROPY, (inputs, labels), mask=mask, num_micro_batches=12)
    dropped = lnp(model, CROSS_ENTROPY, (inputs[mask], labels[mask]), num_micro_batches=8)
    for name in ("chi_loss", "chi_net", "chi_pos", "delta_loss", "kappa_over_units", "chi_pos_standard_error", "mean_loss", "num_units"):
        assert getattr(masked, name) == pytest.approx(getattr(dropped, name), rel=1e-10), name


def test_ignored_targets_are_masked():
    model = tied()
    tokens, targets = batch_of(model, 6)
    mask = torch.rand(targets.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    ignored = lnp(model, CROSS_ENTROPY, (tokens, torch.where(mask, targets, -100)))
    assert ignored == replace(lnp(model, CROSS_ENTROPY, (tokens, targets), mask=mask), cross_check=ignored.cross_check)


def test_a_loss_may_keep_an_axis_of_one_output():
    model, targets = mlp(num_outputs=1), torch.rand(8, 1).double()
    x, bce = batch_of(model, 8)[0], nn.BCEWithLogitsLoss(reduction="none")
    kept, summed = (lnp(model, loss, (x, targets)) for loss in (bce, lambda outputs, targets: bce(outputs, targets).sum(-1)))
    assert (kept.delta_loss, kept.chi_pos) == (summed.delta_loss, summed.chi_pos)


def test_targets_that_are_no_numbers_count_only_where_they_are_masked():
    model, inputs = mlp(1), batch_of(mlp(), 6)[0]
    targets = torch.where(torch.arange(6) != 2, inputs[:, 0], torch.nan)

    def squared(outputs_NC, targets_N):
        return (outputs_NC[:, 0] - targets_N).square()

    with pytest.raises(Diverged, match="the mean loss is nan: parameters, outputs or targets hold numbers that are not finite"):
        lnp(model, squared, (inputs, targets))
    found = lnp(model, squared, (inputs, targets), mask=~targets.isnan(), num_micro_batches=6)
    kept = [0, 1, 3, 4, 5]
    assert found.chi_pos == pytest.approx(lnp(model, squared, (inputs[kept], targets[kept])).chi_pos, rel=1e-10)


class Large(nn.Module):
    """Multiplies by what two of them cannot."""

    def forward(self, inputs):
        return 1e200 * inputs


def test_a_network_that_diverged_is_reported():
    model = mlp()
    with torch.no_grad():
        model[0].bias[0] = torch.nan
    with pytest.raises(Diverged, match="the weight 0.bias has 1 entries that are not finite"):
        lnp(model, CROSS_ENTROPY, batch_of(model, 6), estimator="hutchinson")
    model = nn.Sequential(mlp(), nn.Hardtanh(), *[Large() for _ in range(2)])
    with pytest.raises(Diverged, match="the outputs are not finite; the network diverged"):
        lnp(model, CROSS_ENTROPY, batch_of(mlp(), 6))


def test_layers_sum_to_the_whole():
    model = cnn()
    found, reference = lnp(model, CROSS_ENTROPY, batch_of(model, 6), estimator="exact"), slow(model, CROSS_ENTROPY, batch_of(model, 6))
    assert list(found.layers) == [name for name, _ in model.named_parameters()]
    assert sum(layer.chi_net for layer in found.layers.values()) == pytest.approx(found.chi_net)
    assert sum(layer.delta_loss for layer in found.layers.values()) == pytest.approx(found.delta_loss)
    assert sum(layer.chi_net * layer.chi_pos for layer in found.layers.values()) == pytest.approx(found.chi_net * found.chi_pos)
    first = next(model.parameters()).numel()
    expected = float(reference.jacobian_NCP[:, :, :first].square().sum((1, 2)).mean())
    assert found.layers["0.weight"].chi_net == pytest.approx(expected, rel=1e-10)
    assert found.layers["0.weight"].chi_net_standard_error > 0


def test_frozen_parameters_do_not_count():
    model = mlp()
    whole = lnp(model, CROSS_ENTROPY, batch_of(model, 6), estimator="exact")
    model[0].requires_grad_(False)
    readout = lnp(model, CROSS_ENTROPY, batch_of(model, 6), estimator="exact")
    assert list(readout.layers) == ["2.weight", "2.bias"]
    assert readout.layers["2.weight"] == pytest.approx(whole.layers["2.weight"])
    assert readout.chi_net == pytest.approx(sum(whole.layers[name].chi_net for name in ("2.weight", "2.bias")))


def test_two_batches_give_the_product_of_their_gradients():
    model = mlp()
    one, two = batch_of(model, 6, 1), batch_of(model, 9, 2)
    found = lnp(model, CROSS_ENTROPY, one, two, estimator="exact")
    left, right = slow(model, CROSS_ENTROPY, one), slow(model, CROSS_ENTROPY, two)
    first, second = left.gradients_NP.mean(0), right.gradients_NP.mean(0)
    assert found.delta_loss == pytest.approx(float(first @ second), rel=1e-10)
    assert found.chi_loss == pytest.approx(math.sqrt(left.chi_loss * right.chi_loss), rel=1e-10)
    assert found.chi_net == pytest.approx(math.sqrt(left.chi_net * right.chi_net), rel=1e-10)
    assert found.cosine == pytest.approx(float(functional.cosine_similarity(first, second, dim=0)), rel=1e-10)
    assert found.chi_pos == pytest.approx(found.delta_loss / (found.chi_loss * found.chi_net), rel=1e-10)
    assert (found.num_units, found.num_units_other, found.cross) == (6, 9, True)
    norms = [part.residual_NC.norm() / len(part.residual_NC) for part in (left, right)]
    assert found.chi_loss_raw == pytest.approx(float(norms[0] * norms[1]), rel=1e-10)


def test_the_error_of_two_batches_is_their_spread():
    model = mlp()
    found = [lnp(model, half_squared, batch_of(model, 48, seed), batch_of(model, 32, 1000 + seed), estimator="exact") for seed in range(60)]
    values = torch.tensor([one.chi_pos for one in found])
    stated = torch.tensor([one.chi_pos_standard_error for one in found]).square().mean().sqrt()
    assert 0.7 < float(values.std() / stated) < 1.3


def test_the_cosine_of_one_batch_is_that_of_its_halves():
    model = mlp()
    batch = batch_of(model, 8)
    reference = slow(model, CROSS_ENTROPY, batch)
    halves = [reference.of_clusters(torch.arange(8)[first::2]) for first in (0, 1)]
    expected = float(functional.cosine_similarity(*halves, dim=0))
    assert lnp(model, CROSS_ENTROPY, batch).cosine == pytest.approx(expected, rel=1e-10)


def test_a_preconditioner_is_a_change_of_parameters():
    """theta = P^(1/2) phi has the gradients and the kernel of P."""
    model = mlp()
    batch = batch_of(model, 5)
    scales = {name: torch.rand_like(weights) + 0.1 for name, weights in model.named_parameters()}
    root_P = torch.cat([scale.flatten() for scale in scales.values()]).sqrt()
    reference = slow(model, CROSS_ENTROPY, batch)
    found = lnp(model, CROSS_ENTROPY, batch, preconditioner=scales, num_probes=2000)
    assert found.delta_loss_self == pytest.approx(float((reference.gradients_NP.mean(0) * root_P).square().sum()), rel=1e-10)
    expected = float((reference.jacobian_NCP * root_P).square().sum((1, 2)).mean())
    assert abs(found.chi_net - expected) < 4 * found.chi_net_probe_error
    assert found.chi_net_probe_error < 0.02 * expected


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_preconditioner_of_adam_is_the_step_that_it_takes(kind, amsgrad):
    """Without momentum a step is -rate P g."""
    model = mlp()
    inputs, labels = batch_of(model, 6)
    optimizer = kind(model.parameters(), lr=1e-3, betas=(0.0, 0.9), eps=1e-3, weight_decay=0.0, amsgrad=amsgrad)
    for _ in range(3):
        optimizer.zero_grad()
        CROSS_ENTROPY(model(inputs), labels).mean().backward()
        before = [weights.detach().clone() for weights in model.parameters()]
        gradients = [weights.grad.clone() for weights in model.parameters()]
        optimizer.step()
    moved = sum(float(((old - new.detach()) * g).sum()) for old, new, g in zip(before, model.parameters(), gradients))
    with torch.no_grad():
        for weights, old in zip(model.parameters(), before):
            weights.copy_(old)
    found = lnp(model, CROSS_ENTROPY, (inputs, labels), preconditioner=optimizer)
    assert 1e-3 * found.delta_loss_self == pytest.approx(moved, rel=1e-8)


@pytest.mark.parametrize("exponents", [(1.5, 1.8)])
def test_lazy_training_has_the_spectral_position_of_its_closed_form(exponents):
    """A linear model of orthogonal features lambda_k = k^-a with energies k^-b, by gradient flow: beta / (2 tr t) (D5)."""
    a, b = exponents
    modes = torch.arange(1, 3001, dtype=torch.float64)
    eigenvalues, targets = modes**-a, modes ** (-b / 2)
    model = nn.Linear(3000, 1, bias=False).double()
    inputs = torch.diag(eigenvalues.sqrt())
    beta, trace = (b - 1) / a, float(eigenvalues.sum())
    for time in (10.0, 100.0):
        # residual of mode k is -exp(-lambda_k t) w_k
        with torch.no_grad():
            model.weight.copy_(((1 - torch.exp(-eigenvalues * time)) * targets / eigenvalues.sqrt())[None])
        found = lnp(model, lambda outputs, targets: 0.5 * (outputs[:, 0] - targets).square(), (inputs, targets))
        decayed = torch.exp(-2 * eigenvalues * time) * targets**2
        assert found.method == "exact"
        assert found.chi_net_raw == pytest.approx(trace, rel=1e-10)
        assert found.chi_pos_self == pytest.approx(float((decayed * eigenvalues).sum() / decayed.sum()) / trace, rel=1e-8)
        assert found.chi_pos_self == pytest.approx(beta / (2 * trace * time), rel=0.1)


def test_the_closed_form_holds_to_2_4_percent_with_20000_modes_at_time_1000():
    a, b, time = 1.5, 1.8, 1000.0
    modes = torch.arange(1, 20_001, dtype=torch.float64)
    eigenvalues, energies = modes**-a, modes**-b
    decayed = torch.exp(-2 * eigenvalues * time) * energies
    position = float((decayed * eigenvalues).sum() / decayed.sum() / eigenvalues.sum())
    assert position == pytest.approx((b - 1) / a / (2 * float(eigenvalues.sum()) * time), rel=0.026)


def test_auto_takes_the_cheapest_way_by_backward_passes():
    assert lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 20)).method == "exact"  # 3 outputs, 4 probes
    assert lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 20), num_probes=2).method == "ghost"
    assert lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 20)).method == "ghost"  # 20 outputs a sequence
    assert lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 5)).method == "hutchinson"  # each micro-batch is a sequence


def test_the_cross_check_agrees_to_rounding():
    found = lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 20))
    assert found.cross_check.difference < 1e-12
    assert found.cross_check.num_clusters == 2


class Mixing(nn.Linear):
    """Subtracts the mean over samples, so that a sample's outputs depend on the others."""

    def forward(self, inputs_N):
        outputs_NC = super().forward(inputs_N)
        return outputs_NC - outputs_NC.mean(0)


@pytest.mark.parametrize("estimator", ["exact", "ghost", "hutchinson", "auto"])
def test_a_model_that_mixes_its_samples_is_refused(estimator):
    inputs, labels = batch_of(mlp(), 20)
    inputs[1] = inputs[0]  # two equal ones change nothing of each other
    with pytest.raises(ConfigError, match="the outputs of a sample change by .* with the samples beside it"):
        lnp(Mixing(5, 3).double(), CROSS_ENTROPY, (inputs, labels), estimator=estimator)


@pytest.mark.parametrize(
    "unit_loss",
    [lambda outputs, targets: outputs.sum(-1) - outputs.mean(), lambda outputs, targets: CROSS_ENTROPY(outputs, targets) / len(outputs)],
)
@pytest.mark.parametrize("model", [mlp, tied], ids=["samples", "sequences"])
def test_a_loss_that_mixes_its_units_is_refused(model, unit_loss):
    with pytest.raises(ConfigError, match="the loss of a unit changes by .* of .* with the units beside it; .* subtract no mean over"):
        lnp(model(), unit_loss, batch_of(model(), 20))


def test_a_batch_made_in_inference_mode_is_measured_as_another():
    model, batch, mask = mlp(), batch_of(mlp(), 6), torch.arange(6) > 0
    plain = lnp(model, CROSS_ENTROPY, batch, mask=mask)
    with torch.inference_mode():
        batch, mask = [value.clone() for value in batch], mask.clone()
        within = lnp(model, CROSS_ENTROPY, batch, mask=mask)
    assert batch[0].is_inference()
    assert lnp(model, CROSS_ENTROPY, batch, mask=mask) == within == plain


@pytest.mark.parametrize("measure", [lnp, step_sums, loss_gram])
def test_a_batch_that_is_no_pair_is_refused(measure):
    model, (inputs, labels) = mlp(), batch_of(mlp(), 6)
    with pytest.raises(ConfigError, match=r"batch must be a pair \(inputs, targets\), got 3 of them"):
        measure(model, CROSS_ENTROPY, (inputs, labels, labels))
    with pytest.raises(ConfigError, match=r"batch must be a pair \(inputs, targets\), got Tensor"):
        measure(model, CROSS_ENTROPY, inputs)


@pytest.mark.parametrize("setting", ["num_probes", "num_micro_batches", "pool_size"])
@pytest.mark.parametrize("value", [2.5, "2", True, 0])
def test_numbers_that_are_none_are_refused(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} must be a whole number, at least 1, got {value!r}"):
        lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 6), **{setting: value})


@pytest.mark.parametrize("value", [0, math.nan, "1"])
def test_a_memory_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match=f"memory_gib must be a positive number of GiB, got {value!r}"):
        lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 6), memory_gib=value)


def test_a_mask_that_is_no_tensor_is_refused():
    with pytest.raises(ConfigError, match="mask must be of dtype bool and shape .6,., the units of the outputs, got list"):
        lnp(mlp(), CROSS_ENTROPY, batch_of(mlp(), 6), mask=[True] * 6)


def test_norms_that_differ_from_plain_backward_passes_are_not_used(monkeypatch):
    right = position_trace.squared_gradient_norms

    def wrong(*arguments, by_parameter=False, known=None):
        found = right(*arguments, by_parameter=by_parameter, known=known)
        return found if by_parameter else 1.01 * found

    monkeypatch.setattr(position_trace, "squared_gradient_norms", wrong)
    with pytest.raises(ConfigError, match='ghost differs from plain backward passes by 1.0e-02 on 2 clusters.*take estimator="hutchinson"'):
        lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 20), estimator="ghost")
    found = lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 20))
    assert found.method == "hutchinson"
    assert found.cross_check.difference == pytest.approx(0.01)
    assert "ghost differs from plain backward passes" in found.cross_check.note


def test_a_layer_without_a_rule_is_measured_by_plain_probes(monkeypatch):
    def refused(*arguments, **options):
        raise ConfigError("no rule for Strange")

    monkeypatch.setattr(position_trace, "squared_gradient_norms", refused)
    found = lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 20))
    assert (found.method, found.cross_check.note) == ("hutchinson", "ghost does not work on this model: no rule for Strange")
    with pytest.raises(ConfigError, match="no rule for Strange"):
        lnp(tied(), CROSS_ENTROPY, batch_of(tied(), 20), estimator="ghost")


def test_what_has_no_value_is_nan():
    model = mlp()
    single = lnp(model, CROSS_ENTROPY, batch_of(model, 1))
    assert single.chi_loss > 0
    assert single.delta_loss_self > 0
    for name in ("delta_loss", "chi_pos", "cosine", "chi_loss_standard_error", "chi_pos_standard_error"):
        assert math.isnan(getattr(single, name)), name
    nothing = lnp(model, CROSS_ENTROPY, batch_of(model, 4), mask=torch.zeros(4, dtype=torch.bool))
    assert nothing.num_units == 0
    assert all(math.isnan(getattr(nothing, name)) for name in ("chi_loss", "chi_net", "chi_pos", "delta_loss", "mean_loss"))
    solved = lnp(model, lambda outputs, targets: 0.0 * outputs.sum(-1), batch_of(model, 4))
    assert solved.chi_loss == solved.delta_loss == 0.0
    assert math.isnan(solved.chi_pos)
