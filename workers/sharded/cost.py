"""What kernels in tiles and their eigenvalues cost before they are computed: operations, bytes on disk and network, and seconds.

The model, and what was and was not checked of it, are in `docs/kernel_cost.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.sharded.engines import Question
from workers.sharded.panels import Panels
from workers.workload import Layer, Resources

# N samples of the probe set; R rows of the kernel; W ranks; B vectors of a block; K eigenvalues

ITEM_BYTES = {"float32": 4, "float64": 8}
BLOCK = 16  # vectors of block Lanczos and of its quadrature
PROBE_STEPS = 32  # of the quadrature behind the entropy
# products with one vector that block Lanczos takes for each eigenpair, about
PRODUCTS_PER_EIGENPAIR = 6.5
# of a basis, twice: while it is used, and as the state that is handed on
BASIS_VECTORS_PER_EIGENPAIR = 6
NPY_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one core, or of one GPU, per second: operations in float32 (in float64 half as many), and bytes.

    `products`: of large matrices; `outer`: of the layers that have one position, bound by memory; `passes`: forward and backward ones;
    `dense`: of LAPACK's and ScaLAPACK's reductions, in float64; `vectors`: of tiles with blocks of vectors; `basis`: of a tall basis with
    a block, in float64. `hash_bytes`: SHA-256 of what is read; `disk_bytes`: written; `network_bytes`: between two nodes. `start`:
    seconds until a rank works.
    """

    products: float
    outer: float
    passes: float
    dense: float
    vectors: float
    basis: float
    hash_bytes: float
    disk_bytes: float
    network_bytes: float
    start: float


# one core of a Xeon with AVX-512: round numbers, taken from no benchmark of their own; disk and network are assumed
CORE = Speed(
    products=120e9, outer=50e9, passes=30e9, dense=20e9, vectors=20e9, basis=8e9, hash_bytes=1.2e9, disk_bytes=0.8e9, network_bytes=1e9,
    start=3.0,
)  # fmt: skip
# assumed, not measured: an H100 with float32 products in TF32, and 100 Gbit/s between nodes
GPU = Speed(
    products=150e12, outer=20e12, passes=20e12, dense=0.5e12, vectors=5e12, basis=1e12, hash_bytes=1.2e9, disk_bytes=2e9,
    network_bytes=10e9, start=10.0,
)  # fmt: skip


# -- the kernel ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GramWork:
    """Floating point operations of a kernel: of products of large matrices and of outer products, and of passes through the network."""

    products: float
    outer: float
    passes: float

    @property
    def flops(self) -> float:
        """Of all."""
        return self.products + self.outer + self.passes

    def seconds(self, speed: Speed, dtype: str) -> float:
        """Of one core, or one GPU."""
        slower = ITEM_BYTES[dtype] / 4
        return slower * (self.products / speed.products + self.outer / speed.outer + self.passes / speed.passes)


def gram_work(layers: Sequence[Layer], outputs: str, panels: Panels) -> GramWork:
    """Of a kernel cut into `panels` of rows, "full" or "traced", computed as `entk.plan` would; a row's own features are held.

    Products are those of the pairs of samples on and above the diagonal. A panel of P goes through the network once for each tile of its
    column and once for its row, and where rows of the Jacobian are made in panels, that is done for both sides of each tile.
    """
    num_outputs = layers[-1].num_outputs
    rows = num_outputs if outputs == "full" else 1
    samples = panels.num_rows // rows
    pairs = samples * (samples + 1) / 2
    forms = [_form(layer, rows, num_outputs) for layer in layers]
    forward = sum(layer.positions * layer.fan_in * layer.num_outputs for layer in layers)
    made = sum(
        num_outputs * layer.positions * layer.fan_in * layer.num_outputs for layer, (form, _) in zip(layers, forms) if form == "panel"
    )
    through = samples * (len(panels) + 1) / 2
    return GramWork(
        products=2 * pairs * sum(count for form, count in forms if form == "panel"),
        outer=2 * pairs * sum(count for form, count in forms if form != "panel"),
        passes=2 * through * forward * (1 + num_outputs) + 2 * samples * len(panels) * made,
    )


def _form(layer: Layer, rows: int, num_outputs: int) -> tuple[str, int]:
    """The cheapest exact form of a layer, and its multiplications for a pair of samples; as `workers.entk.planning` chooses."""
    fan_in, width, positions = layer.fan_in, layer.num_outputs, layer.positions
    if layer.role == "readout" and positions == 1:
        return "outer", fan_in + rows
    bias = rows * num_outputs * width if layer.bias and positions > 1 else 0
    if layer.role == "separable" and num_outputs > 1:
        if positions == rows == 1:
            return "outer", fan_in + width
        if positions > 1:
            return "panel", fan_in * width + (rows**2 * width if rows > 1 else 0) + bias
    factors = rows * (rows if positions == 1 else num_outputs) + fan_in + rows * num_outputs * width
    jacobian = rows * num_outputs * fan_in * width
    if jacobian <= positions**2 * factors:
        return "panel", jacobian + bias
    return "outer", positions**2 * factors + bias


def tile_bytes(panels: Panels, dtype: str) -> int:
    """Of all tiles on disk, those on and above the diagonal."""
    sizes = [len(panels.rows(index)) for index in (0, len(panels) - 1)]
    whole, last = len(panels) - 1, sizes[1]
    elements = whole * (whole + 1) // 2 * sizes[0] ** 2 + whole * sizes[0] * last + last**2
    return elements * ITEM_BYTES[dtype] + NPY_BYTES * num_tiles(panels)


