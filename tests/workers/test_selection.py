"""Choosing training samples: each method against a slow and obvious one in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from workers import plugins
from workers.errors import ConfigError, Diverged
from workers.models.mlp import Mlp
from workers.models.wide_resnet import WideResnet
from workers.selection import Candidates, Method, Pool, random_order
from workers.selection_kernel import most_entropy, observed, pivoted_cholesky, traced_columns, traced_diagonal
from workers.selection_rnd import random_network_distillation
from workers.selections.maximum_entropy import MaximumEntropy
from workers.selections.pivoted_cholesky import PivotedCholesky
from workers.selections.random import Random
from workers.selections.rnd import Rnd

MODEL = Mlp(width=8, activation="tanh")
METHODS = (Random(), Rnd(num_outputs=6, max_steps=40), MaximumEntropy(num_sets=3), PivotedCholesky())


def a_pool(num: int = 30, seed: int = 0, *, labels: bool = True) -> Pool:
    inputs_N = torch.randn(num, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return Pool(
        inputs_N=inputs_N,
        labels_N=np.arange(num) % 3 if labels else None,
        network=MODEL.build((5,), 3, 1).double(),
        model=MODEL,
        seed=seed,
    )


def networks(num_outputs: int = 4) -> tuple[torch.nn.Module, torch.nn.Module]:
    return MODEL.build((5,), num_outputs, 11).double(), MODEL.build((5,), num_outputs, 12).double()


def slow_kernel(pool: Pool) -> np.ndarray:
    """The traced kernel of the whole pool, one backward pass per sample and output."""
    kernel, weights = np.zeros((len(pool.inputs_N), len(pool.inputs_N))), list(pool.network.parameters())
    for output in range(3):
        values_N = pool.network(pool.inputs_N)[:, output]
        rows = [torch.cat([g.flatten() for g in torch.autograd.grad(value, weights, retain_graph=True)]).numpy() for value in values_N]
        kernel += np.array(rows) @ np.array(rows).T / 3
    return kernel


def slow_variance(kernel: np.ndarray, chosen: list[int]) -> np.ndarray:
    """k(x, x) - k(x, S) k(S, S)^-1 k(S, x) of each candidate."""
    if not chosen:
        return kernel.diagonal()
    return kernel.diagonal() - np.einsum("ns,sn->n", kernel[:, chosen], np.linalg.solve(kernel[np.ix_(chosen, chosen)], kernel[chosen]))


def slow_distillation(size: int, threshold: float, max_steps: int) -> tuple[list[int], list[float], list[int]]:
    """One sample at a time, by plain gradient descent."""
    target, predictor = networks()
    inputs = a_pool().inputs_N

    def error(index: int) -> torch.Tensor:
        return ((predictor(inputs[index : index + 1]) - target(inputs[index : index + 1]).detach()) ** 2).mean()

    initial = sum(error(i).item() for i in range(len(inputs))) / len(inputs)
    order, errors, steps = [], [], []
    for _ in range(size):
        scores = [-math.inf if i in order else error(i).item() for i in range(len(inputs))]
        order.append(scores.index(max(scores)))
        errors.append(max(scores) / initial)
        for step in range(max_steps + 1):
            if step % 8 == 0 and max(error(i).item() for i in order) <= threshold * initial:
                break
            if step == max_steps:
                break
            predictor.zero_grad()
            (sum(error(i) for i in order) / len(order)).backward()
            with torch.no_grad():
                for weights in predictor.parameters():
                    weights -= 0.2 * weights.grad
        steps.append(step)
    return order, errors, steps


def distilled(size: int = 5, predictor: torch.nn.Module | None = None, **options):
    target, other = networks()
    predictor = predictor or other
    optimizer = torch.optim.SGD(predictor.parameters(), lr=0.2)
    return random_network_distillation(target, predictor, optimizer, a_pool().inputs_N, size, **options)


def test_distillation_is_the_slow_one():
    order, errors, steps = slow_distillation(4, 0.1, 60)
    found = distilled(4, threshold=0.1, max_steps=60)
    assert found.order_S.tolist() == order
    np.testing.assert_allclose(found.errors_S, errors, rtol=1e-9)
    assert found.num_steps_S.tolist() == steps


def test_a_reached_threshold_holds_at_every_chosen_point_and_the_target_stays():
    target, predictor = networks()
    before = [weights.clone() for weights in target.parameters()]
    found = distilled(6, predictor, threshold=0.05, max_steps=5000)
    assert found.reached_S.all()
    inputs = a_pool().inputs_N[found.order_S]
    errors = ((predictor(inputs) - target(inputs)) ** 2).mean(1)
    assert errors.max() <= 0.05 * found.initial_error
    assert all(torch.equal(one, other) for one, other in zip(before, target.parameters()))


def test_a_threshold_that_is_not_reached_is_told_and_ends():
    found = distilled(5, threshold=1e-12, max_steps=3)
    assert not found.reached_S.any()
    assert found.num_steps_S.tolist() == [3] * 5
    assert Rnd(num_outputs=4, threshold=1e-9, max_steps=2).select(a_pool(), 5).facts["num_not_learned"] == 5


def test_points_are_chosen_while_their_error_is_above_the_stop():
    errors = distilled(30, threshold=0.01, max_steps=500).errors_S
    stop = float(np.sort(errors)[10])
    found = distilled(30, threshold=0.01, max_steps=500, stop_below=stop)
    assert len(found.order_S) == int(np.argmax(errors <= stop))
    assert (found.errors_S > stop).all()


def test_a_predictor_that_is_the_target_is_refused():
    target, _ = networks()
    with pytest.raises(Diverged, match="different networks"):
        random_network_distillation(target, target, torch.optim.SGD(target.parameters()), a_pool().inputs_N, 3)


def test_the_error_of_wide_networks_is_the_predictive_variance():
    """Of linear networks without bias with many outputs: the mean over outputs is that over functions drawn from the kernel x . x'."""
    inputs = torch.randn(40, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target, predictor = (Mlp(depth=0, bias=False).build((12,), 4000, seed).double() for seed in (1, 2))
    optimizer = torch.optim.SGD(predictor.parameters(), lr=40.0)
    found = random_network_distillation(target, predictor, optimizer, inputs, 8, threshold=1e-7, max_steps=20_000)
    assert found.reached_S.all()
    kernel = (inputs @ inputs.T).numpy()
    order = found.order_S.tolist()
    variances = [slow_variance(kernel, order[:n]) for n in range(8)]
    shares = [variances_N[pivot] / kernel.diagonal().mean() for variances_N, pivot in zip(variances, order)]
    # of 4,000 outputs, four standard errors are 0.09
    np.testing.assert_allclose(found.errors_S, shares, rtol=0.1)
    # so the choice is that of pivoted Cholesky, but for variances that are as near to each other
    assert all(variances_N[pivot] > 0.85 * variances_N.max() for variances_N, pivot in zip(variances, order))
    assert pivoted_cholesky(kernel.diagonal(), lambda index: kernel[:, index], 2).order_S.tolist() == order[:2]


@pytest.mark.parametrize("num_at_once", [1, 3, 16])
def test_pivots_are_the_candidates_of_most_variance_and_greedy_for_the_determinant(num_at_once):
    kernel = slow_kernel(a_pool())
    found = pivoted_cholesky(kernel.diagonal(), lambda index: kernel[:, index], 8, num_at_once=num_at_once)
    chosen: list[int] = []
    for variance, pivot in zip(found.variances_S, found.order_S):
        variances = slow_variance(kernel, chosen)
        left = [i for i in range(30) if i not in chosen]
        assert variance == pytest.approx(variances[left].max(), rel=1e-8)
        determinants = {i: np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1] for i in left}
        assert pivot == max(determinants, key=determinants.get)
        chosen.append(int(pivot))
        assert np.log(found.variances_S[: len(chosen)]).sum() == pytest.approx(determinants[pivot], rel=1e-8)
    assert found.rank == 8
    assert 8 <= found.num_columns <= 8 * num_at_once


