"""A kernel tile by tile, for kernels that several processes compute, or that no memory holds as a whole."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from workers.entk import checks
from workers.entk.blocks import Block, Scratch
from workers.entk.kernels import PANEL_BYTES, PANEL_SHARE, PASS_SHARE, Plan, basis_of, look_at, model_outputs, plan_of
from workers.entk.network import Network, Samples
from workers.entk.planning import Basis
from workers.entk.position_model import unwrap
from workers.entk.tiles import Work, finish
from workers.errors import ConfigError

Held = tuple[int, dict[str, list[Block]]]


class KernelTiles:
    """Tiles of the kernel of one probe set with itself, cut into panels of samples; `kernel_tiles` makes it.

    What is kept of the model for a row panel is used again for the next tile of the same row, where two panels fit in the memory: so
    take the tiles of a row one after the other.
    """

    def __init__(self, network: Network, basis: Basis, samples: Samples, panel: int, memory_gib: float) -> None:
        self._network, self._basis, self._samples, self._memory_gib = network, basis, samples, memory_gib
        self._scratch, self._plans, self._held = Scratch(), dict[tuple[int, int, bool], Plan](), list[Held]()
        self.panel = panel

    @property
    def rows_per_sample(self) -> int:
        """Kernel rows of a sample: C with outputs="full", or 1, times its units."""
        return self._basis.num_rows

    @property
    def num_panels(self) -> int:
        """Panels of `panel` samples, the last one maybe smaller."""
        return -(-len(self._samples[0]) // self.panel)

    def samples(self, panel: int) -> slice:
        """The samples of a panel."""
        return slice(panel * self.panel, min((panel + 1) * self.panel, len(self._samples[0])))

    def plan(self, row: int, column: int) -> Plan:
        """What is done for a tile; print it."""
        rows, columns = (tuple(tensor[self.samples(panel)] for tensor in self._samples) for panel in (row, column))
        key = (len(rows[0]), len(columns[0]), row == column)
        if key not in self._plans:
            self._plans[key] = plan_of(self._network, self._basis, rows, None if row == column else columns, self._memory_gib, None, {})
        return self._plans[key]

    def tile(self, row: int, column: int) -> Tensor:
        """The kernel of a panel of rows with a panel of columns; of a panel with itself exactly symmetric."""
        plan, which = self.plan(row, column), (self.samples(row), self.samples(column))
        rows, columns = (tuple(tensor[one] for tensor in self._samples) for one in which)
        size = self.rows_per_sample
        kernel = self._network.probe.outputs.new_zeros(len(rows[0]) * size, len(columns[0]) * size).detach()
        panel_bytes = min(PANEL_BYTES, int(plan.budget_bytes * PANEL_SHARE))
        symmetric = row == column
        work = Work(self._network, self._basis, rows, None if symmetric else columns, {"": kernel}, False,
                    int(plan.budget_bytes * PASS_SHARE), panel_bytes, self._scratch)  # fmt: skip
        wide = plan if not symmetric else self.plan(row, row - 1 if row else min(1, self.num_panels - 1))
        (group, *more) = wide.groups
        if more or group.num_rows < len(rows[0]) or group.num_columns < len(columns[0]):
            self._held.clear()
            for some in plan.groups:
                for _ in work.add(some):
                    pass
        else:
            everything = tuple(slice(0, len(side[0])) for side in (rows, columns))
            if not self._held or self._held[0][0] != row:
                self._held[:] = [(row, work.blocks(group, rows, everything[0], "left"))]
            left = self._held[0][1]
            work.add_products(left, left if symmetric else work.blocks(group, columns, everything[1], "right"), *everything)
        finish(kernel, self._basis, symmetric=symmetric)
        return kernel


@contextlib.contextmanager
def kernel_tiles(
    model: nn.Module, x: Any, *, panel: int, outputs: str = "full", memory_gib: float = 2.0, statistics: str | None = None
) -> Iterator[KernelTiles]:
    """Tiles of `gram(model, x, outputs=outputs)`, for panels of `panel` samples; within the block the model must not be used otherwise.

        with entk.kernel_tiles(model, x, panel=256) as tiles:
            for i in range(tiles.num_panels):
                for j in range(i, tiles.num_panels):        # the rest is the transposed of these
                    tiles.tile(i, j)

    `memory_gib` bounds what is held beside the tile. Raises as `gram`; ConfigError for a panel that is no positive number.
    """
    checks.one_of("outputs", outputs, ("full", "traced", "sum_logits"))
    if isinstance(panel, bool) or not isinstance(panel, int) or panel < 1:
        raise ConfigError(f"panel must be a positive number of samples, got {panel!r}; some hundreds keep a core busy")
    bare, samples = unwrap(model)[0], checks.samples("x", x)
    with checks.as_found(bare, samples, statistics):
        network = look_at(bare, model_outputs(bare), samples, None)
        yield KernelTiles(network, basis_of(outputs, network.shape), samples, panel, memory_gib)
