"""A product of a kernel that is never formed with a vector, beside one of its tiles: processor seconds, and the rows from which it pays.

Full kernels on Fashion-MNIST in single precision, one thread. Tiles have to be computed before their products: at n rows these take
a n^2 seconds and a product with a vector b n^2, the product of a kernel that is never formed c n. What is found of the largest n here is
carried on to where both ways to the 100 largest eigenvalues and the entropy take as long.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks.measure import heading, parser, scratch, short, table
from workers import entk
from workers.data.fashion_mnist import FashionMnist
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.sharded import cost
from workers.sharded.matrix_free import JacobianShare, Share
from workers.sharded.matrix_free_cost import ENGINE_GIB
from workers.sharded.panels import Panels
from workers.sharded.products import TileShare
from workers.sharded.tiles import TileFacts, TileSet, sums_of, tile_name

MODELS = {"MLP 784-256-256-10": Mlp(width=256, depth=2), "CNN 16-32": Cnn(width=16, depth=2)}
NUM_IMAGES, NUM_OUTPUTS, BLOCK = (256, 1024), 10, 16
PANEL_IMAGES = 256
NUM_EIGENVALUES, NUM_PROBES = 100, 32
TILES_GIB = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """Processor seconds at so many rows: all tiles, and a product with one vector of tiles and of the model."""

    num_rows: int
    tiles: float
    of_tiles: float
    of_model: float
    difference: float

    def row(self) -> list[str]:
        """For the table."""
        figures = (short(self.tiles), short(1e3 * self.of_tiles), short(1e3 * self.of_model), f"{self.difference:.1g}")
        return [f"{self.num_rows:,}", *figures]

    def rows_where_it_pays(self, num_products: float) -> float:
        """Where c n products = (a + b products) n^2."""
        return num_products * self.of_model / (self.tiles + num_products * self.of_tiles) * self.num_rows


def cpu_seconds(act: Callable[[], object], repetitions: int) -> float:
    """The median of several runs."""
    found = []
    for _ in range(repetitions):
        began = time.process_time()
        act()
        found.append(time.process_time() - began)
    return statistics.median(found)


def tiled(module: nn.Module, inputs_N: torch.Tensor, folder: Path) -> tuple[TileSet, float]:
    """The tiles, and the processor seconds that they take without being written."""
    import numpy as np

    panels, facts, seconds = Panels(NUM_OUTPUTS * len(inputs_N), NUM_OUTPUTS * PANEL_IMAGES), [], 0.0
    with entk.kernel_tiles(module, inputs_N, panel=PANEL_IMAGES, memory_gib=TILES_GIB) as engine:
        for pair in panels.pairs():
            began = time.process_time()
            tile = engine.tile(*pair).numpy()
            seconds += time.process_time() - began
            np.save(folder / tile_name(pair), tile)
            facts.append(TileFacts(row=pair[0], column=pair[1], sha256="", seconds=0.0, peak_bytes=0, **sums_of(pair, tile)))
    return TileSet.of(panels, "float32", folder, facts), seconds


def measured(module: nn.Module, inputs_N: torch.Tensor, folder: Path, repetitions: int) -> Point:
    """At one size."""
    tiles, seconds = tiled(module, inputs_N, folder)
    held = TileShare(tiles, list(tiles.panels.pairs()), "cpu")
    free = JacobianShare(module, inputs_N, "full", Share(0, 1, len(inputs_N)), ENGINE_GIB)
    block_RB = torch.randn(tiles.num_rows, BLOCK, generator=torch.Generator().manual_seed(0))
    images = [held @ block_RB, free @ block_RB]
    of_tiles, of_model = (cpu_seconds(lambda share=share: share @ block_RB, repetitions) / BLOCK for share in (held, free))
    return Point(tiles.num_rows, seconds, of_tiles, of_model, float((images[1] - images[0]).norm() / images[0].norm()))


def main() -> None:
    options = parser(__doc__.splitlines()[0], repetitions=3).parse_args()
    torch.set_num_threads(1)
    heading("Kernels that are never formed", options.folder, ("torch",))
    data = FashionMnist()
    images = torch.from_numpy(data.load().test_inputs)
    products = cost.lanczos_vectors(NUM_EIGENVALUES, NUM_PROBES)
    for name, model in MODELS.items():
        module = model.build(tuple(images.shape[1:]), NUM_OUTPUTS, 0)
        layers = model.layers(tuple(images.shape[1:]), NUM_OUTPUTS) or ()
        points = []
        for num_images in NUM_IMAGES:
            with scratch(options.folder) as folder:
                points.append(measured(module, images[:num_images], folder, options.repetitions))
        print(name)
        table(["rows", "tiles, s", "product of tiles, ms", "of the model, ms", "difference"], [point.row() for point in points])
        last = points[-1]
        flops = 8.0 * sum(layer.positions * layer.fan_in * layer.num_outputs for layer in layers) * last.num_rows / NUM_OUTPUTS
        print(f"products of the model: {flops / last.of_model / 1e9:.3g} GFLOP/s")
        print(
            f"{products:,.0f} products: as long at {last.rows_where_it_pays(products):,.0f} rows; one: at {last.rows_where_it_pays(1):,.0f}"
        )
        print(f"products alone: as long at {last.of_model / last.of_tiles * last.num_rows:,.0f} rows")


if __name__ == "__main__":
    main()
