"""The cost of tiles on paper: operations as the engine itself counts them, and bytes as they lie on disk."""

import dataclasses
import re

import pytest
import torch

from workers import entk
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.sharded import cost, memory
from workers.sharded.engines import Question
from workers.sharded.panels import Panels
from workers.workload import Model, Resources
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum
from workers.workloads.train import Train

SHAPE = (1, 12, 12)


@pytest.mark.parametrize("outputs", ["full", "traced"])
@pytest.mark.parametrize(
    "model", [Mlp(width=16, depth=2), Mlp(width=16, depth=1, bias=False), Cnn(width=4), Cnn(width=4, readout="mean"), Mlp(depth=0)], ids=str
)
def test_operations_are_those_that_the_engine_plans(model: Model, outputs: str) -> None:
    planned = entk.plan(model.build(SHAPE, 10, 0), torch.randn(8, *SHAPE), outputs=outputs)
    layers = model.layers(SHAPE, 10)
    assert layers is not None
    rows = 10 if outputs == "full" else 1
    work = cost.gram_work(layers, outputs, Panels(8 * rows, 8 * rows))
    assert work.products + work.outer == pytest.approx(planned.flops, rel=0.05)


@pytest.mark.parametrize(("rows", "panel"), [(70, 20), (60, 20), (5, 20)])
def test_bytes_are_those_of_the_tiles_on_and_above_the_diagonal(rows: int, panel: int) -> None:
    panels = Panels(rows, panel)
    elements = sum(len(panels.rows(i)) * len(panels.rows(j)) for i, j in panels.pairs())
    assert cost.tile_bytes(panels, "float64") == 8 * elements + cost.NPY_BYTES * sum(1 for _ in panels.pairs())


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_no_rank_has_more_tiles_than_are_counted(ranks: int) -> None:
    for number in range(1, 14):
        panels = Panels(number, 1)
        assert max(len(share) for share in panels.shares(ranks)) <= cost.most_tiles(panels, ranks)