def test_each_column_is_asked_for_once():
    asked: list[int] = []
    kernel = slow_kernel(a_pool())

    def columns(index_B):
        asked.extend(index_B.tolist())
        return kernel[:, index_B]

    assert pivoted_cholesky(kernel.diagonal(), columns, 20, num_at_once=4).num_columns == len(asked) == len(set(asked))


def test_networks_of_distillation_do_not_see_who_is_in_their_pass():
    pool = replace(a_pool(6), inputs_N=torch.randn(6, 1, 4, 4), model=WideResnet(width=2, num_groups=1, normalisation="batch"))
    network = Rnd()._network(pool, "target")
    torch.testing.assert_close(network(pool.inputs_N)[:2], network(pool.inputs_N[:2]))


def test_pivots_beyond_the_rank_of_a_kernel_are_still_different_points():
    inputs = np.random.default_rng(0).normal(size=(10, 3))
    kernel = inputs @ inputs.T
    found = pivoted_cholesky(kernel.diagonal(), lambda index: kernel[:, index], 10)
    assert found.rank == 3
    assert sorted(found.order_S) == list(range(10))


def test_columns_and_diagonal_are_those_of_the_kernel():
    pool = a_pool()
    kernel, index = slow_kernel(pool), np.array([4, 0, 17])
    np.testing.assert_allclose(traced_columns(pool.network, pool.inputs_N)(index), kernel[:, index], rtol=1e-10)
    np.testing.assert_allclose(traced_diagonal(pool.network, pool.inputs_N, num_at_once=7), kernel.diagonal(), rtol=1e-10)


def test_pivoted_cholesky_takes_the_production_networks_kernel():
    pool = a_pool()
    kernel = slow_kernel(pool)
    expected = pivoted_cholesky(kernel.diagonal(), lambda index: kernel[:, index], 9)
    found = PivotedCholesky().select(pool, 9)
    assert found.of_size(9).tolist() == expected.order_S.tolist()
    np.testing.assert_allclose(found.scores_KS[0], expected.variances_S / kernel.diagonal().mean(), rtol=1e-8)


