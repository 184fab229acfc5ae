"""Checkpoints of others: tiny folders in Hugging Face's format, against their networks written out one place after the other."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from task_runs import committed, last
from token_package.echoes import Echoes
from torch import Tensor
from torch.testing import assert_close

from workers import checkpoints, entk
from workers.checkpoints import CheckpointFolder
from workers.errors import ConfigError
from workers.layers import num_params
from workers.losses import loss_per_unit
from workers.models.pretrained import Pretrained
from workers.optimizers.adam import Adam
from workers.subsets import probe
from workers.workloads.gram import Gram
from workers.workloads.position import Position
from workers.workloads.train import Train

WIDTH, HEADS, HIDDEN, VOCABULARY, DEPTH, PLACES = 16, 4, 20, 13, 2, 10
SIZE = WIDTH // HEADS
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "max_position_embeddings": PLACES,
}
LLAMA = {
    **SIZES,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
}
NEOX = {
    **SIZES,
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.5,
    "use_parallel_residual": True,
}

Weights = dict[str, Tensor]


def drawn(shapes: dict[str, tuple[int, ...]]) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) + 1.0 * name.endswith("norm.weight") for name, shape in shapes.items()}


def llama_weights(key_heads: int = 2, *, tied: bool = False) -> Weights:
    shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,)}
    shapes |= {} if tied else {"lm_head.weight": (VOCABULARY, WIDTH)}
    for layer in range(DEPTH):
        own = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH), "mlp.down_proj": (WIDTH, HIDDEN)}
        own |= {f"self_attn.{name}_proj": (key_heads * SIZE, WIDTH) for name in "kv"}
        own |= {f"mlp.{name}_proj": (HIDDEN, WIDTH) for name in ("gate", "up")}
        own |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return drawn(shapes)


def neox_weights() -> Weights:
    shapes = {"gpt_neox.embed_in.weight": (VOCABULARY, WIDTH), "embed_out.weight": (VOCABULARY, WIDTH)}
    layers = {
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
        "attention.query_key_value": (3 * WIDTH, WIDTH),
        "attention.dense": (WIDTH, WIDTH),
        "mlp.dense_h_to_4h": (HIDDEN, WIDTH),
        "mlp.dense_4h_to_h": (WIDTH, HIDDEN),
    }
    owned = {f"gpt_neox.layers.{layer}.{name}": shape for layer in range(DEPTH) for name, shape in layers.items()}
    for name, shape in (owned | {"gpt_neox.final_layer_norm": (WIDTH,)}).items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return drawn(shapes)


def written(folder: Path, config: dict, weights: Weights) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


# -- the networks, written out ------------------------------------------------------------------------------------------------


def turned(head: Tensor, place: int, num: int, base: float) -> Tensor:
    """The first `num` numbers of a head at a place, pair by pair."""
    result = head.clone()
    for pair in range(num // 2):
        angle = place * base ** (-2 * pair / num)
        one, other = head[pair], head[pair + num // 2]
        result[pair] = one * math.cos(angle) - other * math.sin(angle)
        result[pair + num // 2] = other * math.cos(angle) + one * math.sin(angle)
    return result


def attended(queries: list, keys: list, values: list) -> list[Tensor]:
    """Each place's heads put together; heads of queries in groups that share a head of keys."""
    found = []
    for place, own in enumerate(queries):
        heads = []
        for head, query in enumerate(own):
            shared = head * len(keys[0]) // len(own)
            scores = torch.stack([query @ keys[other][shared] for other in range(place + 1)]) / math.sqrt(SIZE)
            heads.append(sum(weight * values[other][shared] for other, weight in enumerate(scores.softmax(0))))
        found.append(torch.cat(heads))
    return found


