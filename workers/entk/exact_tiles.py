"""Exact entries of a model's kernel, by one backward pass in float64 for each row: what a kernel in lower precision is held against."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.certificates import ExactTile
from workers.entk.operators import Inputs
from workers.entk.position_gradients import trainable
from workers.entk.position_model import unwrap
from workers.errors import ConfigError

# I, J rows and columns of a tile; U units of a sample; C outputs; P parameters


def double_tiles(
    model: nn.Module, x: Inputs, outputs: str = "full", *, statistics: str | None = None, memory_gib: float = 2.0
) -> ExactTile:
    """Exact tiles (I, J) of a model's kernel on `x`, in float64, from indices of rows (I,) and columns (J,): for `kernel_error`.

    Nothing but a copy of the model is shared with what computed the kernel. A tile takes one pass of one sample for each row and column
    (C for the traced kernel), or several where `memory_gib` does not hold their gradients at once. It raises ConfigError for a row that
    the kernel has not.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> double_tiles(model, torch.tensor([[1.0, 2.0], [0.0, 3.0]]))(torch.tensor([0, 1]), torch.tensor([1]))
    tensor([[6.],
            [9.]], dtype=torch.float64)
    """
    checks.one_of("outputs", outputs, ("full", "traced", "sum_logits"))
    plain, samples, memory = unwrap(model)[0], checks.samples("x", x), checks.memory(memory_gib)
    checks.place(plain, samples)
    exact = copy.deepcopy(plain).double()
    samples = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in samples)
    # rows and columns of 8 bytes a number
    num_at_once = max(1, memory // (16 * sum(value.numel() for value in trainable(exact))))

    def tile(rows: Tensor, columns: Tensor) -> Tensor:
        with checks.as_found(exact, samples, statistics):
            jacobian = _Rows(exact, samples, outputs)
            _check_rows(torch.cat([rows, columns]), jacobian.num_rows, outputs)
            parts = [_product(jacobian, rows, columns, part, num_at_once) for part in range(jacobian.num_parts)]
        return torch.stack(parts).mean(0)

    return tile


@dataclass(slots=True)
class _Rows:
    """Rows of a Jacobian, one by one."""

    model: nn.Module
    samples: checks.Samples
    outputs: str
    num_units: int = 0
    num_outputs: int = 0

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.num_units, self.num_outputs = self.of_sample(0).shape

    @property
    def num_rows(self) -> int:
        """Of the kernel."""
        return len(self.samples[0]) * self.num_units * (self.num_outputs if self.outputs == "full" else 1)

    @property
    def num_parts(self) -> int:
        """How many products make a tile: one for each output of the traced kernel."""
        return self.num_outputs if self.outputs == "traced" else 1

    def of_sample(self, index: int) -> Tensor:
        """The outputs (U, C) of one sample."""
        values = checks.outputs(self.model(*(tensor[index : index + 1] for tensor in self.samples)))
        checks.last_axis(values.shape)
        return values.reshape(-1, values.shape[-1])

    def gradient(self, row: int, part: int) -> Tensor:
        """One row (P,); of the traced kernel, of one of its outputs."""
        rows_of_unit = self.num_outputs if self.outputs == "full" else 1
        unit, output = divmod(row, rows_of_unit)
        with torch.enable_grad():
            values_C = self.of_sample(unit // self.num_units)[unit % self.num_units]
            value = values_C.sum() if self.outputs == "sum_logits" else values_C[part if self.outputs == "traced" else output]
            found = torch.autograd.grad(value, trainable(self.model), allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found])

    def gradients(self, index_I: Tensor, part: int) -> Tensor:
        """(I, P)."""
        return torch.stack([self.gradient(row, part) for row in index_I.tolist()])


def _check_rows(index: Tensor, num_rows: int, outputs: str) -> None:
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_rows:
        raise ConfigError(
            f"exact tiles were asked for row {int(index.max())} of a kernel of {num_rows} rows; a kernel of more has other samples than x, "
            f"or other outputs than {outputs!r}"
        )


def _product(jacobian: _Rows, rows: Tensor, columns: Tensor, part: int, num_at_once: int) -> Tensor:
    """(I, J) of one part, so many gradients of each side at a time."""
    strips = []
    for left in rows.split(num_at_once):
        left_IP = jacobian.gradients(left, part)
        others = (left_IP if torch.equal(left, right) else jacobian.gradients(right, part) for right in columns.split(num_at_once))
        strips.append(torch.cat([left_IP @ right_JP.T for right_JP in others], dim=1))
    return torch.cat(strips)
