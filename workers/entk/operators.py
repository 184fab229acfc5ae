"""Kernels as operators: products with blocks of vectors, of a stored kernel, of a model without its kernel, or of two callables.

What takes a kernel here takes any `Operator`. A `torch.Tensor` is one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from workers.entk import checks
from workers.entk.position_model import unwrap
from workers.errors import ConfigError

# R rows; S columns; B vectors of a block; N units; C outputs; P parameters

Weights = dict[str, Tensor]
Outputs = Callable[[Weights], Tensor]
Inputs = Tensor | Sequence[Tensor]


class Operator(Protocol):
    """A linear map of vectors (S,) or blocks (S, B) to (R,) or (R, B), on one device, in one precision."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def __matmul__(self, vectors: Tensor, /) -> Tensor: ...


def as_operator(kernel: Any) -> Operator:
    """A kernel as an operator: matrices of NumPy and the like become tensors; ConfigError where it is none."""
    if not isinstance(kernel, Tensor) and hasattr(kernel, "__array__"):
        kernel = torch.as_tensor(kernel)
    if not all(hasattr(kernel, name) for name in ("shape", "dtype", "device", "__matmul__")):
        raise ConfigError(f"a kernel is a matrix or has shape, dtype, device and @, got {type(kernel).__name__}; see KernelOperator")
    if len(kernel.shape) != 2 or 0 in kernel.shape or not kernel.dtype.is_floating_point:
        raise ConfigError(f"a kernel is a matrix of real numbers, got shape {tuple(kernel.shape)} of {kernel.dtype}")
    return kernel.detach() if isinstance(kernel, Tensor) else kernel


def apply(operator: Operator, vectors_SB: Tensor) -> Tensor:
    """The product (R, B) in float64, computed in the operator's own precision."""
    return (operator @ vectors_SB.to(operator.dtype)).to(torch.float64)


class Together(Protocol):
    """Processes that each hold other samples of one kernel and multiply at the same time."""

    def total(self, gradients: Weights, /) -> Weights:
        """The sum over the processes of J^T v of each one's samples: by weight's name, (B, *its shape)."""
        ...

    def least(self, number: int, /) -> int:
        """The smallest number that any of the processes gives."""
        ...


