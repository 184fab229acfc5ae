"""What a model and a probe set must be for their kernel to exist, said before anything is computed; and the model left as found."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workers.errors import ConfigError, Diverged

# N samples; C outputs

Samples = tuple[Tensor, ...]

NORMS = (nn.modules.batchnorm._BatchNorm,)
DROPOUTS = (nn.modules.dropout._DropoutNd,)


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def samples(name: str, inputs: Any, *more: Tensor) -> Samples:
    """Inputs (a tensor or a tuple of them) and what goes with them as tensors of N samples each."""
    found = (*(inputs if isinstance(inputs, tuple | list) else (inputs,)), *more)
    if not found:
        raise ConfigError(f"{name} is empty; give a tensor, or one for each of the model's arguments")
    for tensor in found:
        if not isinstance(tensor, Tensor):
            raise ConfigError(
                f"{name} must be a tensor or a tuple of tensors with samples along the first axis, got {type(tensor).__name__}"
            )
        if tensor.dim() == 0 or len(tensor) == 0:
            raise ConfigError(f"{name} is empty: it has shape {tuple(tensor.shape)}; give at least one sample along the first axis")
    if len({len(tensor) for tensor in found}) > 1:
        raise ConfigError(f"the tensors of {name} must have one number of samples, got {', '.join(str(len(tensor)) for tensor in found)}")
    with torch.inference_mode(False):
        return tuple(_alone(tensor) for tensor in found)


def _alone(tensor: Tensor) -> Tensor:
    """A tensor without a graph, of which a part takes the operations that a copy of it takes."""
    plain = tensor.clone() if tensor.is_inference() else tensor
    return plain.detach().contiguous().requires_grad_(tensor.requires_grad)


def match(rows: Samples, columns: Samples | None) -> None:
    """Both sides of a cross kernel must be of one kind, and numbers."""
    if columns is not None and len(rows) != len(columns):
        raise ConfigError(f"x and z must have as many tensors as the model has arguments, got {len(rows)} and {len(columns)}")
    _finite_samples("z", columns or ())
    for one, other in zip(rows, columns or ()):
        if one.device != other.device or one.dtype != other.dtype or one.shape[1:] != other.shape[1:]:
            raise ConfigError(
                f"x and z must be alike but for their number of samples, got {_told(one)} and {_told(other)}; bring z to the kind of x"
            )


def place(model: nn.Module, found: Samples) -> None:
    """The probe set must be where the model is, in its precision."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    for weight in model.parameters():
        if weight.is_complex():
            raise ConfigError(
                "the model has complex weights, for which no kernel is defined here; split them into real and imaginary parts"
            )
        if isinstance(weight, nn.parameter.UninitializedParameter):
            raise ConfigError("the model has weights that are not initialised; run it once on a batch before its kernel is computed")
        if weight.is_inference():
            raise ConfigError("the model was made in torch.inference_mode, so it has no gradients; make or load it outside of it")
    for tensor in found:
        for weight in weights[:1]:
            if tensor.device != weight.device:
                raise ConfigError(
                    f"the probe set is on {tensor.device}, the model on {weight.device}; move it: x.to({str(weight.device)!r})"
                )
            if weight.device.type == "meta":
                raise ConfigError(
                    "the model is on the device meta, where it has no numbers; move it to the CPU or a GPU: model.to_empty(...)"
                )
            if tensor.is_floating_point() and tensor.dtype != weight.dtype:
                raise ConfigError(f"the probe set has dtype {tensor.dtype}, the model {weight.dtype}; convert it: x.to({weight.dtype})")
    _finite_samples("the probe set", found)


def _finite_samples(name: str, found: Samples) -> None:
    for tensor in found:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Diverged(f"{name} has {int((~tensor.isfinite()).sum())} numbers that are not finite")


def outputs(found: Any) -> Tensor:
    """The outputs as a real tensor; of a result with `logits` these."""
    tensor = getattr(found, "logits", found)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = f"{tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ConfigError(
            f"the model must return one tensor of real outputs (or an object with .logits), got {kind}; wrap it in a module that does"
        )
    return tensor


