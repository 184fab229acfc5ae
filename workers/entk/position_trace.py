"""chi_net: sums of squared Jacobians, exactly or by random probes, and the choice between the ways."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.network import Network
from workers.entk.norms import network, squared_gradient_norms
from workers.errors import ConfigError

# B clusters (axis 0 of the inputs); R probes or outputs; L tensors of parameters

METHODS = ("auto", "exact", "ghost", "hutchinson")
NUM_CHECKED = 2
NUM_ELEMENTS_AT_ONCE = 2**26
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_TOLERANCE = 5e-2


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Squared gradient norms of `num_clusters` clusters against one plain backward pass each, with equal probes.

    `difference` is the largest relative one; `note` says why a method was left, if it was.
    """

    difference: float
    num_clusters: int
    note: str = ""


def rademacher(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent signs, +1 or -1."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def balanced_probes(num_probes: int, outputs: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Cotangents (R, B, *outputs.shape[1:]) with E[v v^T] = 1: of each cluster a vector of an orthogonal basis, cosines with random signs.

    Each vector is taken by as many clusters as another, but for one. What differs between vectors then cancels, also between outputs and
    beside the diagonal of the kernel, and the spread over clusters is left. Independent signs where outputs are more than clusters.
    """
    num_rows = outputs[0].numel()
    if num_rows > num_clusters:
        return rademacher((num_probes, num_clusters, *outputs.shape[1:]), outputs, generator)
    basis, found = _cosines(num_rows, outputs.dtype, outputs.device), []
    for _ in range(num_probes):
        # the shift gives each vector the same chance where they do not come out even
        order = torch.randperm(num_clusters, device=outputs.device, generator=generator)
        shift = torch.randint(num_rows, (1,), device=outputs.device, generator=generator)
        found.append(basis[(order + shift) % num_rows] * rademacher((num_rows,), outputs, generator))
    return torch.stack(found).view(num_probes, num_clusters, *outputs.shape[1:])


@functools.lru_cache(maxsize=4)
def _cosines(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Orthogonal rows of length sqrt(size): the discrete cosine transform, type II."""
    steps = torch.arange(size, dtype=torch.float64, device=device)
    angles = steps[:, None] * (2 * steps + 1) * (math.pi / (2 * size))
    rows = angles.cos() * math.sqrt(2)
    rows[0] = 1
    return rows.to(dtype)


def template_outputs(model: nn.Module, inputs_B: Tensor) -> Tensor:
    """A tensor with shape, dtype and device of the outputs; ConfigError where these are not of the samples."""
    with torch.no_grad():
        found = checks.outputs(model(inputs_B[:NUM_CHECKED]))
    checks.last_axis(found.shape)
    if len(found) != len(inputs_B[:NUM_CHECKED]):
        raise ConfigError(
            f"the first axis of the outputs must be that of the samples, got shape {tuple(found.shape)} for "
            f"{len(inputs_B[:NUM_CHECKED])} samples"
        )
    return found[:1].expand(len(inputs_B), *found.shape[1:])


def choose(
    estimator: str,
    model: nn.Module,
    inputs_B: Tensor,
    outputs: Tensor,
    *,
    num_probes: int,
    single: bool,
    generator: torch.Generator,
    known: Network | None = None,
) -> tuple[str, CrossCheck, Network | None]:
    """The method for outputs like `outputs` (B, ..., C), its cross-check, and what a look at the model has told, now or before (`known`).

    Cost is counted in backward passes: "exact" takes one per output of a cluster, "ghost" and "hutchinson" one per probe. The
    variance of "hutchinson" has terms between the clusters of a block, so it is taken only where blocks are `single` clusters (it is then
    "ghost" without its work), or where "ghost" does not work.
    """
    num_rows = outputs[0].numel()
    if estimator == "hutchinson" or (estimator == "auto" and single and num_rows > num_probes):
        return "hutchinson", CrossCheck(0.0, 0, "hutchinson is a plain backward pass"), None
    method = estimator if estimator != "auto" else "exact" if num_rows <= num_probes else "ghost"
    try:
        known = known or network(model, inputs_B)
        check = cross_check(model, inputs_B[:NUM_CHECKED], generator, known)
    except (ConfigError, NotImplementedError, RuntimeError) as error:
        if estimator != "auto" or isinstance(error, torch.OutOfMemoryError):
            raise
        return "hutchinson", CrossCheck(float("nan"), 0, f"{method} does not work on this model: {error}"), None
    limit = _tolerance(outputs)
    if check.difference <= limit:
        return method, check, known
    reason = f"{method} differs from plain backward passes by {check.difference:.1e} on {check.num_clusters} clusters, not {limit:.0e}"
    if estimator != "auto":
        raise ConfigError(f'{reason}; take estimator="hutchinson"')
    return "hutchinson", CrossCheck(check.difference, check.num_clusters, reason), None


def cross_check(model: nn.Module, inputs_B: Tensor, generator: torch.Generator, known: Network) -> CrossCheck:
    """All clusters of `inputs_B` together against each alone, whose gradients are plain ones."""
    parameters = [weights for weights in model.parameters() if weights.requires_grad]
    alone, cotangents = [], []
    for index in range(len(inputs_B)):
        with torch.enable_grad():
            outputs = checks.outputs(model(inputs_B[index : index + 1]))
        cotangents.append(rademacher(tuple(outputs.shape), outputs, generator))
        gradients = torch.autograd.grad(outputs, parameters, cotangents[-1], allow_unused=True)
        alone.append(torch.stack([_square(gradient) for gradient in gradients if gradient is not None]).sum())
    plain_B = torch.stack(alone)
    (found_B,) = squared_gradient_norms(model, inputs_B, torch.cat(cotangents)[None], known=known)
    scale = plain_B.max().clamp_min(torch.finfo(plain_B.dtype).tiny)
    return CrossCheck(float(((found_B - plain_B).abs() / scale).max()), len(inputs_B))


def traces(
    method: str,
    model: nn.Module,
    inputs_B: Tensor,
    outputs: Tensor,
    valid: Tensor,
    *,
    num_probes: int,
    generator: torch.Generator,
    known: Network | None = None,
) -> Tensor:
    """sum over a cluster's valid units of ||J_n||_F^2, or its unbiased estimates: (L, R, B) in float64; R = 1 for "exact".

    `outputs` gives shape, dtype and device.
    """
    if method == "exact":
        parts = [_norms(model, inputs_B, cotangents, known).sum(1, keepdim=True) for cotangents in _unit_vectors(outputs, valid)]
        return torch.stack(parts).sum(0)
    found = []
    for part, mask in zip(*(torch.split(values, _num_at_once(outputs, num_probes)) for values in (inputs_B, valid))):
        cotangents = rademacher((num_probes, len(part), *outputs.shape[1:]), outputs, generator) * mask[..., None]
        found.append(_norms(model, part, cotangents, known))
    return torch.cat(found, dim=2)


def _norms(model: nn.Module, inputs_B: Tensor, cotangents_RB: Tensor, known: Network | None) -> Tensor:
    found = squared_gradient_norms(model, inputs_B, cotangents_RB, by_parameter=True, known=known)
    return torch.stack([found[name].to(torch.float64) for name, weights in model.named_parameters() if weights.requires_grad])


def _unit_vectors(outputs: Tensor, valid: Tensor) -> Iterator[Tensor]:
    """Cotangents (R, *outputs.shape) that take each output of each cluster once; zero at units that are not valid."""
    num_rows, at_once = outputs[0].numel(), max(1, NUM_ELEMENTS_AT_ONCE // outputs.numel())
    mask = valid[..., None].expand(outputs.shape).flatten(1).to(outputs.dtype)
    for first in range(0, num_rows, at_once):
        rows = torch.arange(first, min(first + at_once, num_rows), device=outputs.device)
        selected = nn.functional.one_hot(rows, num_rows).to(outputs.dtype)
        yield (selected[:, None] * mask).view(len(rows), *outputs.shape)


def _tolerance(outputs: Tensor) -> float:
    return TOLERANCES.get(outputs.dtype, HALF_TOLERANCE)


def _num_at_once(outputs: Tensor, num_copies: int) -> int:
    return max(1, NUM_ELEMENTS_AT_ONCE // max(1, num_copies * outputs[0].numel()))


def _square(gradient: Tensor) -> Tensor:
    return torch.dot(gradient.flatten(), gradient.flatten()).to(torch.float64)