class KernelOperator:
    """The kernel of a model (D1), never formed: K v = J (J^T v), one backward and one forward pass for a block of vectors.

    `x` (N, ...) and `z` (M, ...), None for `x`: inputs with samples in front. `outputs`: "full" (row unit x C + c), "traced" (the mean
    over outputs, C times the work), "sum_logits". Trainable parameters only. Samples must be independent of each other (no batch
    statistics): three of `x` are looked at. `memory_gib` bounds the activations and the gradients, one of P numbers for each vector at
    once; ConfigError where it is below what one sample and one vector take, and where the inputs are empty. `together`: the other samples
    are with other processes; vectors and products then hold the rows of this one's samples.

    >>> model = nn.Linear(3, 2, bias=False).double()
    >>> x = torch.eye(3, dtype=torch.float64)
    >>> KernelOperator(model, x, "traced") @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    tensor([1., 2., 3.], dtype=torch.float64)
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def __init__(
        self,
        model: nn.Module,
        x: Inputs,
        outputs: str = "full",
        *,
        z: Inputs | None = None,
        memory_gib: float = 2.0,
        statistics: str | None = None,
        together: Together | None = None,
    ) -> None:
        products = _ModelProducts(model, checks.samples("x", x), checks.samples("z", x if z is None else z), outputs, statistics)
        products.prepare(memory_gib, together)
        self.shape, self.dtype, self.device = products.shape, products.dtype, products.device
        self._product: Callable[[Tensor], Tensor] = products.multiply

    @classmethod
    def from_products(
        cls,
        *,
        jvp: Callable[[Any], Any],
        vjp: Callable[[Any], Any],
        shape: tuple[int, int],
        dtype: torch.dtype = torch.float64,
        as_array: Callable[[Any], Any] | None = None,
        takes_blocks: bool = False,
    ) -> "KernelOperator":
        """An operator of two callables of any library: `vjp` takes a vector (S,) to J^T v, of any type, and `jvp` that to (R,).

        `as_array` makes a NumPy array one of that library's (`jax.numpy.asarray`); None: `vjp` takes tensors of torch. `takes_blocks`:
        they take and give blocks, (B, S) to (B, R), which is faster (`jax.vmap` of both).

        >>> jacobian = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> kernel = KernelOperator.from_products(
        ...     vjp=lambda v: jacobian.T @ v, jvp=lambda u: jacobian @ u, shape=(2, 2), dtype=torch.float32)
        >>> kernel @ torch.tensor([1.0, 0.0])
        tensor([5., 2.])
        """
        operator = cls.__new__(cls)
        operator.shape, operator.dtype, operator.device = tuple(shape), dtype, torch.device("cpu")

        def product(array: Tensor) -> Tensor:
            # through NumPy: arrays of JAX are read-only, and torch wants a copy
            image = jvp(vjp(array if as_array is None else as_array(array.numpy())))
            return (image if isinstance(image, Tensor) else torch.from_numpy(numpy.array(image))).to(dtype)

        operator._product = product if takes_blocks else lambda block_BS: torch.stack([product(vector_S) for vector_S in block_BS])
        return operator

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """(R,) of (S,), or (R, B) of (S, B), in the kernel's precision; ConfigError for vectors of another kind."""
        if not isinstance(vectors, Tensor):
            raise ConfigError(f"a kernel multiplies tensors of torch, got {type(vectors).__name__}; give torch.as_tensor(vectors)")
        if vectors.ndim not in (1, 2) or len(vectors) != self.shape[1]:
            raise ConfigError(
                f"a kernel of shape {self.shape} multiplies ({self.shape[1]},) or ({self.shape[1]}, B), got {tuple(vectors.shape)}"
            )
        if vectors.dtype != self.dtype or vectors.device != self.device:
            raise ConfigError(
                f"a kernel in {self.dtype} on {self.device} multiplies vectors of its kind, got {vectors.dtype} on {vectors.device}; "
                "give vectors.to(kernel.device, kernel.dtype)"
            )
        if vectors.numel() == 0:
            return vectors.new_zeros(self.shape[0], 0)
        image_BR = self._product(vectors.reshape(self.shape[1], -1).T)
        return image_BR.T if vectors.ndim == 2 else image_BR[0]