def last_axis(shape: torch.Size) -> None:
    """The outputs must have an axis of outputs behind that of samples."""
    if len(shape) < 2:
        raise ConfigError(
            f"the last axis of the outputs must be outputs, after that of samples, got shape ({', '.join(map(str, shape[1:])) or 'N'},); "
            "for one output a sample return (N, 1)"
        )


def finite(found: Tensor, weights: Mapping[str, Tensor]) -> None:
    """Weights and outputs must be numbers."""
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise Diverged(f"the weight {name} has {int((~weight.isfinite()).sum())} entries that are not finite; the network diverged")
    if not bool(found.isfinite().all()):
        raise Diverged("the outputs are not finite; the network diverged, or the probe set is too large for its precision")


def spread(num_samples: int) -> list[int]:
    """Three samples, as far apart as there are; of fewer, some of them again."""
    return [0, num_samples // 2, num_samples - 1]


def chosen(found: Samples, which: Sequence[int]) -> Samples:
    """Some of the samples, as copies."""
    return tuple(tensor[list(which)] for tensor in found)


def independent(forward: Callable[[Samples], Tensor], found: Samples, weights: Iterable[Tensor]) -> None:
    """Refuse outputs (N, ...) that are random or depend on the samples beside them, by three of them and two of these in another order."""
    few = chosen(found, spread(len(found[0])))

    def passed(*which: int) -> Tensor:
        with torch.no_grad():
            return forward(chosen(few, which))

    alike(passed(0, 1, 2), passed(1, 0), lambda: passed(0, 1, 2), weights)


def alike(several: Tensor, pair: Tensor, again: Callable[[], Tensor], weights: Iterable[Tensor]) -> None:
    """Of outputs of three samples, of the second and the first by themselves, and of all three again: `independent`."""
    finite(several, {})
    coarse = precision(several, weights)
    allowed = min(1e3 * coarse, coarse**0.5) * float(several.detach().abs().max())
    difference = differ(pair, several[[1, 0]])
    if difference <= allowed:
        return
    by_chance = differ(again(), several)
    if by_chance > allowed:
        raise ConfigError(
            f"two passes over the same samples differ by {by_chance:.1e}: the model draws random numbers "
            "(dropout, noise). Call model.eval(), or fix its seed in the forward pass"
        )
    raise company(difference)


def precision(outputs: Tensor, weights: Iterable[Tensor]) -> float:
    """The machine's epsilon of what made the outputs: the coarsest of their own, the weights', autocast's and TensorFloat-32's."""
    kind = outputs.device.type
    used = {outputs.dtype, *(weight.dtype for weight in weights if weight.is_floating_point())}
    if torch.is_autocast_enabled(kind):
        used.add(torch.get_autocast_dtype(kind))
    if kind == "cuda" and torch.float32 in used and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32):
        used.add(torch.float16)  # as many bits of mantissa
    return max(torch.finfo(dtype).eps for dtype in used)


def company(difference: float) -> ConfigError:
    """Of outputs that depend on other samples."""
    return ConfigError(
        f"the outputs of a sample change by {difference:.1e} with the samples beside it or its place among them "
        "(batch statistics, a shared capacity), so it has no kernel of its own. Call model.eval(), "
        "or take statistics='batch' for those of the probe set, frozen"
    )


def differ(one: Tensor, other: Tensor) -> float:
    """The largest difference of outputs of the same samples."""
    if one.shape != other.shape:
        raise ConfigError(
            f"the outputs of a sample have {other[0].numel()} numbers in one batch and {one[0].numel()} in another: it must have its own"
        )
    return float((one - other).detach().abs().max())


def count(name: str, value: int) -> None:
    """Refuse what is no positive whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number, at least 1, got {value!r}")


def pair(name: str, found: Any) -> tuple[Any, Tensor]:
    """Refuse what is not inputs and targets."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        told = f"{len(found)} of them" if isinstance(found, tuple | list) else type(found).__name__
        raise ConfigError(f"{name} must be a pair (inputs, targets), got {told}")
    return found[0], found[1]