def slow_llama(weights: Weights, sequence: list[int]) -> Tensor:
    w = {name: value.double() for name, value in weights.items()}
    values = [w["model.embed_tokens.weight"][token] for token in sequence]

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean() + 1e-6).sqrt() * w[name]

    for layer in range(DEPTH):
        prefix = f"model.layers.{layer}."
        normed = [norm(x, f"{prefix}input_layernorm.weight") for x in values]
        q, k, v = ([(w[f"{prefix}self_attn.{name}_proj.weight"] @ x).split(SIZE) for x in normed] for name in "qkv")
        q, k = ([[turned(head, place, SIZE, 500.0) for head in heads] for place, heads in enumerate(one)] for one in (q, k))
        values = [x + w[f"{prefix}self_attn.o_proj.weight"] @ y for x, y in zip(values, attended(q, k, v))]
        for place, x in enumerate(values):
            y = norm(x, f"{prefix}post_attention_layernorm.weight")
            gate, up = (w[f"{prefix}mlp.{name}_proj.weight"] @ y for name in ("gate", "up"))
            values[place] = x + w[f"{prefix}mlp.down_proj.weight"] @ (gate * torch.sigmoid(gate) * up)
    readout = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return torch.stack([readout @ norm(x, "model.norm.weight") for x in values])


