"""Products of a kernel with vectors, each rank with its share of the tiles or samples; what is asked is found by the first rank."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from workers.sharded.panels import Pair
from workers.sharded.tiles import TileSet

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# R rows of the kernel; B vectors of a block

STOP, PRODUCT = 0, 1


class Share(Protocol):
    """What one rank adds to the products with a kernel of `num_rows` rows; all ranks multiply at the same time."""

    @property
    def num_rows(self) -> int: ...
    @property
    def dtype(self) -> "torch.dtype": ...
    @property
    def device(self) -> "torch.device": ...
    def __matmul__(self, vectors_RB: "Tensor", /) -> "Tensor":
        """(R, B) in float64, whose sum over the ranks is the product with the whole kernel."""
        ...


class TileShare:
    """Some tiles of a kernel, held in memory, on one device."""

    def __init__(self, tiles: TileSet, pairs: Sequence[Pair], device: str) -> None:
        import torch

        self.panels, self.num_rows = tiles.panels, tiles.num_rows
        self.dtype: torch.dtype = getattr(torch, tiles.dtype)
        self.device = torch.device(device)
        self.held = {pair: torch.from_numpy(tiles.tile(*pair).copy()).to(self.device) for pair in pairs}

    def __matmul__(self, vectors_RB: "Tensor") -> "Tensor":
        """What these tiles, and their transposed ones below the diagonal, add to the product (R, B), summed in float64."""
        import torch

        found_RB = torch.zeros(vectors_RB.shape, dtype=torch.float64, device=self.device)
        for (i, j), tile in self.held.items():
            rows, columns = (slice(panel.start, panel.stop) for panel in (self.panels.rows(i), self.panels.rows(j)))
            found_RB[rows] += tile @ vectors_RB[columns]
            if i != j:
                # faster by a third than tile.T @ block, which reads the tile against its order
                found_RB[columns] += (vectors_RB[rows].T.contiguous() @ tile).T
        return found_RB


class TileElements:
    """Single elements of a tiled kernel, as `entk.kernel_error` takes them."""

    def __init__(self, tiles: TileSet) -> None:
        import torch

        self.shape, self.device = (tiles.num_rows, tiles.num_rows), torch.device("cpu")
        self._tiles = tiles

    def elements(self, rows: "Tensor", columns: "Tensor") -> "Tensor":
        """(I, J) at rows (I,) and columns (J,)."""
        import torch

        return torch.from_numpy(self._tiles.elements(rows.numpy(), columns.numpy()))


class ShardedKernel:
    """A kernel as an operator (R, R), in the first rank; the others wait in `serve` for what it asks."""

    def __init__(self, share: Share, num_ranks: int) -> None:
        import torch

        self.shape, self.dtype, self.device = (share.num_rows, share.num_rows), share.dtype, torch.device("cpu")
        self.num_products = 0
        self._share, self._is_alone = share, num_ranks == 1

    def __matmul__(self, vectors: "Tensor") -> "Tensor":
        """(R,) of (R,), or (R, B) of (R, B), in float64."""
        block_RB = vectors.reshape(len(vectors), -1).to(self.dtype).contiguous()
        self.num_products += block_RB.shape[1]
        if self._is_alone:
            return (self._share @ block_RB.to(self._share.device)).cpu().reshape(vectors.shape)
        _tell(PRODUCT, block_RB.shape[1])
        return _product(self._share, block_RB).reshape(vectors.shape)

    def close(self) -> None:
        """Send the other ranks home."""
        if not self._is_alone:
            _tell(STOP, 0)


def serve(share: Share) -> None:
    """Take part in the first rank's products until it says stop."""
    import torch

    while (order := _told())[0] == PRODUCT:
        _product(share, torch.empty(share.num_rows, order[1], dtype=share.dtype))


def _tell(*order: int) -> None:
    import torch
    from torch import distributed

    distributed.broadcast(torch.tensor(order), 0)


def _told() -> list[int]:
    import torch
    from torch import distributed

    order = torch.zeros(2, dtype=torch.int64)
    distributed.broadcast(order, 0)
    found: list[int] = order.tolist()
    return found


def _product(share: Share, block_RB: "Tensor") -> "Tensor":
    from torch import distributed

    distributed.broadcast(block_RB, 0)
    found_RB = (share @ block_RB.to(share.device)).cpu()
    distributed.reduce(found_RB, 0)
    return found_RB


@contextlib.contextmanager
def joined(rank: int, num_ranks: int, device: str) -> Iterator[None]:
    """Ranks that can talk: by gloo, and between GPUs by NCCL; one alone needs nothing.

    Needs MASTER_ADDR and MASTER_PORT in the environment, as `workers.launch` sets them.
    """
    from torch import distributed

    if num_ranks == 1:
        yield
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", rank=rank, world_size=num_ranks)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def served(share: Share, rank: int, num_ranks: int) -> Iterator[ShardedKernel | None]:
    """The whole kernel for the first of the joined ranks, and for the others None when the first has left its block."""
    if rank:
        serve(share)
        yield None
        return
    kernel = ShardedKernel(share, num_ranks)
    try:
        yield kernel
    finally:
        kernel.close()


@contextlib.contextmanager
def sharded(tiles: TileSet, rank: int, num_ranks: int, device: str) -> Iterator[ShardedKernel | None]:
    """Hold this rank's share of the tiles; the kernel for the first rank, and for the others None when the first has left its block."""
    share = TileShare(tiles, tiles.panels.shares(num_ranks)[rank], device)
    with joined(rank, num_ranks, device), served(share, rank, num_ranks) as kernel:
        yield kernel
