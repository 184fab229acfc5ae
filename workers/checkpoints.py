"""Language models of others: a folder of Hugging Face's format as a torch module, read without the package that wrote it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, nearest
from workers.staging import local
from workers.workload import Data, Model, setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# tables and masks that some versions write beside the weights
NO_WEIGHTS = ("rotary_emb.inv_freq", "attention.bias", "attention.masked_bias")

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Tensors of the files that make one of ours, put together along their first axis; `heads`: packed (heads, 3, head_dim) rows."""

    names: tuple[str, ...]
    heads: int | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder(Data):
    """A folder of weights, which enters keys by its content and not by its place."""

    path: str | None = setting(None, identity=False, help="the folder with config.json and the weights")

    def files(self) -> list[Path]:
        """config.json and the weights."""
        return _Files(self._folder()).all_files()

    def load(self) -> Path:
        """The folder."""
        return self._folder()

    def _folder(self) -> Path:
        if self.path is None:
            raise ConfigError(f"model=pretrained needs model.folder.path, a folder with {CONFIG} and {' or '.join(WEIGHTS)}")
        return Path(self.path)


def load(folder: str | Path, *, dtype: "torch.dtype | None" = None, num_places: int | None = None) -> "nn.Module":
    """Maps tokens (N, T) to logits (N, T, V), on the CPU in `dtype` (float32), for `entk.gram`, `entk.lnp` or training; in eval mode.

    The folder holds config.json, of a Llama or a GPT-NeoX (Pythia), and model.safetensors or pytorch_model.bin, whole or in pieces with
    their index; its tokeniser is not read. `num_places`: the most tokens of a sequence; None: the configuration's. Raises ConfigError for
    files that are absent, networks that are not known, and tensors that do not fit.
    """
    import torch

    path = Path(folder).expanduser()
    model, vocabulary = settings_of(path)
    places = num_places or int(_needed(_config(path), "max_position_embeddings", path))
    with torch.device("meta"):
        module: nn.Module = model.build((places,), vocabulary, 0)
    _fill(module, sources(model), _Files(path), dtype or torch.float32)
    return module.eval()


def settings_of(path: Path) -> tuple[Model, int]:
    """Our settings of the network that a folder's configuration describes, and its number of tokens; reads no weights."""
    config = _config(path)
    known: dict[str, Callable[[Config, Path], Model]] = {"llama": _llama, "gpt_neox": _gpt_neox}
    kind = str(config.get("model_type"))
    if kind not in known:
        raise ConfigError(f"{path / CONFIG} is of the model_type {kind!r}{nearest(kind, known)} Known are {' and '.join(known)}")
    return known[kind](config, path), int(_needed(config, "vocab_size", path))


def sources(model: Model) -> dict[str, Source]:
    """For each of our tensors those of the files."""
    from workers.models.llama import Llama

    return dict(_llama_sources(model) if isinstance(model, Llama) else _gpt_neox_sources(model))


# -- configurations -----------------------------------------------------------------------------------------------------------