class _ModelProducts:
    """Products with J(x) J(z)^T, cut so that a few samples times a few vectors are in memory."""

    over_vectors: Any
    pull: Any
    push: Any
    together: Together | None = None

    def __init__(self, model: nn.Module, x: checks.Samples, z: checks.Samples, outputs: str, statistics: str | None) -> None:
        checks.one_of("outputs", outputs, ("full", "traced", "sum_logits"))
        checks.match(x, z)
        checks.place(model, x)
        # a compiled or distributed model has no forward mode, and the same weights as the one it was made of
        self.model, self.x, self.z = unwrap(model)[0], x, z
        self.outputs, self.statistics = outputs, statistics
        self.weights = {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}
        if not self.weights:
            raise ConfigError("the model has no trainable weights; set requires_grad on those that the kernel is of")
        first = next(iter(self.weights.values()))
        self.dtype, self.device = first.dtype, first.device

    def prepare(self, memory_gib: float, together: Together | None = None) -> None:
        """Shapes, limits and the way to differentiate, from one sample."""
        with checks.as_found(self.model, self.x, self.statistics), torch.no_grad():
            values = self._outputs(_cut(self.x, 0, 1))(self.weights)
            checks.last_axis(values.shape)
            checks.finite(values, self.weights)
            checks.independent(lambda samples: self._outputs(samples)(self.weights), self.x, self.weights.values())
            *units, self.num_outputs = values.shape[1:]
            self.rows_of_sample = math.prod(units) * (self.num_outputs if self.outputs == "full" else 1)
            self.num_parts = self.num_outputs if self.outputs == "traced" else 1
            self.shape = (len(self.x[0]) * self.rows_of_sample, len(self.z[0]) * self.rows_of_sample)
            self.max_vectors, self.max_samples = self._limits(memory_gib)
            self._choose_way()
        if together is not None:  # as many sums of gradients here as there
            self.together, self.max_vectors = together, together.least(self.max_vectors)

    def multiply(self, block_BS: Tensor) -> Tensor:
        """(B, R) of (B, S). A part is an output of the traced kernel, each of which goes through the model by itself."""
        parts = torch.arange(len(block_BS) * self.num_parts, device=self.device)
        num_vectors = min(self.max_vectors, len(parts))
        num_samples = max(1, self.max_samples // num_vectors)
        with checks.as_found(self.model, self.x, self.statistics), torch.no_grad():
            block_BS = block_BS.clone() if block_BS.is_inference() else block_BS
            image_BR = block_BS.new_zeros(len(block_BS), self.shape[0])
            for start in range(0, len(parts), num_vectors):
                chosen = parts[start : start + num_vectors]
                vectors, outputs = chosen // self.num_parts, chosen % self.num_parts
                gradients = self._backward(block_BS[vectors], outputs, num_samples)
                gradients = gradients if self.together is None else self.together.total(gradients)
                image_BR.index_add_(0, vectors, self._forward(gradients, outputs, num_samples))
            return image_BR / self.num_parts

    def _backward(self, block_BS: Tensor, outputs_B: Tensor, num_samples: int) -> Weights:
        """J(z)^T v for each vector, summed over chunks of samples."""
        total: Weights = {}
        for start in range(0, len(self.z[0]), num_samples):
            values, pull = self.pull(self._outputs(_cut(self.z, start, num_samples)), self.weights)
            cut_BS = block_BS[:, start * self.rows_of_sample : (start + num_samples) * self.rows_of_sample]
            found = self.over_vectors(pull)(self._seeds(cut_BS, outputs_B, values))
            total = {name: total[name].add_(value) for name, value in found.items()} if total else found
        return total

    def _forward(self, gradients: Weights, outputs_B: Tensor, num_samples: int) -> Tensor:
        """J(x) u for each gradient, (B, R)."""
        images = []
        for start in range(0, len(self.x[0]), num_samples):
            push = self.push(self._outputs(_cut(self.x, start, num_samples)), self.weights)
            images.append(self._read(self.over_vectors(push)(gradients), outputs_B))
        return torch.cat(images, dim=1)

    def _outputs(self, inputs: checks.Samples) -> Outputs:
        def outputs(weights: Weights) -> Tensor:
            # the fused kernels of attention have no forward mode and no second derivative
            with sdpa_kernel(SDPBackend.MATH):
                return checks.outputs(functional_call(self.model, weights, inputs))

        return outputs

    def _seeds(self, cut_BS: Tensor, outputs_B: Tensor, values: Tensor) -> Tensor:
        """Vectors (B, S) as cotangents (B, *values.shape)."""
        if self.outputs == "full":
            return cut_BS.reshape(-1, *values.shape)
        cut = cut_BS.reshape(-1, *values.shape[:-1], 1)
        if self.outputs == "sum_logits":
            return cut.expand(-1, *values.shape)
        return cut * self._one_hot(outputs_B, values.ndim)

    def _read(self, image: Tensor, outputs_B: Tensor) -> Tensor:
        """Tangents (B, N, ..., C) of the outputs as rows (B, R)."""
        if self.outputs == "sum_logits":
            image = image.sum(-1)
        elif self.outputs == "traced":
            image = (image * self._one_hot(outputs_B, image.ndim - 1)).sum(-1)
        return image.flatten(1)

    def _one_hot(self, outputs_B: Tensor, num_axes: int) -> Tensor:
        one_hot_BC = torch.nn.functional.one_hot(outputs_B, self.num_outputs).to(self.dtype)
        return one_hot_BC.view(-1, *[1] * (num_axes - 1), self.num_outputs)

    def _limits(self, memory_gib: float) -> tuple[int, int]:
        """Vectors, and samples of one vector, at once: half of the memory for gradients (the sum and a chunk's), half for activations."""
        half = checks.memory(memory_gib) // 2
        gradient = 2 * sum(value.nbytes for value in self.weights.values())
        # forward mode carries a tangent beside each value
        activation = 2 * max(self._saved_bytes(_cut(inputs, 0, 1)) for inputs in (self.x, self.z))
        least = max(gradient, activation)
        if half < least:
            raise ConfigError(
                f"memory_gib must be at least {2 * least / 2**30:.3g} for one sample and one vector of this model, got {memory_gib:g}"
            )
        return half // least, half // activation

    def _saved_bytes(self, sample: checks.Samples) -> int:
        """What one sample's forward pass keeps for its backward pass, without the weights."""
        own = {value.untyped_storage().data_ptr() for value in (*self.model.parameters(), *self.model.buffers(), *sample)}
        kept: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            kept[storage.data_ptr()] = 0 if storage.data_ptr() in own else storage.nbytes()
            return value

        weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            values = self._outputs(sample)(weights)
        return sum(kept.values()) + values.nbytes

    def _choose_way(self) -> None:
        """Of the ways to differentiate, the first that this model's layers support and whose J and J^T are adjoint, on one sample."""
        failures = []
        for self.over_vectors, self.pull, self.push in WAYS:
            try:
                if self._is_adjoint():
                    return
                failures.append("J and J^T disagree: a backward pass of this model is not that of its forward pass")
            except (NotImplementedError, RuntimeError) as error:
                failures.append(str(error).splitlines()[0])
        raise ConfigError("products with the Jacobian of this model fail; " + "; ".join(dict.fromkeys(failures)))

    def _is_adjoint(self) -> bool:
        generator = torch.Generator(self.device).manual_seed(0)
        function = self._outputs(_cut(self.x, 0, 1))
        values, pull = self.pull(function, self.weights)
        seeds = torch.randn(2, *values.shape, generator=generator, dtype=self.dtype, device=self.device)
        gradients = self.over_vectors(pull)(seeds)
        images = self.over_vectors(self.push(function, self.weights))(gradients)
        squares = torch.stack([value.double().square().reshape(len(value), -1).sum(1) for value in gradients.values()]).sum(0)
        products = (seeds * images).double().flatten(1).sum(1)
        return bool(torch.allclose(products, squares, rtol=torch.finfo(self.dtype).eps ** 0.5))


def _cut(inputs: checks.Samples, start: int, num_samples: int) -> checks.Samples:
    return tuple(tensor[start : start + num_samples] for tensor in inputs)


def _pull(function: Callable[[Any], Any], point: Any) -> tuple[Any, Any]:
    """The values, and what takes a cotangent of theirs to that of the point: for outputs and weights v to J^T v."""
    values, pull, *_ = vjp(function, point)
    return values, lambda cotangent: pull(cotangent)[0]


def _forward_mode(outputs: Outputs, weights: Weights) -> Any:
    return lambda tangents: jvp(outputs, (weights,), (tangents,))[1]


def _backward_twice(outputs: Outputs, weights: Weights) -> Any:
    """J u as the gradient of w^T J u, which is linear in w: for layers without a rule for forward mode."""
    values, pull = _pull(outputs, weights)
    return _pull(pull, torch.zeros_like(values))[1]


def _plain_pull(outputs: Outputs, weights: Weights) -> tuple[Tensor, Any]:
    """`_pull` by the tape of autograd: for layers that torch.func does not know, and activation checkpointing."""
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        values = outputs(leaves)

    def pull(cotangent: Tensor) -> Weights:
        found = torch.autograd.grad(values, list(leaves.values()), cotangent, retain_graph=True, materialize_grads=True)
        return dict(zip(leaves, found))

    return values.detach(), pull


def _plain_push(outputs: Outputs, weights: Weights) -> Any:
    """`_backward_twice` by the tape of autograd."""
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        values = outputs(leaves)
        seed = torch.zeros_like(values, requires_grad=True)
        found = torch.autograd.grad(values, list(leaves.values()), seed, create_graph=True, allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(leaves, found) if gradient is not None}

    def push(tangents: Weights) -> Tensor:
        along = [tangents[name] for name in gradients]
        return torch.autograd.grad(list(gradients.values()), seed, along, retain_graph=True, materialize_grads=True)[0]

    return push


def _one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`vmap` for layers that it does not know."""

    def each(block: Any) -> Any:
        leaves, tree = tree_flatten(block)
        found = [function(tree_unflatten([leaf[index] for leaf in leaves], tree)) for index in range(len(leaves[0]))]
        return tree_map(lambda *values: torch.stack(values), *found)

    return each


# what multiplies a block, J^T v and J u, the fastest first
WAYS: Any = (
    (vmap, _pull, _forward_mode),
    (vmap, _pull, _backward_twice),
    (_one_by_one, _pull, _forward_mode),
    (_one_by_one, _pull, _backward_twice),
    (_one_by_one, _plain_pull, _plain_push),
)