def test_the_number_of_nodes_that_is_said_to_do_does_and_half_of_it_does_not() -> None:
    question, panels = Question(num_eigenvalues=None, num_vectors=100), Panels(20480, 2560)

    def obstacle(nodes: int) -> str:
        return memory.eigenvalues_obstacle(question, panels, "float32", Resources(nodes=nodes, memory_gib=1.2), "auto")

    said = re.search(r"resources.nodes=(\d+) of this memory would do", obstacle(1))
    assert said is not None and int(said[1]) >= 4
    assert obstacle(int(said[1]) // 2) and not obstacle(int(said[1]))


def test_where_no_number_of_nodes_would_do_the_memory_that_would_is_said() -> None:
    question, panels = Question(num_eigenvalues=1000, num_vectors=100), Panels(100_000, 2560)
    given = Resources(memory_gib=2.0)
    told = memory.eigenvalues_obstacle(question, panels, "float32", given, "lanczos")
    least = memory.least_gib(question, panels, "float32", given, "lanczos")
    assert f"no number of nodes of this memory would do, resources.memory_gib={least:g} would" in told
    assert not memory.eigenvalues_obstacle(question, panels, "float32", Resources(memory_gib=least), "lanczos")


def crossing(nodes: int, per_node: int) -> tuple[int, float, float]:
    """What goes between nodes for one block: its copies along a binomial tree, and blocks of sums around a ring and then to the first."""
    total, distance, copies = nodes * per_node, 1, 0
    while distance < total:
        distance *= 2
    while distance > 1:
        distance //= 2
        pairs = [(rank, rank + distance) for rank in range(0, total, 2 * distance) if rank + distance < total]
        copies += sum(one // per_node != other // per_node for one, other in pairs)
    ring = sum((total - 1) / total for rank in range(total) if rank // per_node != (rank + 1) % total // per_node)
    return copies, ring, sum(1 / total for rank in range(total) if rank // per_node)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("per_node", [1, 2, 4])
def test_bytes_between_nodes_are_those_of_a_tree_and_a_ring_of_ranks(nodes: int, per_node: int) -> None:
    copies, ring, gathered = crossing(nodes, per_node)
    found = cost.sent_bytes_of_a_product(1000, "float32", cost.Ranks(nodes, per_node))
    assert found == pytest.approx(1000 * (4 * copies + 8 * (ring + gathered)))


def halved_and_doubled(nodes: int) -> float:
    """What all send, in lengths of what they sum: a rank beyond a power of two shares the sum of its pair, and is sent the result."""
    power = 1
    while 2 * power <= nodes:
        power *= 2
    sent = sum(0.5 + 0.5 + 0.5 + 1.0 for _ in range(nodes - power))
    distance, length = 1, 1.0
    while distance < power:
        length /= 2
        sent += 2 * power * length  # to sum it, and to tell the sum
        distance *= 2
    return sent


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 8])
def test_bytes_of_a_band_between_nodes_are_those_of_sums_that_are_halved_and_doubled(nodes: int) -> None:
    sums = 1000**2 * 4  # of a panel and a product for each block of columns: half of the kernel, twice
    assert cost.scalapack_sent_bytes(1000, 0, "float32", cost.Ranks(nodes, 1)) == pytest.approx(sums * halved_and_doubled(nodes))


QUESTION, PANELS = Question(num_eigenvalues=None, num_vectors=100), Panels(20480, 2560)


@pytest.mark.parametrize("engine", ["lanczos", "scalapack"])
def test_ranks_share_work_but_what_the_first_does_alone_takes_as_long_on_any_number_of_nodes(engine: str) -> None:
    def parts(nodes: int) -> dict[str, cost.Part]:
        found = cost.eigenvalues_parts(engine, QUESTION, PANELS, "float32", Resources(nodes=nodes))
        return {part.name: part for part in found}

    one, four = parts(1), parts(4)
    assert all(four[name].alone == one[name].alone for name in one)
    assert four["products with vectors"].flops == one["products with vectors"].flops
    share = cost.slowest_share(PANELS, 4)
    fast = dataclasses.replace(cost.CORE, network_bytes=float("inf"), carried_bytes=float("inf"))
    assert 0.25 <= share < 0.3
    assert four["products with vectors"].seconds(share, fast) > share * one["products with vectors"].seconds(1.0, fast)
    assert four["products with vectors"].sent_bytes > 0 == one["products with vectors"].sent_bytes


def test_few_eigenvectors_of_a_whole_spectrum_are_counted_as_those_of_lanczos() -> None:
    few, many = QUESTION, Question(num_eigenvalues=None, num_vectors=2000)

    def names(question: Question, engine: str) -> set[str]:
        return {part.name for part in cost.eigenvalues_parts(engine, question, PANELS, "float32", Resources(nodes=2))}

    assert {"band", "chase", "basis"} < names(few, "scalapack") and "dense" not in names(few, "scalapack")
    assert "dense" in names(many, "scalapack") and not {"band", "basis"} & names(many, "scalapack")
    assert "basis" in names(few, "whole") and "basis" not in names(many, "whole")


@pytest.mark.parametrize("engine", ["whole", "scalapack", "lanczos"])
@pytest.mark.parametrize("vectors", [100, 2000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_least_memory_is_enough_and_less_is_refused(engine: str, vectors: int, dtype: str) -> None:
    question = Question(num_eigenvalues=vectors if engine == "lanczos" else None, num_vectors=vectors)
    given = Resources(nodes=2, cpus=2)
    least = memory.least_gib(question, PANELS, dtype, given, engine)
    assert not memory.eigenvalues_obstacle(question, PANELS, dtype, dataclasses.replace(given, memory_gib=least), engine)
    told = memory.eigenvalues_obstacle(question, PANELS, dtype, dataclasses.replace(given, memory_gib=least - 0.02), engine)
    assert f"memory_gib={least:g}" in told


def test_files_of_an_answer_hold_vectors_and_eigenvalues() -> None:
    of_all = cost.answer_bytes("whole", QUESTION, 20480, "float32")
    assert of_all == 8 * 20480 * 100 + cost.BYTES_PER_EIGENVALUE * 20480
    few = cost.answer_bytes("lanczos", Question(num_eigenvalues=100, num_vectors=100), 20480, "float32")
    assert few == 8 * 20480 * 100 + cost.BYTES_PER_EIGENVALUE * 100
    many = Question(num_eigenvalues=None, num_vectors=2000)  # ScaLAPACK's own file of them, and a copy, in the kernel's precision
    assert cost.answer_bytes("scalapack", many, 20480, "float64") == 2 * cost.answer_bytes("scalapack", many, 20480, "float32") - (
        cost.BYTES_PER_EIGENVALUE * 20480
    )


def test_weights_and_the_exact_rows_of_single_precision_count_as_memory_of_tiles() -> None:
    def needed(width: int, dtype: str, cpus: int = 2) -> float:
        gram = TiledGram(train=Train(model=Mlp(width=width)), dtype=dtype)
        return gram.estimate(Resources(cpus=cpus, memory_gib=1000.0)).memory_gib

    num_weights = sum((layer.fan_in + layer.bias) * layer.num_outputs for layer in Mlp(width=4096).layers((1, 8, 8), 10))
    more = needed(4096, "float64") - needed(1, "float64")
    assert more == pytest.approx(3 * 4 * 8 * num_weights / memory.GIB, rel=0.01)  # four copies in each of two ranks and of the task
    exact = 2.25 * 32 * 8 * num_weights / memory.GIB
    assert needed(4096, "float32") - needed(1, "float32") == pytest.approx(more / 2 + exact, rel=0.01)
    assert needed(1, "float64", 2) - needed(1, "float64", 1) > needed(1, "float64", 1)  # one rank is the task's own process


def test_checkpoints_of_lanczos_are_in_the_disk_where_it_takes_longer_than_the_time_between_them():
    resources = Resources(memory_gib=100.0)
    often, never = (
        TiledSpectrum(num_eigenvalues=20, engine="lanczos", checkpoint_every_seconds=seconds).estimate(resources).disk_bytes
        for seconds in (0.0, 1e9)
    )
    rows = TiledGram().num_rows()
    assert often - never == cost.checkpoint_bytes(rows, 20) == 2 * 8 * rows * cost.basis_size(rows, 20)
    whole = TiledSpectrum(num_eigenvalues=20, engine="whole", checkpoint_every_seconds=0.0).estimate(resources)
    assert whole.disk_bytes == never


def test_one_tile_is_not_said_to_be_many():
    said = [TiledGram(probe_size=256, panel_rows=rows).estimate(Resources()).what for rows in (2560, 1280)]
    assert said == ["2,560 rows in 1 tile of float32", "2,560 rows in 3 tiles of float32"]