def slow_entropy(kernel: np.ndarray) -> float:
    shares = np.linalg.eigvalsh(kernel) / np.trace(kernel)
    return -sum(p * math.log(p) for p in shares if p > 1e-14)


def test_the_set_of_each_size_is_the_random_one_of_most_entropy():
    pool = a_pool()
    kernel, found = slow_kernel(pool), MaximumEntropy(num_sets=5).select(pool, 7)
    orders = [random_order(30, 7, pool.seed, counter).tolist() for counter in range(5)]
    for size in range(2, 8):
        entropies = [slow_entropy(kernel[np.ix_(order[:size], order[:size])]) for order in orders]
        assert found.of_size(size).tolist() == orders[int(np.argmax(entropies))][:size]
        assert found.scores_KS[found.best_S[size - 1], size - 1] == pytest.approx(max(entropies), rel=1e-10)
    assert orders[0] == Random().select(pool, 7).of_size(7).tolist()


def test_kernels_that_are_not_of_the_orders_are_refused():
    with pytest.raises(ConfigError, match="a kernel \\(3, 3\\) for each of 2 orders"):
        most_entropy(np.zeros((2, 3), dtype=int), [np.eye(3)])


def test_observables_are_those_of_the_traced_kernel():
    kernel = slow_kernel(a_pool())[:6, :6]
    found = observed(kernel, np.array([0, 0, 0, 1, 1, 2]))
    assert found["entropy_traced"] == pytest.approx(slow_entropy(kernel), rel=1e-10)
    assert found["entropy_normalised_traced"] == pytest.approx(slow_entropy(kernel) / math.log(6), rel=1e-10)
    assert found["effective_rank_traced"] == pytest.approx(math.exp(slow_entropy(kernel)), rel=1e-10)
    assert found["trace_traced"] == pytest.approx(np.trace(kernel) / 6)
    assert found["label_entropy"] == pytest.approx(-sum(p * math.log(p) for p in (3 / 6, 2 / 6, 1 / 6)))


def test_a_method_that_there_is_is_tested_here():
    assert {type(method).plugin_name() for method in METHODS} == set(plugins.names("selections"))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.plugin_name())
def test_a_selection_holds_the_sets_of_all_smaller_sizes_without_repeats(method: Method):
    whole = method.select(a_pool(), 12)
    for size in (1, 2, 5, 11):
        smaller = method.select(a_pool(), size)
        assert smaller.of_size(size).tolist() == whole.of_size(size).tolist()
        assert len(set(whole.of_size(size).tolist())) == size


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.plugin_name())
def test_a_method_is_seeded_and_leaves_the_production_network_alone(method: Method):
    pool = a_pool(seed=3)
    before = [weights.clone() for weights in pool.network.parameters()]
    first, again, other = (method.select(a_pool(seed=seed), 10).of_size(10).tolist() for seed in (3, 3, 4))
    assert first == again
    assert (first != other) or isinstance(method, PivotedCholesky)  # the kernel alone decides
    method.select(pool, 3)
    assert all(torch.equal(one, other) for one, other in zip(before, pool.network.parameters()))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.plugin_name())
def test_all_points_can_be_chosen_and_by_class_each_class_equally_often(method: Method):
    assert sorted(method.select(a_pool(12), 12).of_size(12)) == list(range(12))
    by_class = type(method)(**{**{n: v for n, v in method.to_plain().items() if n != "name"}, "by_class": True})
    pool = a_pool()
    for size in (3, 9):
        assert np.bincount(pool.labels_N[by_class.select(pool, 9).of_size(size)]).tolist() == [size // 3] * 3
    with pytest.raises(ConfigError, match="by_class=true needs data with one label"):
        by_class.select(a_pool(labels=False), 3)


def test_a_class_that_is_used_up_leaves_its_turn_to_the_next():
    candidates, order = Candidates(5, np.array([0, 0, 0, 0, 1])), []
    for _ in range(5):
        order.append(candidates.best(np.arange(5.0)))
        candidates.take(order[-1])
    assert order == [3, 4, 2, 1, 0]
    with pytest.raises(ConfigError, match="all 5 candidates are taken"):
        candidates.best(np.arange(5.0))


def test_scores_that_are_no_numbers_are_a_divergence():
    with pytest.raises(Diverged, match="1 of 3 scores are no numbers"):
        Candidates(3).best(np.array([0.0, math.nan, 1.0]))


def test_a_set_of_more_points_than_were_chosen_is_refused():
    with pytest.raises(ConfigError, match="1 to 4 points, got 5"):
        Random().select(a_pool(), 4).of_size(5)


def test_random_orders_reach_every_point_first():
    firsts = {int(random_order(4, 1, seed)[0]) for seed in range(60)}
    assert firsts == set(range(4))
    assert len({tuple(random_order(4, 4, 0, counter)) for counter in range(200)}) == math.factorial(4)
