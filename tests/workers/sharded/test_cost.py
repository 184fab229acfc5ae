"""The cost of tiles on paper: operations as the engine itself counts them, and bytes as they lie on disk."""

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
