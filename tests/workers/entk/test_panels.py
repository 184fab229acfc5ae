"""A kernel put together from its tiles is the kernel, however the panels are cut and whatever memory there is."""

import pytest
import torch
from torch import Tensor, nn

from tests.workers.entk.networks import case
from tests.workers.entk.test_gram import error, slow_kernel
from workers import entk
from workers.errors import ConfigError


def assembled(model: nn.Module, x: Tensor, *, upside_down: bool = False, **options) -> Tensor:
    with entk.kernel_tiles(model, x, **options) as tiles:
        pairs = [(i, j) for i in range(tiles.num_panels) for j in range(i, tiles.num_panels)]
        found = {pair: tiles.tile(*pair) for pair in (reversed(pairs) if upside_down else pairs)}
        rows = [[found[i, j] if (i, j) in found else found[j, i].T for j in range(tiles.num_panels)] for i in range(tiles.num_panels)]
    return torch.cat([torch.cat(row, 1) for row in rows])


@pytest.mark.parametrize("outputs", ["full", "traced", "sum_logits"])
@pytest.mark.parametrize("memory_gib", [2.0, 2e-4])
@pytest.mark.parametrize("name", ["mlp", "cnn", "norms", "few positions", "language model"])
def test_tiles_are_the_kernel(name, memory_gib, outputs):
    model, x = case(name)
    for panel in (1, 2, len(x) - 1, len(x), len(x) + 3):
        found = assembled(model, x, panel=panel, outputs=outputs, memory_gib=memory_gib)
        assert error(found, slow_kernel(model, x, outputs)) < 1e-14
        assert torch.equal(found, found.T)


def test_any_order_of_tiles_gives_the_same():
    model, x = case("cnn")
    assert error(assembled(model, x, panel=2, upside_down=True), assembled(model, x, panel=2)) < 1e-15


def test_what_is_kept_of_a_row_is_computed_once(monkeypatch):
    model, x = case("cnn")
    seen = []
    handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    with entk.kernel_tiles(model, x, panel=2) as tiles:  # 2, 2 and 1 samples
        tiles.tile(0, 0)
        before = sum(seen)
        tiles.tile(0, 1)
        assert sum(seen) == before + 2 + 3  # the columns alone, and three witnesses of their pass
        tiles.tile(0, 2)
        assert sum(seen) == before + 2 + 3 + 2 + 3  # one sample goes through twice
    handle.remove()


def test_the_model_is_left_as_it_was():
    model, x = case("mlp")
    model.train()
    with entk.kernel_tiles(model, x, panel=2) as tiles:
        tiles.tile(0, 0)
    assert model.training and all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("panel", [0, -1, 2.0, True, "all"])
def test_a_panel_is_a_number_of_samples(panel):
    model, x = case("mlp")
    with pytest.raises(ConfigError, match="panel must be a positive number of samples, got"), entk.kernel_tiles(model, x, panel=panel):
        pass
