"""Squared norms of per-sample gradients, for many cotangents, without the gradients (ghost norms; Goodfellow 2015, Li et al. 2022)."""

from typing import Literal, overload

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.network import Network, Pass, Samples, look

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


@overload
def squared_gradient_norms(
    model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: bool, known: Network | None = ...
) -> Norms: ...


def squared_gradient_norms(
    model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: bool = False, known: Network | None = None
) -> Norms:
    """||J_n^T v_rn||^2 (R, N) of each sample n (axis 0 of `inputs`), summed over its units and outputs; or that by parameter's name.

    `cotangents_RN`: (R, *outputs.shape). Trainable parameters only. `known`: what `network` gave for this model and this shape. Raises
    ConfigError for a model whose samples are not independent.
    """
    samples = checks.samples("x", inputs)
    seen = known or network(model, inputs)
    flat = cotangents_RN.flatten(2) if cotangents_RN.dim() > 2 else cotangents_RN.unsqueeze(2)
    size = max(1, PASS_BYTES // max(1, seen.kept_bytes))
    chunks = [_chunk(seen, tuple(tensor[start : start + size] for tensor in samples), flat[:, start : start + size])
              for start in range(0, len(samples[0]), size)]  # fmt: skip
    found = {name: torch.cat([chunk[name] for chunk in chunks], dim=1) for name in seen.weights}
    return found if by_parameter else torch.stack(list(found.values())).sum(0)


def _chunk(seen: Network, samples: Samples, cotangents: Tensor) -> dict[str, Tensor]:
    """Squared norms (R, b) by the parameter's name; zeros for one that the outputs do not depend on."""
    num_samples = len(samples[0])
    recorded = seen.record(samples)
    if len(recorded.outputs) > num_samples:  # one sample that was taken twice
        cotangents = cotangents.expand(-1, len(recorded.outputs), -1)
    found = {name: cotangents.new_zeros(len(cotangents), num_samples) for name in seen.weights}
    operations = sorted({place[0] for part in seen.parts for place in part.places})
    for index in range(len(cotangents)):
        grads = dict(zip(operations, recorded.cotangents(operations, cotangents[index : index + 1])))
        with torch.no_grad():
            for part in seen.parts:
                found[part.name][index] += _squares(recorded, part.places, grads)[:num_samples]
    if seen.others:
        rows = seen.other_rows(seen.others, samples, cotangents[:, :num_samples])
        pieces = rows.split([seen.weights[name].numel() for name in seen.others], dim=2)
        found |= {name: piece.square().sum(2).T for name, piece in zip(seen.others, pieces)}
    return found


def _squares(recorded: Pass, places: tuple[tuple[int, int], ...], grads: dict[int, Tensor]) -> Tensor:
    """Squared norms (b,) of the rows of one weight, which several operations may read."""
    terms = [(recorded.term(place), grads[place[0]]) for place in places]
    if len(terms) == 1:
        term, grad = terms[0]
        return term.squared_norms(grad)[0]
    rows = sum(term.rows(grad) for term, grad in terms)
    assert isinstance(rows, Tensor)
    return rows.square().sum(2)[:, 0]
