"""Muon: hidden matrices step along their orthogonalised momentum, at a rate that no width changes; all other weights are AdamW's."""

from pathlib import Path

import pytest
import torch
from task_runs import StopAfter, attempt, committed, contents
from torch.testing import assert_close

from workers import training
from workers.errors import ConfigError
from workers.models.llama import Llama
from workers.models.mlp import Mlp
from workers.optimizers.adam import Adam
from workers.optimizers.muon import Muon
from workers.workloads.train import Train

MLP = Mlp(width=24, depth=3)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(16, 1, 4, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def stepped(module: torch.nn.Module, optimizer: Muon | Adam, rate: float, num_steps: int = 1) -> dict[str, torch.Tensor]:
    """The change of each weight."""
    before = {name: weights.detach().clone() for name, weights in module.named_parameters()}
    torch_optimizer = optimizer.over(module)
    for _ in range(num_steps):
        training.update(module, torch_optimizer, rate, "cross_entropy", *batch())
    return {name: weights.detach() - before[name] for name, weights in module.named_parameters()}


def test_the_first_step_of_a_hidden_matrix_is_its_gradient_with_all_singular_values_made_alike():
    module = MLP.build((1, 4, 4), 3, 0)
    torch.nn.functional.cross_entropy(module(batch()[0]), batch()[1]).backward()
    left, values, right = torch.linalg.svd(dict(module.named_parameters())["3.weight"].grad)
    change = stepped(module, Muon(learning_rate=0.01), 0.01)["3.weight"]
    seen = left.T @ change @ right.T / -0.01
    above = values > 0.01 * values[0]
    # five iterations bring singular values near one, not to it
    assert 0.6 < float(seen.diagonal()[above].min()) < float(seen.diagonal()[above].max()) < 1.3
    assert float((seen - torch.diag(seen.diagonal()))[above][:, above].abs().max()) < 0.05


def test_all_other_weights_step_as_adamw_s():
    rate = 1e-3
    muon = stepped(MLP.build((1, 4, 4), 3, 0), Muon(learning_rate=0.02, adam_learning_rate=rate, weight_decay=0.1), 0.02)
    adam = stepped(MLP.build((1, 4, 4), 3, 0), Adam(learning_rate=rate, weight_decay=0.1), rate)
    hidden = {"3.weight", "5.weight"}
    for name in set(muon) - hidden:
        assert_close(muon[name], adam[name], rtol=1e-6, atol=1e-8)
    assert all(not torch.allclose(muon[name], adam[name]) for name in hidden)


def test_a_network_without_hidden_matrices_is_adamw_s():
    assert type(Muon().over(Mlp(depth=1).build((4,), 3, 0))) is torch.optim.AdamW


def test_of_a_language_model_embeddings_and_readout_are_adamw_s():
    module = Llama(width=32, depth=1, head_dim=8).build((6,), 11, 0)
    hidden = {id(weights) for group in Muon().over(module).param_groups if group["hidden"] for weights in group["params"]}
    names = {name for name, weights in module.named_parameters() if id(weights) in hidden}
    assert names
    assert all(weights.dim() == 2 for weights in module.parameters() if id(weights) in hidden)
    assert {name for name, weights in module.named_parameters() if weights.dim() == 2} - names == {
        name for name, weights in module.named_parameters() if 11 in weights.shape
    }


@pytest.mark.parametrize("parameterisation", ["standard", "mup"])
def test_hidden_steps_have_one_spectral_norm_at_every_width(parameterisation: str):
    norms = []
    for width in (32, 128):
        model = Mlp(width=width, depth=2, parameterisation=parameterisation)
        change = stepped(model.build((1, 4, 4), 3, 0), Muon(learning_rate=0.01), 0.01)["3.weight"]
        norms.append(float(torch.linalg.matrix_norm(change, 2)))
    assert norms[1] == pytest.approx(norms[0], rel=0.3)


def test_an_interrupted_run_ends_bit_identical(tmp_path: Path):
    train = Train(model=MLP, optimizer=Muon(weight_decay=0.01, schedule="cosine"), train_size=60, batch_size=16, num_steps=11)
    whole = committed(tmp_path / "whole", train)
    attempt(tmp_path / "cut", train, "first", stop=StopAfter(4))
    assert attempt(tmp_path / "cut", train, "last").resumed_at == 4
    cut = committed(tmp_path / "cut", train)
    assert cut.rows == whole.rows
    assert contents(tmp_path / "cut", cut) == contents(tmp_path / "whole", whole)


def test_a_torch_without_muon_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match="needs torch 2.9 or newer"):
        Muon().over(MLP.build((1, 4, 4), 3, 0))