def memory(memory_gib: float) -> int:
    """The memory in bytes."""
    is_number = isinstance(memory_gib, int | float) and not isinstance(memory_gib, bool)
    if not is_number or not 0 < memory_gib < math.inf:
        raise ConfigError(f"memory_gib must be a positive number of GiB, got {memory_gib!r}")
    return int(memory_gib * 2**30)


def _told(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


@contextlib.contextmanager
def as_found(model: nn.Module, found: Samples, statistics: str | None) -> Iterator[None]:
    """Within: no randomness and no batch statistics; afterwards the model's mode, buffers and random numbers are as before.

    Dropout that is active is refused. Active batch normalisation is refused unless `statistics` says which ones: "running", or "batch"
    for those of all samples given here, frozen (no gradient goes through them).
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"the model must be a torch.nn.Module, got {type(model).__name__}; for other functions take KernelOperator.from_products"
        )
    dropout = [name for name, module in model.named_modules() if isinstance(module, DROPOUTS) and module.training and module.p > 0]
    attention = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention) and module.training and module.dropout > 0
    ]
    if dropout or attention:
        raise ConfigError(f"dropout is active in {', '.join(dropout + attention)}; call model.eval(), or set its probability to 0")
    active = [module for module in model.modules() if isinstance(module, NORMS) and (module.training or module.running_mean is None)]
    if active and statistics is None:
        names = [name for name, module in model.named_modules() if module in active]
        raise ConfigError(
            f"batch statistics are active in {', '.join(names)}: samples would not be independent. Call model.eval(), "
            "or give statistics='running' or 'batch' (those of the probe set, frozen)"
        )
    if statistics is not None:
        one_of("statistics", statistics, ("running", "batch"))
    if any(isinstance(value, nn.parameter.UninitializedBuffer) for value in model.buffers()):
        raise ConfigError("the model has buffers that are not initialised; run it once on a batch before its kernel is computed")
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.inference_mode(False), torch.random.fork_rng(devices=_cuda(found)), _frozen(model, active, found, statistics):
        try:
            yield
        finally:
            _put_back(model, buffers)


def _put_back(model: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Buffers that a pass has changed; the others are not written to."""
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name in buffers and not torch.equal(value, buffers[name]):
                value.copy_(buffers[name])


def _cuda(found: Samples) -> list[int]:
    return sorted({tensor.device.index or 0 for tensor in found if tensor.device.type == "cuda"})


@contextlib.contextmanager
def _frozen(model: nn.Module, active: Sequence[nn.Module], found: Samples, statistics: str | None) -> Iterator[None]:
    if not active:
        yield
        return
    before = [(module, module.training, module.running_mean, module.running_var) for module in active]
    try:
        if statistics == "batch":
            _take_statistics(model, active, found)
        missing = [module for module in active if module.running_mean is None]
        if missing:
            raise ConfigError("a batch normalisation keeps no running statistics; take statistics='batch'")
        for module in active:
            module.training = False
        yield
    finally:
        for module, training, mean, variance in before:
            module.training, module.running_mean, module.running_var = training, mean, variance


def _take_statistics(model: nn.Module, active: Sequence[nn.Module], found: Samples) -> None:
    """Put the mean and the (biased) variance of each normalisation's input over all samples in place of the running ones."""
    taken: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module in taken:
            raise ConfigError(
                "a batch normalisation is applied twice, with other statistics each time; take statistics='running', or a module for each"
            )
        axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
        taken[module] = inputs[0].mean(axes), inputs[0].var(axes, correction=0)

    handles = [module.register_forward_pre_hook(take) for module in active]
    try:
        for module in active:  # the pass averages into copies
            for name in ("running_mean", "running_var"):
                value = getattr(module, name)
                setattr(module, name, None if value is None else value.clone())
        with torch.no_grad():
            model(*found)
    finally:
        for handle in handles:
            handle.remove()
    for module, (mean, variance) in taken.items():
        module.running_mean, module.running_var = mean, variance
