"""The exact empirical neural tangent kernel, the plain way: Jacobians by reverse mode, and their products (D1)."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# N, M samples; C outputs; P parameters of one tensor of weights

Jacobian = dict[str, "Tensor"]
Product = Callable[["Tensor", "Tensor"], "Tensor"]


def jacobian(module: "nn.Module", inputs_N: "Tensor") -> Jacobian:
    """d outputs / d weights of each trainable tensor of a module, (N, C, P), in the module's dtype.

    The module must treat samples independently (no batch statistics).
    """
    from torch.func import functional_call, jacrev, vmap

    weights = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}

    def outputs_C(weights: Jacobian, sample: "Tensor") -> "Tensor":
        return functional_call(module, weights, (sample[None],))[0]  # type: ignore[no-any-return]

    found = vmap(jacrev(outputs_C), in_dims=(None, 0))(weights, inputs_N)
    return {name: value.flatten(2) for name, value in found.items()}


def gram_full(module: "nn.Module", inputs_N: "Tensor", *, num_at_once: int | None = None) -> "Tensor":
    """Theta = J J^T, (N C, N C), row n C + c. At most two Jacobians of `num_at_once` samples are in memory; None: of all."""
    return _gram(module, inputs_N, num_at_once, _full)


def gram_traced(module: "nn.Module", inputs_N: "Tensor", *, num_at_once: int | None = None) -> "Tensor":
    """(1 / C) sum_c J_c J_c^T, (N, N): the mean over outputs."""
    return _gram(module, inputs_N, num_at_once, _traced)


def trace_over_outputs(gram: "Tensor", num_outputs: int) -> "Tensor":
    """The traced kernel (N, N) of a full one (N C, N C)."""
    num_samples = len(gram) // num_outputs
    return gram.view(num_samples, num_outputs, num_samples, num_outputs).diagonal(dim1=1, dim2=3).mean(-1)


def _full(rows_NCP: "Tensor", columns_MCP: "Tensor") -> "Tensor":
    return rows_NCP.flatten(0, 1) @ columns_MCP.flatten(0, 1).T


def _traced(rows_NCP: "Tensor", columns_MCP: "Tensor") -> "Tensor":
    return rows_NCP.flatten(1) @ columns_MCP.flatten(1).T / rows_NCP.shape[1]


def _gram(module: "nn.Module", inputs_N: "Tensor", num_at_once: int | None, product: Product) -> "Tensor":
    import torch

    chunks = torch.split(inputs_N, num_at_once or len(inputs_N))
    rows = [torch.cat(tiles, dim=1) for tiles in _upper_rows(module, chunks, product)]
    size = rows[0].shape[1]
    gram = torch.cat([torch.nn.functional.pad(row, (size - row.shape[1], 0)) for row in rows])
    # only tiles on and above the diagonal are computed: the kernel is symmetric
    return gram.triu() + gram.triu(1).T


def _upper_rows(module: "nn.Module", chunks: "Sequence[Tensor]", product: Product) -> "Iterator[list[Tensor]]":
    """For each chunk of samples its tiles with itself and all later chunks."""
    for index, chunk in enumerate(chunks):
        rows = jacobian(module, chunk)
        tiles = [_contract(rows, rows, product)]
        tiles += [_contract(rows, jacobian(module, later), product) for later in chunks[index + 1 :]]
        yield tiles


def _contract(rows: Jacobian, columns: Jacobian, product: Product) -> "Tensor":
    """A tile, summed over the tensors of weights."""
    import torch

    return torch.stack([product(rows[name], columns[name]) for name in rows]).sum(0)