def slow_neox(weights: Weights, sequence: list[int], *, parallel: bool) -> Tensor:
    w = {name: value.double() for name, value in weights.items()}
    values = [w["gpt_neox.embed_in.weight"][token] for token in sequence]

    def linear(x: Tensor, name: str) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean()
        return centred / (centred.square().mean() + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    for layer in range(DEPTH):
        prefix = f"gpt_neox.layers.{layer}."
        packed = [linear(norm(x, f"{prefix}input_layernorm"), f"{prefix}attention.query_key_value") for x in values]
        heads = [[one.split(SIZE) for one in row.split(3 * SIZE)] for row in packed]  # of each head its query, key and value
        q, k = ([[turned(head[which], place, 2, 1e4) for head in row] for place, row in enumerate(heads)] for which in (0, 1))
        mixed = attended(q, k, [[head[2] for head in row] for row in heads])
        between = [x + linear(y, f"{prefix}attention.dense") for x, y in zip(values, mixed)]
        seen = values if parallel else between
        inner = [linear(norm(x, f"{prefix}post_attention_layernorm"), f"{prefix}mlp.dense_h_to_4h") for x in seen]
        inner = [0.5 * y * (1 + torch.erf(y / math.sqrt(2))) for y in inner]
        values = [x + linear(y, f"{prefix}mlp.dense_4h_to_h") for x, y in zip(between, inner)]
    return torch.stack([w["embed_out.weight"] @ norm(x, "gpt_neox.final_layer_norm") for x in values])


CASES = {
    "llama": (LLAMA, llama_weights(), slow_llama),
    "llama with a head of keys for each": ({**LLAMA, "num_key_value_heads": None}, llama_weights(4), slow_llama),
    "tied llama": ({**LLAMA, "tie_word_embeddings": True}, llama_weights(tied=True), slow_llama),
    "rotary of newer files": (
        {**LLAMA, "rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        llama_weights(),
        slow_llama,
    ),
    "pythia": (NEOX, neox_weights(), partial(slow_neox, parallel=True)),
    "one after the other": ({**NEOX, "use_parallel_residual": False}, neox_weights(), partial(slow_neox, parallel=False)),
}


def tokens(num: int = 3) -> Tensor:
    return torch.randint(VOCABULARY, (num, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("config", "weights", "slow"), CASES.values(), ids=CASES)
def test_logits_are_those_of_the_network_written_out(tmp_path, config, weights, slow):
    module = checkpoints.load(written(tmp_path, config, weights), dtype=torch.float64)
    assert_close(module(tokens()), torch.stack([slow(weights, row) for row in tokens().tolist()]), rtol=1e-11, atol=1e-11)
    assert num_params(module)[0] == sum(value.numel() for value in weights.values())
    assert not module.training


def test_a_checkpoint_in_pieces_or_of_torchs_own_format_is_the_same(tmp_path):
    weights = neox_weights()
    whole = checkpoints.load(written(tmp_path / "whole", NEOX, weights))(tokens())
    assert whole.dtype == torch.float32
    for name, save in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(NEOX))
        stem, _, ending = name.partition(".")
        pieces = {f"{stem}-{i}-of-2.{ending}": dict(list(weights.items())[i::2]) for i in (0, 1)}
        for piece, own in pieces.items():
            save(own, folder / piece)
        of_name = {tensor: piece for piece, own in pieces.items() for tensor in own}
        (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": of_name}))
        assert torch.equal(checkpoints.load(folder)(tokens()), whole)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.json").write_text(json.dumps(NEOX))
    torch.save(weights, alone / "pytorch_model.bin")
    assert torch.equal(checkpoints.load(alone)(tokens()), whole)


def test_tables_beside_the_weights_and_a_tied_readout_written_twice_are_no_matter(tmp_path):
    weights = llama_weights(tied=True)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2), "lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    config = {**LLAMA, "tie_word_embeddings": True}
    plain, other = (
        checkpoints.load(written(tmp_path / name, config, found)) for name, found in (("a", weights), ("b", {**weights, **more}))
    )
    assert torch.equal(plain(tokens()), other(tokens()))


def test_halves_become_what_is_asked_for(tmp_path):
    weights = {name: value.to(torch.bfloat16) for name, value in llama_weights().items()}
    module = checkpoints.load(written(tmp_path, LLAMA, weights), dtype=torch.float64, num_places=7)
    slow = torch.stack([slow_llama(weights, row) for row in tokens().tolist()])
    assert_close(module(tokens()), slow, rtol=1e-11, atol=1e-11)
    with pytest.raises(ConfigError, match="at most 7 tokens"):
        module(torch.zeros(1, 8, dtype=torch.int64))


@pytest.mark.parametrize(("config", "weights"), [CASES["llama"][:2], CASES["pythia"][:2]], ids=["llama", "pythia"])
def test_kernels_and_positions_are_those_of_plain_gradients(tmp_path, config, weights):
    module, inputs_NT = checkpoints.load(written(tmp_path, config, weights), dtype=torch.float64), tokens(2)
    logits = module(inputs_NT)
    rows = [torch.autograd.grad(output, list(module.parameters()), retain_graph=True) for output in logits.flatten()]
    slow = torch.stack([torch.cat([one.flatten() for one in row]) for row in rows])
    kernel = slow @ slow.T
    assert_close(entk.gram(module, inputs_NT), kernel)
    assert "others" not in str(entk.plan(module, inputs_NT))
    found = entk.lnp(module, partial(loss_per_unit, "cross_entropy"), (inputs_NT, inputs_NT.roll(-1, 1)), estimator="exact")
    assert found.chi_net == pytest.approx(float(kernel.trace()) / inputs_NT.numel())


# -- what is refused ----------------------------------------------------------------------------------------------------------


def test_a_folder_without_its_files_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json in .*: a checkpoint is a folder as save_pretrained writes it"):
        checkpoints.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(ConfigError, match=r"no weights in .*: it must hold model\.safetensors or pytorch_model\.bin"):
        checkpoints.load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(llama_weights(), "absent.safetensors")}))
    with pytest.raises(ConfigError, match=r"names absent\.safetensors, which is not there; copy all files"):
        checkpoints.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is not JSON: .*; copy it again"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "lama"}, r"of the model_type 'lama'; did you mean 'llama'\? Known are llama and gpt_neox"),
        ({"model_type": None}, r"of the model_type 'None'\. Known are llama and gpt_neox"),
        ({"hidden_act": "relu"}, "has hidden_act=relu, and this network is known with silu alone"),
        ({"attention_bias": True}, "has attention_bias=True, and this network is known with False alone"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rotary positions of the type 'linear'; only default ones are known here"),
        ({"vocab_size": None}, "has no vocab_size; it must be the file that was written beside the weights"),
        ({"head_dim": 8}, "has head_dim=8, and this network is known with 4 alone"),
        ({"hidden_size": 24}, r"embed_tokens\.weight \(13, 16\) in .* must make the shape \(13, 24\) that config\.json says"),
        ({"num_key_value_heads": 4}, r"q_proj.* and .*k_proj.*\(8, 16\) .* must make the shape \(48, 16\)"),
        ({"num_hidden_layers": 3}, r"no tensor 'model\.layers\.2\.input_layernorm\.weight' .*did you mean 'model\.layers"),
        ({"num_hidden_layers": 1}, r"has tensors that this network has no place for: model\.layers\.1\..*, 9 in all"),
    ],
)
def test_what_is_not_known_or_does_not_fit_is_refused(tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        checkpoints.load(written(tmp_path, {**LLAMA, **changed}, llama_weights()))


# -- in tasks -----------------------------------------------------------------------------------------------------------------


def task(folder: Path, **settings) -> Train:
    model = Pretrained(folder=CheckpointFolder(path=str(folder)))
    return Train(data=Echoes(vocabulary=VOCABULARY), model=model, optimizer=Adam(), train_size=32, batch_size=8, num_steps=2, **settings)


def test_positions_and_kernels_of_a_checkpoint_are_tasks(tmp_path):
    folder, samples = written(tmp_path / "weights", LLAMA, llama_weights()), Echoes(vocabulary=VOCABULARY).load()
    module, index = checkpoints.load(folder, dtype=torch.float64), probe(32, 3)
    batch = torch.from_numpy(samples.test_inputs[index]), torch.from_numpy(samples.test_targets[index])
    found = last(committed(tmp_path, Position(train=task(folder), snapshot="init", probe_size=3, estimator="exact")))
    slow = entk.lnp(module, partial(loss_per_unit, "cross_entropy"), batch, estimator="exact", num_micro_batches=3)
    for name in ("chi_loss", "chi_net", "chi_pos", "mean_loss"):
        assert found[name] == pytest.approx(getattr(slow, name), rel=1e-9)
    traced = last(committed(tmp_path, Gram(train=task(folder), snapshot="init", probe_size=3, full=False)))
    assert traced["trace"] == pytest.approx(slow.chi_net / VOCABULARY)


def test_a_checkpoint_enters_keys_by_its_content(tmp_path, monkeypatch):
    from orchestrator.compose import compose
    from orchestrator.sweep import expand

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = llama_weights() | {"model.norm.weight": torch.zeros(WIDTH)}
    folders = [written(tmp_path / name, LLAMA, weights) for name, weights in (("a", llama_weights()), ("b", llama_weights()), ("c", other))]
    words = ["workload=position", "snapshot=init", "data=token_package.echoes", "model=pretrained", "probe_size=4"]
    keys = [expand(compose([*words, f"model.folder.path={folder}"])).keys for folder in folders]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_the_time_of_a_task_follows_from_the_configuration_alone(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    found = Pretrained(folder=CheckpointFolder(path=str(folder))).layers((7,), 10)
    sizes = [(WIDTH, WIDTH + 2 * 2 * SIZE), (WIDTH, WIDTH), (WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH)]
    assert [(layer.fan_in, layer.num_outputs) for layer in found] == sizes * DEPTH + [(WIDTH, VOCABULARY)]
    assert task(folder).estimated_seconds() > 0.3


def test_a_training_refuses_more_tokens_than_the_checkpoint_has(tmp_path):
    folder = written(tmp_path, LLAMA, llama_weights())
    with pytest.raises(
        ConfigError, match="the checkpoint knows 13 tokens and the data set has 20; tokenise the data as for the checkpoint"
    ):
        Pretrained(folder=CheckpointFolder(path=str(folder))).build((7,), 20, 0)
    with pytest.raises(ConfigError, match=r"model=pretrained needs model\.folder\.path, a folder with config\.json"):
        Pretrained().build((7,), 13, 0)