def num_tiles(panels: Panels) -> int:
    """On and above the diagonal."""
    return len(panels) * (len(panels) + 1) // 2


def most_tiles(panels: Panels, num_ranks: int) -> int:
    """Tiles of the rank that has most of them: those on the diagonal count half, so that one may have some more of them."""
    total = num_tiles(panels)
    return min(total, -(-total // num_ranks) + (1 if num_ranks > 1 else 0))


def gram_seconds(work: GramWork, panels: Panels, dtype: str, num_ranks: int, speed: Speed) -> float:
    """Wall time: the slowest rank's tiles, computed, hashed and written."""
    slowest = _slowest_share(panels, num_ranks)
    written = tile_bytes(panels, dtype) * (1 / speed.hash_bytes + 1 / speed.disk_bytes)
    return 2 * speed.start + slowest * (work.seconds(speed, dtype) + written)


def _slowest_share(panels: Panels, num_ranks: int) -> float:
    """Of all work, that of the rank that has most."""
    total = num_tiles(panels)
    return 1 / num_ranks if total >= 16 * num_ranks else -(-total // num_ranks) / total


# -- its eigenvalues ----------------------------------------------------------------------------------------------------------


def lanczos_vectors(count: int, num_probes: int) -> float:
    """Products of the kernel with one vector for the `count` largest eigenpairs, the quadrature of the entropy, and the certificate."""
    return (PRODUCTS_PER_EIGENPAIR + 1) * count + num_probes * PROBE_STEPS


def basis_size(num_rows: int, count: int) -> int:
    """Vectors of the basis of block Lanczos."""
    return min(num_rows, max(BASIS_VECTORS_PER_EIGENPAIR * count, count + 8 * BLOCK))


def lanczos_flops(num_rows: int, count: int, num_probes: int) -> tuple[float, float]:
    """Operations of the products, which all ranks share, and of the basis, which the first rank does alone."""
    vectors = lanczos_vectors(count, num_probes)
    basis = 12 * num_rows * (PRODUCTS_PER_EIGENPAIR * count) * basis_size(num_rows, count) * 0.6
    probes = 8 * num_rows * num_probes * PROBE_STEPS * (PROBE_STEPS / 2 + count / 2)
    return 2.0 * num_rows**2 * vectors, basis + probes


def dense_flops(num_rows: int, num_vectors: int) -> float:
    """Operations of all eigenvalues by a tridiagonal matrix, and of some eigenvectors."""
    return 4 / 3 * num_rows**3 + 4.0 * num_rows**2 * num_vectors


@dataclass(frozen=True, slots=True)
class EigenvaluesCost:
    """Operations in all, and wall time in seconds."""

    flops: float
    seconds: float


def eigenvalues_cost(engine: str, question: Question, panels: Panels, dtype: str, resources: Resources) -> EigenvaluesCost:
    """Of an engine on these resources, with the check of every tile's SHA-256 before it and the certificate after it.

    One process, "whole", is on one node and finds all vectors; "auto" counts as Lanczos.
    """
    rows, vectors, speed = panels.num_rows, question.num_vectors, GPU if resources.gpus else CORE
    num_ranks = resources.nodes * (resources.gpus or resources.cpus)
    slower = ITEM_BYTES[dtype] / 4
    read = tile_bytes(panels, dtype) / speed.hash_bytes + 2 * speed.start
    if engine == "whole":
        flops = dense_flops(rows, rows)
        return EigenvaluesCost(flops, read + flops / speed.dense / (resources.cpus if resources.nodes == 1 else 1))
    if engine == "scalapack":
        flops, certificate = dense_flops(rows, vectors), 2.0 * rows**2 * vectors
        sent = scalapack_network_bytes(rows, vectors, dtype, num_ranks) / num_ranks if resources.nodes > 1 else 0.0
        own = CORE  # MPI ranks have one core each
        seconds = slower * (flops / own.dense / 2 + certificate / own.vectors) / num_ranks
        return EigenvaluesCost(flops + certificate, read + seconds + sent / own.network_bytes)
    count = question.num_eigenvalues or vectors
    shared, alone = lanczos_flops(rows, count, question.num_probes)
    sent = lanczos_network_bytes(rows, lanczos_vectors(count, question.num_probes), dtype, resources.nodes)
    seconds = slower * shared / speed.vectors * _slowest_share(panels, num_ranks) + alone / CORE.basis + sent / speed.network_bytes
    return EigenvaluesCost(shared + alone, read + seconds)


def lanczos_network_bytes(num_rows: int, vectors: float, dtype: str, num_nodes: int) -> float:
    """Bytes that leave the nodes in all: each block is broadcast in the kernel's precision, and the sums come back in float64."""
    return vectors * num_rows * (num_nodes - 1) * (ITEM_BYTES[dtype] + 2 * 8)


def scalapack_network_bytes(num_rows: int, num_vectors: int, dtype: str, num_ranks: int) -> float:
    """Bytes that leave the ranks in all while the kernel becomes tridiagonal, at most: on paper, not checked against a run."""
    return (num_ranks - 1) * ITEM_BYTES[dtype] * (2.0 * num_rows**2 + num_rows * num_vectors)
