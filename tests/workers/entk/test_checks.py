"""What has no kernel is refused with its reason, and every model is left as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.workers.entk.networks import Apply, case, images, slow_jacobian, vectors
from workers import entk
from workers.entk import checks
from workers.errors import ConfigError, Diverged


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def refused(model: nn.Module, x: object, message: str, error: type[Exception] = ConfigError, **settings: object) -> None:
    with pytest.raises(error, match=message):
        entk.gram(model, x, **settings)


def test_active_dropout_is_refused_by_name():
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    refused(model, vectors(), r"dropout is active in 1; call model.eval\(\)")
    assert entk.gram(model.eval(), vectors()).shape == (18, 18)


def test_dropout_of_attention_is_refused_by_name():
    model, x = case("cross attention")
    model.attention.dropout = 0.1
    refused(model, x, "dropout is active in attention")


def test_randomness_that_no_module_shows_is_refused():
    model = Apply(lambda m, x: functional.dropout(m.layer(x), 0.5), layer=nn.Linear(6, 3).double())
    refused(model, vectors(), "two passes over the same samples differ by .*draws random numbers")


def test_active_batch_statistics_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2)).double()
    refused(model, images(), r"batch statistics are active in 1: .*statistics='running' or 'batch'")
    refused(model, images(), "statistics must be one of running, batch, got 'mine'", statistics="mine")


def test_samples_that_meet_are_refused():
    model = Apply(lambda m, x: m.layer(x - x.mean(0)), layer=nn.Linear(6, 3).double())
    refused(model, vectors(), "outputs of a sample change by .* with the samples beside it")


def test_a_batch_normalisation_without_running_statistics():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)).double()
    refused(model, vectors(), "keeps no running statistics; take statistics='batch'", statistics="running")
    assert entk.gram(model, vectors(), statistics="batch").shape == (12, 12)


def test_outputs_without_an_axis_of_outputs_are_refused():
    model = Apply(lambda m, x: m.layer(x)[:, 0], layer=nn.Linear(6, 3).double())
    refused(model, vectors(), r"the last axis of the outputs must be outputs, .*return \(N, 1\)")


def test_outputs_without_an_axis_of_samples_are_refused():
    model = Apply(lambda m, x: m.layer(x).sum(0), layer=nn.Linear(6, 5).double())
    refused(model, vectors(), r"one entry a sample along their first axis, got shape \(5,\) for 3 samples")


def test_outputs_that_are_no_real_tensor_are_refused():
    refused(
        Apply(lambda m, x: (m.layer(x),), layer=nn.Linear(6, 3).double()), vectors(), "must return one tensor of real outputs .* got tuple"
    )
    refused(Apply(lambda m, x: m.layer(x).argmax(-1), layer=nn.Linear(6, 3).double()), vectors(), "got torch.int64")


def test_a_loss_of_unknown_reduction_is_refused():
    model, x, y = mlp(), vectors(), torch.zeros(6, dtype=torch.long)
    with pytest.raises(ConfigError, match='the loss must be one number per unit, .*, got a single one; take reduction="none"'):
        entk.loss_gram(model, functional.cross_entropy, (x, y))
    with pytest.raises(ConfigError, match=r"one number per unit, shape \(3,\) for outputs \(3, 3\), got \(3, 3\); sum over"):
        entk.loss_gram(model, nn.MSELoss(reduction="none"), (x, torch.zeros(6, 3).double()))


@pytest.mark.parametrize("function", [entk.loss_gram, entk.lnp])
def test_a_loss_of_tokens_is_refused_by_what_it_gives(function):
    model, tokens = nn.Sequential(nn.Embedding(5, 5)).double(), torch.arange(12).view(4, 3) % 5
    with pytest.raises(ConfigError, match=r"one number per unit, shape \(\d+,\) for outputs \(\d+, 5\), got a single one; take reduction"):
        function(model, nn.CrossEntropyLoss(), (tokens, tokens))
    with pytest.raises(RuntimeError, match="must match the size"):
        function(model, lambda outputs, targets: outputs[..., 0] + torch.ones(7), (tokens, tokens))


def test_what_is_not_finite_is_refused_by_name():
    model, x = mlp(), vectors()
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    refused(model, x, "the weight 2.weight has 1 entries that are not finite", Diverged)
    refused(mlp(), x.masked_fill(x > 1.5, torch.inf), r"the probe set has \d+ numbers that are not finite", Diverged)
    infinite = Apply(lambda m, x: m.layer(x) / 0.0, layer=nn.Linear(6, 3).double())
    refused(infinite, x, "the outputs are not finite", Diverged)


def test_an_empty_batch_is_refused():
    refused(mlp(), torch.zeros(0, 6), r"x is empty: it has shape \(0, 6\); give at least one sample")


def test_a_probe_set_of_another_precision_or_shape_is_refused():
    refused(mlp(), vectors().float(), "the probe set has dtype torch.float32, the model torch.float64; convert it: x.to")
    with pytest.raises(ConfigError, match="x and z must be alike but for their number of samples"):
        entk.gram(mlp(), vectors(), vectors()[:, :5])
    with pytest.raises(ConfigError, match="x must be a tensor or a tuple of tensors .* got list|got str|got int"):
        entk.gram(mlp(), "images")


def test_a_probe_set_on_another_device_is_refused():
    with pytest.raises(ConfigError, match=r"the probe set is on cpu, the model on meta; move it"):
        entk.gram(mlp().to("meta"), vectors())


def test_a_memory_cap_under_one_tile_is_refused_with_what_it_takes():
    model, x = case("cnn")
    with pytest.raises(entk.MemoryCap, match="memory_gib=1e-07 is less than a tile of one sample by one sample of 0.weight takes") as told:
        entk.gram(model, x, memory_gib=1e-7)
    enough = float(str(told.value).split("give memory_gib=")[1].split()[0])
    assert torch.allclose(entk.gram(model, x, memory_gib=enough), entk.gram(model, x), rtol=1e-12)
    with pytest.raises(entk.MemoryCap):
        entk.gram(model, x, memory_gib=0.98 * enough)
    refused(model, x, "memory_gib must be a positive number of GiB, got 0", memory_gib=0)


def test_a_model_without_trainable_weights_is_refused():
    refused(mlp().requires_grad_(False), vectors(), "no trainable weight reaches the outputs.* 0 tensors with requires_grad=True")


def test_complex_and_unfinished_weights_are_refused():
    refused(Apply(lambda m, x: (x * m.w).abs(), w=nn.Parameter(torch.ones(6, dtype=torch.complex128))), vectors(), "complex weights")
    refused(nn.Sequential(nn.LazyLinear(3)), vectors(), "weights that are not initialised; run it once")


def test_unknown_words_are_refused_with_what_is_allowed():
    refused(mlp(), vectors(), "outputs must be one of full, traced, sum_logits, per_class, got 'all'", outputs="all")
    refused(mlp(), vectors(), "layers must be one of weight, module, got 'each'", layers="each")
    refused(mlp(), vectors(), "scales must be 'ntk' or a factor for each weight's name, got 'mup'", scales="mup")
    refused(mlp(), vectors(), "scales names 0.wight; the trainable weights are 0.weight", scales={"0.wight": 1.0})
    model, x = case("language model")
    refused(model, x, "outputs='per_class' needs one unit a sample", outputs="per_class")


def test_a_model_whose_operations_change_is_refused():
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.first(x) if len(x) <= 3 else m.second(m.first(x))

    model = Apply(run, first=nn.Linear(6, 6).double(), second=nn.Linear(6, 6).double())
    refused(model, vectors(), "the model ran other operations than in the pass before")


def state(model: nn.Module) -> dict[str, object]:
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "grads": [None if w.grad is None else w.grad.clone() for w in model.parameters()],
        "trainable": [w.requires_grad for w in model.parameters()],
        "random": torch.get_rng_state(),
        "buffers": [id(buffer) for buffer in model.buffers()],
    }


class Fails(nn.Module):
    """Passes on what it gets, but not after its second call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 2:
            raise RuntimeError("no more")
        return inputs + 0 * torch.rand(()).to(inputs)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_the_model_is_left_as_found(statistics, fails):
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)]
    model = nn.Sequential(*layers, *([Fails()] if fails else [])).double()
    model[0].bias.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    model[2].eval()
    before = state(model)
    if fails:
        with pytest.raises(RuntimeError, match="no more"):
            entk.gram(model, images(), statistics=statistics, memory_gib=1e-3)
    else:
        entk.gram(model, images(), statistics=statistics)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)


