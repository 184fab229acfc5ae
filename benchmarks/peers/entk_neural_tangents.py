"""The kernel by neural-tangents at its best: one jit with the weights as arguments, weights (in, out), images NHWC, no nt.batch."""

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp

from benchmarks.entk_worker import Case, Contender, serve

# its part for TensorFlow, which nothing here needs, would need TensorFlow
sys.modules["neural_tangents.experimental"] = ModuleType("neural_tangents.experimental")
import neural_tangents  # noqa: E402

# N samples; C outputs; T tokens; V vocabulary; the twins of benchmarks/entk_models.py, with weights by their torch names

Weights = dict[str, Array]
NUM_HEADS = 4


def prepare(case: Case) -> Contender:
    """The kernel of the case by the implementation it names; outputs as in benchmarks/entk_ours.py."""
    if case.get("dtype") == "float64":
        jax.config.update("jax_enable_x64", True)
    x = np.load(case["inputs"])
    with np.load(case["weights"]) as file:
        weights = native(dict(file))
    network = {"mlp": mlp, "cnn": resnet, "llama": token_losses}[case["network"]]
    if case["network"] == "cnn":
        x = x.transpose(0, 2, 3, 1)
    if case["network"] == "llama" and case["outputs"] == "loss":
        network = sequence_loss
    trace_axes = (-1,) if case["outputs"] == "traced" else ()
    kernel_of = neural_tangents.empirical_ntk_fn(network, trace_axes=trace_axes, vmap_axes=0, implementation=case["implementation"])
    compiled = jax.jit(lambda weights, x: kernel_of(x, None, weights)).lower(weights, jnp.asarray(x)).compile()
    x = jnp.asarray(x)
    return Contender(kernel=lambda: compiled(weights, x).block_until_ready(), matrix=matrix)


def matrix(kernel: Array) -> np.ndarray:
    """Rows n C + c of (N, N, C, C); the traced kernel is one already."""
    found = np.asarray(kernel)
    if found.ndim == 2:
        return found
    size = found.shape[0] * found.shape[2]
    return found.transpose(0, 2, 1, 3).reshape(size, size)


def native(torch_weights: dict[str, np.ndarray]) -> Weights:
    """Torch weights (out, in, ...) as JAX likes them: (in, out), or height, width, in, out.

    The bias of a linear layer is a row more of its weight, for an input of ones: this halves the time of implementation 3, whose pass
    over the kernel for each bias costs as much as the one for the weight.
    """
    turns = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    found = {name: value.transpose(turns[value.ndim]) for name, value in torch_weights.items()}
    for name in [name for name, value in found.items() if value.ndim == 2]:
        bias = found.pop(name.replace("weight", "bias"), None)
        if bias is not None:
            found[name] = np.concatenate([found[name], bias[None]])
    return {name: jnp.asarray(value) for name, value in found.items()}


def dense(weights: Weights, name: str, x: Array) -> Array:
    """A linear layer, with its bias if there is one."""
    weight = weights[f"{name}.weight"]
    if len(weight) > x.shape[-1]:
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
    return jnp.dot(x, weight)


def mlp(weights: Weights, x: Array) -> Array:
    """784-512-512-10 with ReLU."""
    x = jax.nn.relu(dense(weights, "0", x))
    return dense(weights, "4", jax.nn.relu(dense(weights, "2", x)))


def convolution(weights: Weights, name: str, x: Array, stride: int = 1) -> Array:
    """3x3 with a border of zeros, or 1x1."""
    kernel = weights[f"{name}.weight"]
    border = kernel.shape[0] // 2
    made = lax.conv_general_dilated(x, kernel, (stride, stride), [(border, border)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return made + weights[f"{name}.bias"]


def resnet(weights: Weights, x: Array) -> Array:
    """Three residual blocks."""
    x = jax.nn.relu(convolution(weights, "stem", x))
    for i in range(3):
        block = f"blocks.{i}"
        stride = 2 if f"{block}.shortcut.weight" in weights else 1
        inner = convolution(weights, f"{block}.second", jax.nn.relu(convolution(weights, f"{block}.first", x, stride)))
        x = jax.nn.relu((convolution(weights, f"{block}.shortcut", x, 2) if stride == 2 else x) + inner)
    return dense(weights, "readout", x.mean((1, 2)))


def rms_norm(scale: Array, x: Array) -> Array:
    """x over its root mean square, scaled."""
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def turned(x_NTHE: Array) -> Array:
    """Rotary positions."""
    num_tokens, num_channels = x_NTHE.shape[1], x_NTHE.shape[3]
    angle = np.arange(num_tokens)[:, None] * 10000.0 ** (-np.arange(0, num_channels, 2) / num_channels)
    cosine, sine = (jnp.asarray(value, x_NTHE.dtype)[:, None] for value in (np.cos(angle), np.sin(angle)))
    left, right = jnp.split(x_NTHE, 2, axis=-1)
    return jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)


def attention(weights: Weights, block: str, x: Array) -> Array:
    """Causal attention of 4 heads."""
    split = (*x.shape[:2], NUM_HEADS, -1)
    query, key, value = (dense(weights, f"{block}.{part}", x).reshape(split) for part in ("query", "key", "value"))
    query, key = turned(query), turned(key)
    score = jnp.einsum("nthe,nshe->nhts", query, key) / np.sqrt(query.shape[-1])
    allowed = np.tril(np.ones(score.shape[-2:], bool))
    share = jnp.exp(log_softmax(jnp.where(allowed, score, -1e30)))
    return dense(weights, f"{block}.out", jnp.einsum("nhts,nshe->nthe", share, value).reshape(x.shape))


def log_softmax(x: Array) -> Array:
    """Over the last axis."""
    x = x - lax.stop_gradient(x.max(-1, keepdims=True))
    return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


def llama(weights: Weights, tokens: Array) -> Array:
    """(N, T) to (N, T, V). The embedding is a product: of a gather, implementation 3 makes the Jacobian dense."""
    table = weights["embedding.weight"].T
    x = jnp.dot(jax.nn.one_hot(tokens, table.shape[0], dtype=table.dtype), table)
    for i in range(sum(name.endswith("attention_norm.weight") for name in weights)):
        block = f"blocks.{i}"
        x = x + attention(weights, block, rms_norm(weights[f"{block}.attention_norm.weight"], x))
        normed = rms_norm(weights[f"{block}.mlp_norm.weight"], x)
        gate = dense(weights, f"{block}.gate", normed)
        x = x + dense(weights, f"{block}.down", gate / (1 + jnp.exp(-gate)) * dense(weights, f"{block}.up", normed))
    return dense(weights, "readout", rms_norm(weights["norm.weight"], x))


def token_losses(weights: Weights, tokens: Array) -> Array:
    """Cross-entropy of each token, (N, T), of tokens (N, T + 1)."""
    found = log_softmax(llama(weights, tokens[:, :-1]))
    return -(found * jax.nn.one_hot(tokens[:, 1:], found.shape[-1], dtype=found.dtype)).sum(-1)


def sequence_loss(weights: Weights, tokens: Array) -> Array:
    """Their mean, (N, 1)."""
    return token_losses(weights, tokens).mean(1, keepdims=True)


if __name__ == "__main__":
    serve(prepare)
