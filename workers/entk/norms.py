"""Squared norms of per-sample gradients, for many cotangents, without the gradients (ghost norms; Goodfellow 2015, Li et al. 2022)."""

import contextlib
from typing import Literal, overload

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.network import FEWEST, Network, Part, Pass, Samples, look
from workers.errors import ConfigError

# R cotangents of each sample; N samples, b of a chunk; D outputs of a sample

PASS_BYTES = 128 * 2**20

Norms = Tensor | dict[str, Tensor]


def network(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> Network:
    """What `squared_gradient_norms` finds out of a model at each call; it stays true while weights change and shapes do not."""
    return look(model, lambda samples: checks.outputs(model(*samples)), checks.samples("x", inputs))


@overload
def squared_gradient_norms(
    model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: Literal[False] = ..., known: Network | None = ...
) -> Tensor: ...


@overload
def squared_gradient_norms(
    model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: Literal[True], known: Network | None = ...
) -> dict[str, Tensor]: ...


def squared_gradient_norms(
    model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: bool = False, known: Network | None = None
) -> Norms:
    """||J_n^T v_rn||^2 (R, N) of each sample n (axis 0 of `inputs`), summed over its units and outputs; or that by parameter's name.

    `cotangents_RN`: (R, *outputs.shape). Trainable parameters only. `known`: what `network` gave for this model and this shape. Raises
    ConfigError for a model whose samples are not independent.
    """
    found = norms_by_parameter(known or network(model, inputs), inputs, cotangents_RN)
    return found if by_parameter else torch.stack(list(found.values())).sum(0)


@torch.no_grad()
def norms_by_parameter(
    seen: Network, inputs: Tensor | tuple[Tensor, ...], cotangents_RN: Tensor, outputs: Tensor | None = None
) -> dict[str, Tensor]:
    """Those of a known network. `outputs`: of these inputs, made before; where their graph is still there no pass is made again."""
    samples = checks.samples("x", inputs)
    flat = cotangents_RN.flatten(2) if cotangents_RN.dim() > 2 else cotangents_RN.unsqueeze(2)
    size = max(1, PASS_BYTES // max(1, seen.kept_bytes))
    if outputs is not None and outputs.requires_grad and outputs.dtype == seen.probe.outputs.dtype and FEWEST <= len(outputs) <= size:
        # another graph, such as a compiled one: ConfigError; freed by the backward pass of a training step: RuntimeError
        with contextlib.suppress(ConfigError, RuntimeError):
            return _squares(seen, seen.passed(outputs, samples), samples, flat)
    chunks = [_chunk(seen, tuple(tensor[start : start + size] for tensor in samples), flat[:, start : start + size])
              for start in range(0, len(samples[0]), size)]  # fmt: skip
    return {name: torch.cat([chunk[name] for chunk in chunks], dim=1) for name in seen.weights}


def _chunk(seen: Network, samples: Samples, cotangents: Tensor) -> dict[str, Tensor]:
    recorded, num_samples = seen.record(samples), len(samples[0])
    if len(recorded.outputs) > num_samples:  # one sample that was taken twice
        cotangents = cotangents.expand(-1, len(recorded.outputs), -1)
    return {name: found[:, :num_samples] for name, found in _squares(seen, recorded, samples, cotangents).items()}


def _squares(seen: Network, recorded: Pass, samples: Samples, cotangents: Tensor) -> dict[str, Tensor]:
    """Squared norms (R, b) by the parameter's name; zeros for one that the outputs do not depend on."""
    operations = sorted({place[0] for part in seen.parts for place in part.places})
    lengths: dict[int, list[Tensor]] = {part.places[0][0]: [] for part in seen.products}
    squares: dict[Part, list[Tensor]] = {part: [] for part in seen.parts if part not in seen.products}
    for one in cotangents.split(1):
        grads = dict(zip(operations, recorded.cotangents(operations, one)))
        for operation, rows in lengths.items():
            rows.append(_lengths(grads[operation][0]))
        for part, rows in squares.items():
            rows.append(_of_rows(recorded, part.places, grads))
    by_operation = {operation: torch.stack(rows) for operation, rows in lengths.items()}
    found: dict[str, Tensor] = {}
    for part in seen.parts:
        each = torch.stack(squares[part]) if part in squares else by_operation[part.places[0][0]]
        if name := seen.products.get(part):
            each = each * _lengths(recorded.readings[part.places[0][0]].saved(name))
        found[part.name] = found[part.name] + each if part.name in found else each
    if seen.others:
        of_others = seen.other_rows(seen.others, samples, cotangents[:, : len(samples[0])])
        pieces = of_others.split([seen.weights[name].numel() for name in seen.others], dim=2)
        found |= {name: piece.square().sum(2).T for name, piece in zip(seen.others, pieces)}
    if any(len(rows[0]) != cotangents.shape[1] for rows in lengths.values()):
        raise ConfigError("the network is known for samples of another shape; find it out again for these: network(model, inputs)")
    nothing = cotangents.new_zeros(cotangents.shape[:2])
    return {name: found.get(name, nothing) for name in seen.weights}


def _lengths(values: Tensor) -> Tensor:
    """||x_n||^2 (b,)."""
    found: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).square()
    return found


def _of_rows(recorded: Pass, places: tuple[tuple[int, int], ...], grads: dict[int, Tensor]) -> Tensor:
    """Squared norms (b,) of the rows of one weight, which several operations may read."""
    terms = [(recorded.term(place), grads[place[0]]) for place in places]
    if len(terms) == 1:
        term, grad = terms[0]
        return term.squared_norms(grad)[0]
    rows = sum(term.rows(grad) for term, grad in terms)
    assert isinstance(rows, Tensor)
    return rows.square().sum(2)[:, 0]
