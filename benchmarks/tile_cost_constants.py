"""The speeds of one core that the cost model of kernels in tiles rests on, each measured with the function that it stands for."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import say, scratch, short, table
from workers import entk, files
from workers.data.fashion_mnist import FashionMnist
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.sharded import cost, scalapack
from workers.sharded.panels import Panels
from workers.sharded.products import TileShare
from workers.sharded.scalapack_band import FEWEST_CHASED, band_eigenvalues
from workers.sharded.scalapack_library import Library
from workers.sharded.tiles import TileFacts, TileSet, sums_of, tile_name
from workers.workload import Model

SHAPE, NUM_CLASSES = (1, 28, 28), 10
# of one form each as far as may be: their times are solved for the speeds of the forms
KERNELS: tuple[tuple[Model, str, int], ...] = (
    (Cnn(width=16, depth=2, input_pooling=2), "full", 128),
    (Cnn(width=32, depth=2, input_pooling=2), "full", 128),
    (Cnn(width=32, depth=2, input_pooling=2), "traced", 256),
    (Mlp(width=256, depth=2), "full", 256),
    (Mlp(width=64, depth=1), "full", 256),
    (Mlp(width=1024, depth=3), "full", 128),
    (Mlp(width=512, depth=3), "traced", 1024),
)
NAMES = ("products", "outer", "passes", "elements")
ROWS, DENSE_ROWS, COUNT = 8192, 4096, 100


def cpu(function: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def kernel_speeds() -> dict[str, float]:
    """Speeds of `NAMES` that explain the times of whole kernels in four tiles best, each time to the same share."""
    from scipy.optimize import nnls

    rows = []
    for model, outputs, images in KERNELS:
        layers = model.layers(SHAPE, NUM_CLASSES)
        assert layers is not None
        size = images * (NUM_CLASSES if outputs == "full" else 1)
        work = cost.gram_work(layers, outputs, Panels(size, size // 2))
        inputs, network = torch.randn(images, *SHAPE), model.build(SHAPE, NUM_CLASSES, 0)
        with entk.kernel_tiles(network, inputs, panel=images // 2, outputs=outputs, memory_gib=0.6) as tiles:
            tiles.tile(0, 0)
            seconds = cpu(lambda tiles=tiles: [sums_of((i, j), tiles.tile(i, j).numpy()) for i, j in ((0, 0), (0, 1), (1, 1))])
        amounts = work.products, work.outer + work.passes, work.convolutions, work.elements
        rows.append([amount / seconds for amount in amounts])
        say(f"  {type(model).__name__} of width {model.width}, {outputs}, {images} images: {short(seconds)} s")
    inverse, _ = nnls(np.array(rows), np.ones(len(rows)))
    say(f"  predicted / measured: {[round(float(one), 2) for one in np.array(rows) @ inverse]}")
    return {name: float(1 / value) if value else math.inf for name, value in zip(NAMES, inverse)}


def exact_speed() -> dict[str, float]:
    """`exact_weights` of rows of the Jacobian that a kernel is compared with."""
    model = Mlp(width=512, depth=2)
    network, inputs, index = model.build(SHAPE, NUM_CLASSES, 0), torch.randn(32, *SHAPE), torch.arange(32)
    exact = entk.double_tiles(network, inputs, "full")
    seconds = cpu(lambda: exact(index, index)) - len(index) * cost.EXACT_SECONDS
    return {"exact_weights": len(index) * sum(one.numel() for one in network.parameters()) / seconds}


def tiles_of(folder: Path, rows: int, panel: int) -> TileSet:
    """A kernel without structure, in single precision."""
    features = torch.randn(rows, 2 * rows, generator=torch.Generator().manual_seed(0)) / rows**0.5
    panels, facts = Panels(rows, panel), []
    for i, j in panels.pairs():
        left, right = panels.rows(i), panels.rows(j)
        np.save(folder / tile_name((i, j)), (features[left.start : left.stop] @ features[right.start : right.stop].T).numpy())
        facts.append(TileFacts(row=i, column=j, sha256="", squares=0.0, trace=0.0, seconds=0.0, peak_bytes=0))
    return TileSet.of(panels, "float32", folder, facts)


def solver_speeds(folder: Path) -> dict[str, float]:
    """`dense` and `pairs` of LAPACK, `band` and `chase` of ScaLAPACK's way, `vectors` of a rank's tiles, `basis` of block Lanczos."""
    tiles = tiles_of(folder, DENSE_ROWS, DENSE_ROWS // 2)
    share, block_RB = TileShare(tiles, list(tiles.panels.pairs()), "cpu"), torch.randn(DENSE_ROWS, cost.BLOCK)
    seconds = cpu(lambda: [share @ block_RB for _ in range(10)])
    found = {"vectors": 2.0 * DENSE_ROWS**2 * cost.BLOCK * 10 / seconds}
    kernel_RR = torch.from_numpy(tiles.whole()).double()
    alone = cpu(lambda: torch.linalg.eigvalsh(kernel_RR))
    found["dense"] = 4 / 3 * DENSE_ROWS**3 / alone
    found["pairs"] = 4.0 * DENSE_ROWS**3 / (cpu(lambda: torch.linalg.eigh(kernel_RR)) - alone)
    say("  LAPACK is measured")
    library = Library.load()
    found["chase"] = 6.0 * FEWEST_CHASED**2 * scalapack.BLOCK / _chase_seconds(library, FEWEST_CHASED)
    chase = _chase_seconds(library, DENSE_ROWS)
    solved = scalapack.solve(tiles, ranks=1, folder=folder / "solve")
    panels = 4.0 * DENSE_ROWS**2 * scalapack.BLOCK / cost.CORE.panel
    found["band"] = 4 / 3 * DENSE_ROWS**3 / (solved.cpu_seconds - chase - panels)
    solved = scalapack.solve(tiles, ranks=1, folder=folder / "solve", vectors=DENSE_ROWS // 8)
    found["tridiagonal"] = 4 / 3 * DENSE_ROWS**3 / solved.cpu_seconds
    return found


def _chase_seconds(library: Library, rows: int) -> float:
    band = np.random.default_rng(0).standard_normal((scalapack.BLOCK + 1, rows))
    band_eigenvalues(library, band)  # which compiles
    return cpu(lambda: band_eigenvalues(library, band))


def basis_speeds() -> dict[str, float]:
    """`basis` and `probes` of block Lanczos, with products that cost nothing, and eigenvalues that fall as those of kernels do."""
    diagonal_R = torch.arange(1, ROWS + 1, dtype=torch.float64) ** -2.0
    operator = entk.KernelOperator.from_products(
        vjp=lambda v_BR: v_BR, jvp=lambda u_BR: diagonal_R * u_BR, shape=(ROWS, ROWS), takes_blocks=True
    )
    taken, spectra = [], []
    seconds = cpu(lambda: taken.append(entk.lanczos(operator, COUNT, tolerance=1e-6).num_products))
    say(f"  block Lanczos took {taken[0] / COUNT:.1f} products for each eigenpair")
    spectra.append(entk.spectrum(operator, COUNT, tolerance=1e-6))
    probing = cpu(lambda: entk.density(operator, spectra[0], num_probes=cost.BLOCK))
    basis, probes = cost.basis_parts(ROWS, COUNT, cost.BLOCK, taken[0] + COUNT + cost.ASYMMETRY_PRODUCTS + cost.BLOCK * cost.PROBE_STEPS)
    return {"basis": basis.flops / seconds, "probes": probes.flops / probing}


def file_speeds(folder: Path) -> dict[str, float]:
    """`hash_bytes`: SHA-256 of a file in the cache; `disk_bytes`: written and on the disk, by the clock."""
    array, path = np.random.default_rng(0).standard_normal((4096, 4096)), folder / "array.npy"
    began = time.perf_counter()
    with path.open("wb") as file:
        np.save(file, array)
        os.fsync(file.fileno())
    written = array.nbytes / (time.perf_counter() - began)
    return {"hash_bytes": array.nbytes / cpu(lambda: files.sha256(path)), "disk_bytes": written}


def starts() -> dict[str, float]:
    """Processor seconds of a process that loads what a rank loads, and bytes of images that it reads in a second of them."""
    load = "import workers.sharded.making, workers.sharded.answers, workers.entk; from workers.data.fashion_mnist import FashionMnist"
    alone, with_images = (_spent(script) for script in (load, f"{load}; FashionMnist().load()"))
    size = sum(4 * math.prod(shape) for shape in FashionMnist().shapes() or ())
    return {"start": alone, "image_bytes": size / (with_images - alone)}


def _spent(script: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", script], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measured_speed(parent: Path) -> None:
    """Print each beside that of the model."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    with scratch(parent) as folder:
        for measure in (starts, lambda: file_speeds(folder), kernel_speeds, exact_speed, basis_speeds, lambda: solver_speeds(folder)):
            found |= measure()
    names = [field.name for field in fields(cost.CORE) if field.name in found]
    rows = [
        [name, f"{getattr(cost.CORE, name):.3g}", f"{found[name]:.3g}", f"{getattr(cost.CORE, name) / found[name]:.2f}"] for name in names
    ]
    table(["of one core", "model", "measured", "model / measured"], rows)