def test_a_kernel_does_not_depend_on_gradients_being_off_outside():
    model, x = mlp(), vectors()
    expected = entk.gram(model, x)
    with torch.no_grad():
        assert torch.equal(entk.gram(model, x), expected)


def test_the_kernel_carries_no_graph():
    assert not entk.gram(mlp(), vectors()).requires_grad


def checkpointed(*, reentrant: bool) -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.readout(checkpoint(m.trunk, x, use_reentrant=reentrant))

    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
    return Apply(run, trunk=trunk, readout=nn.Linear(4, 3)).double()


def test_weights_behind_reentrant_checkpoints_are_not_left_out_in_silence():
    model = checkpointed(reentrant=True)
    refused(model, vectors().requires_grad_(), "reentrant checkpoints, whose weights are not in the graph; call .*use_reentrant=False")


def test_checkpoints_change_nothing():
    model = checkpointed(reentrant=False)
    jacobian = slow_jacobian(nn.Sequential(*model.trunk, model.readout), vectors())
    torch.testing.assert_close(entk.gram(model, vectors()), jacobian @ jacobian.T, rtol=1e-12, atol=1e-12)


def test_a_compiled_model_has_the_kernel_of_what_it_was_made_of():
    model, x = mlp(), vectors()
    wrapped = copy.deepcopy(model)
    assert torch.equal(entk.gram(torch.compile(wrapped, backend="eager"), x), entk.gram(model, x))


def test_outputs_in_autocast_are_alike_to_its_precision():
    several = torch.rand(3, 4)
    pair = several[[1, 0]] * (1 + 1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        checks.alike(several, pair, lambda: several, ())
    with pytest.raises(ConfigError, match="the outputs of a sample change by"):
        checks.alike(several, pair, lambda: several, ())


def test_logits_in_single_precision_of_a_model_in_half_are_alike_to_the_models_precision():
    torch.manual_seed(0)
    model = Apply(lambda m, x: m.last(torch.tanh(m.first(x))).float(), first=nn.Linear(6, 64), last=nn.Linear(64, 3)).bfloat16()
    x = torch.randn(5, 6).bfloat16()
    pair = model(x[[1, 0]])
    checks.alike(model(x[:3]), pair * (1 + 2e-3), lambda: model(x[:3]), model.parameters())  # half the last place of a bfloat16
    with pytest.raises(ConfigError, match="depend|change by"):
        checks.alike(model(x[:3]), pair * (1 + 2e-3), lambda: model(x[:3]), ())
    assert entk.gram(model, x, outputs="traced").shape == (5, 5)