def _llama(config: Config, path: Path) -> Model:
    from workers.models.llama import Llama

    _only(config, path, hidden_act="silu", attention_bias=False, mlp_bias=False, pretraining_tp=1)
    width, num_heads = int(_needed(config, "hidden_size", path)), int(_needed(config, "num_attention_heads", path))
    _only(config, path, head_dim=width // num_heads)
    return Llama(
        width=width,
        depth=int(_needed(config, "num_hidden_layers", path)),
        head_dim=width // num_heads,
        hidden_ratio=int(_needed(config, "intermediate_size", path)) / width,
        hidden_multiple=1,
        num_key_heads=config.get("num_key_value_heads"),
        tied=bool(config.get("tie_word_embeddings", False)),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        rotary_base=float(_rotary(config, path).get("rope_theta", 10000.0)),
    )


def _gpt_neox(config: Config, path: Path) -> Model:
    from workers.models.gpt_neox import GptNeox

    _only(config, path, hidden_act=("gelu", "relu", "tanh"), attention_bias=True)
    width, rotary = int(_needed(config, "hidden_size", path)), _rotary(config, path)
    return GptNeox(
        width=width,
        depth=int(_needed(config, "num_hidden_layers", path)),
        head_dim=width // int(_needed(config, "num_attention_heads", path)),
        hidden=int(_needed(config, "intermediate_size", path)),
        activation=str(config.get("hidden_act", "gelu")),
        parallel=bool(config.get("use_parallel_residual", True)),
        tied=bool(config.get("tie_word_embeddings", False)),
        norm_epsilon=float(config.get("layer_norm_eps", 1e-5)),
        rotary_base=float(rotary.get("rope_theta", config.get("rotary_emb_base", 10000.0))),
        rotary_share=float(rotary.get("partial_rotary_factor", config.get("rotary_pct", 0.25))),
    )


def _rotary(config: Config, path: Path) -> Config:
    """Of the rotary positions, which newer files keep by themselves; ConfigError for positions that are stretched."""
    own = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = own.get("rope_type", own.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"{path / CONFIG} has rotary positions of the type {kind!r}; only default ones are known here")
    return {**config, **own}


def _only(config: Config, path: Path, **allowed: Any) -> None:
    """ConfigError for a setting that says something else than we can do; what is not said is as we have it."""
    for name, values in allowed.items():
        found = config.get(name)
        if found is not None and found not in (values if isinstance(values, tuple) else (values,)):
            told = " or ".join(map(str, values if isinstance(values, tuple) else (values,)))
            raise ConfigError(f"{path / CONFIG} has {name}={found}, and this network is known with {told} alone")


def _needed(config: Config, name: str, path: Path) -> Any:
    if config.get(name) is None:
        raise ConfigError(f"{path / CONFIG} has no {name}; it must be the file that was written beside the weights")
    return config[name]


def _config(path: Path) -> Config:
    file = local(path / CONFIG)
    if not file.is_file():
        raise ConfigError(
            f"no {CONFIG} in {path}: a checkpoint is a folder as save_pretrained writes it, with {CONFIG} and {' or '.join(WEIGHTS)}"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}; copy it again") from None
    return found if isinstance(found, dict) else {}


# -- names --------------------------------------------------------------------------------------------------------------------


def _llama_sources(model: Any) -> Iterator[tuple[str, Source]]:
    yield "embedding.weight", Source(("model.embed_tokens.weight",))
    parts: dict[str, tuple[str, ...]] = {"queries_keys_values": ("q_proj", "k_proj", "v_proj"), "output": ("o_proj",)}
    units: dict[str, tuple[str, ...]] = {"gate": ("gate_proj",), "inside": ("up_proj",), "output": ("down_proj",)}
    for layer in range(model.depth):
        places = (("self_attn", "input_layernorm", parts), ("mlp", "post_attention_layernorm", units))
        for number, (block, norm, names) in enumerate(places, start=2 * layer):
            yield f"blocks.{number}.branch.0.weight", Source((f"model.layers.{layer}.{norm}.weight",))
            for own, theirs in names.items():
                found = tuple(f"model.layers.{layer}.{block}.{name}.weight" for name in theirs)
                yield f"blocks.{number}.branch.1.{own}.weight", Source(found)
    yield f"blocks.{2 * model.depth}.weight", Source(("model.norm.weight",))
    if not model.tied:
        yield "readout.weight", Source(("lm_head.weight",))


def _gpt_neox_sources(model: Any) -> Iterator[tuple[str, Source]]:
    yield "embedding.weight", Source(("gpt_neox.embed_in.weight",))
    heads = model.width // model.head_dim
    branches = (
        {"0": "input_layernorm", "1.queries_keys_values": "attention.query_key_value", "1.output": "attention.dense"},
        {"0": "post_attention_layernorm", "1": "mlp.dense_h_to_4h", "3": "mlp.dense_4h_to_h"},
    )
    for layer in range(model.depth):
        prefixes = [f"{layer}.first", f"{layer}.second"] if model.parallel else [f"{2 * layer + number}.branch" for number in (0, 1)]
        for prefix, names in zip(prefixes, branches):
            for own, theirs in names.items():
                for kind in ("weight", "bias"):
                    packed = heads if theirs.endswith("query_key_value") else None
                    yield f"blocks.{prefix}.{own}.{kind}", Source((f"gpt_neox.layers.{layer}.{theirs}.{kind}",), packed)
    for kind in ("weight", "bias"):
        yield f"blocks.{model.depth * (1 if model.parallel else 2)}.{kind}", Source((f"gpt_neox.final_layer_norm.{kind}",))
    if not model.tied:
        yield "readout.weight", Source(("embed_out.weight",))


# -- tensors ------------------------------------------------------------------------------------------------------------------


class _Files:
    """The tensors of a folder by name, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: dict[str, Any] = {}
        self.file_of = self._found()

    def all_files(self) -> list[Path]:
        """Those that are read, in a fixed order."""
        _config(self.path)
        indices = [self.path / f"{name}.index.json" for name in WEIGHTS]
        weights = [self.path / name for name in sorted(set(self.file_of.values()))]
        return [self.path / CONFIG, *(index for index in indices if index.is_file()), *weights]

    def tensor(self, name: str) -> "Tensor":
        """One tensor; ConfigError where there is none of that name."""
        if name not in self.file_of:
            raise ConfigError(f"no tensor {name!r} in {self.path}{nearest(name, self.file_of)} It has {len(self.file_of)} tensors")
        opened = self._opened(self.file_of[name])
        found: Tensor = opened[name] if isinstance(opened, Mapping) else opened.get_tensor(name)
        return found

    def _found(self) -> dict[str, str]:
        """The file of each tensor."""
        for name in WEIGHTS:
            index = local(self.path / f"{name}.index.json")
            if index.is_file():
                return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            if local(self.path / name).is_file():
                return dict.fromkeys(self._opened(name).keys(), name)
        raise ConfigError(
            f"no weights in {self.path}: it must hold {' or '.join(WEIGHTS)}, whole or in pieces with {WEIGHTS[0]}.index.json"
        )

    def _opened(self, name: str) -> Any:
        import torch
        from safetensors import safe_open

        file = local(self.path / name)
        if name not in self.opened:
            if not file.is_file():
                raise ConfigError(f"the index in {self.path} names {name}, which is not there; copy all files of the checkpoint")
            if name.endswith(".safetensors"):
                self.opened[name] = safe_open(file, "pt")
            else:
                self.opened[name] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return self.opened[name]


def _fill(module: "nn.Module", found: Mapping[str, Source], files: _Files, dtype: "torch.dtype") -> None:
    """Put the tensors of the files in the place of those of a module without memory."""
    from workers.decoder import Readout, Rotary

    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    taken = {name for source in found.values() for name in source.names}
    spare = {"lm_head.weight", "embed_out.weight"} - taken  # a tied readout that was written all the same
    rest = [name for name in files.file_of if name not in taken and name not in spare and not name.endswith(NO_WEIGHTS)]
    if rest:
        raise ConfigError(f"{files.path} has tensors that this network has no place for: {', '.join(sorted(rest)[:5])}, {len(rest)} in all")
    module.load_state_dict({name: _joined(source, files, shapes[name], dtype) for name, source in found.items()}, assign=True)
    for part in module.modules():
        if isinstance(part, Readout):
            part.multiplier = 1.0  # theirs are tied without one
        elif isinstance(part, Rotary):
            part.make_tables(dtype, "cpu")


def _joined(source: Source, files: _Files, shape: tuple[int, ...], dtype: "torch.dtype") -> "Tensor":
    import torch

    parts = [files.tensor(name) for name in source.names]
    size = sum(len(part) for part in parts if part.dim())
    if any(part.dim() != len(shape) or part.shape[1:] != shape[1:] for part in parts) or size != shape[0]:
        told = " and ".join(f"{name} {tuple(part.shape)}" for name, part in zip(source.names, parts))
        raise ConfigError(f"{told} in {files.path} must make the shape {shape} that {CONFIG} says; the two are of different networks")
    whole = torch.cat([part.to(dtype) for part in parts])
    return whole if source.heads is None else whole.unflatten(0, (source.heads, 3, -1)).transpose(0, 1).flatten(0, 2)
