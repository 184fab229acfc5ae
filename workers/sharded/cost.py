"""What kernels in tiles and their eigenvalues cost before they are computed: operations, bytes on disk and network, and seconds.

The model, and what was and was not checked of it, are in `docs/kernel_cost.md`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from workers.sharded import scalapack, scalapack_band, scalapack_library
from workers.sharded.engines import Question
from workers.sharded.panels import Panels
from workers.workload import Layer, Resources

# N samples of the probe set; R rows of the kernel; W ranks; B vectors of a block; K eigenvalues

ITEM_BYTES = {"float32": 4, "float64": 8}
BLOCK = 16  # vectors of block Lanczos and of its quadrature
PROBE_STEPS = 32  # of the quadrature behind the entropy
ASYMMETRY_PRODUCTS = 16  # random vectors that show whether a kernel is symmetric
# products with one vector that block Lanczos takes for each eigenpair: 3 to 4 for kernels of networks, 6.5 for spectra without gaps
PRODUCTS_PER_EIGENPAIR = 4.0
# of a basis, twice: while it is used, and as the state that is handed on
BASIS_VECTORS_PER_EIGENPAIR = 6
# of a full basis, those that a block is made orthogonal to on average: some are kept at each restart
BASIS_FILL = 0.7
NPY_BYTES = 128
# rows of the Jacobian that are computed again in float64, and seconds of a core for each beside its weights
EXACT_ROWS, EXACT_SECONDS = 512, 0.5e-3
# of an eigenvalue in the table of the spectrum and in the answer
BYTES_PER_EIGENVALUE = 40


@dataclass(frozen=True, slots=True)
class Part:
    """A step of a task. Seconds of a core, or of a GPU: `shared` by the ranks, `each` of every rank, `alone` of one while others wait.

    `cores`: of the first node, which share what is done alone. `written_bytes`: to disk; `sent_bytes`: between nodes, in all; `link_bytes`:
    of them, those of the busiest node.
    """

    name: str
    flops: float = 0.0
    shared: float = 0.0
    each: float = 0.0
    alone: float = 0.0
    cores: int = 1
    written_bytes: float = 0.0
    sent_bytes: float = 0.0
    link_bytes: float = 0.0

    def core_seconds(self, num_ranks: int) -> float:
        """Of all ranks together."""
        return self.shared + self.alone + num_ranks * self.each

    def seconds(self, share: float, speed: "Speed") -> float:
        """Of clock, where the slowest rank has this share of what is shared."""
        waited = share * self.written_bytes / speed.disk_bytes + self.link_bytes / speed.network_bytes
        return share * self.shared + self.each + self.alone / self.cores + waited


@dataclass(frozen=True, slots=True)
class Ranks:
    """`per_node` of them, of one core or GPU each, on each of `nodes`."""

    nodes: int
    per_node: int

    @classmethod
    def of(cls, resources: Resources) -> "Ranks":
        """Those that a task has."""
        return cls(resources.nodes, resources.gpus or resources.cpus)

    @property
    def total(self) -> int:
        """Of all nodes."""
        return self.nodes * self.per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one core, or of one GPU, per second: operations in float32 (in float64 half as many), and bytes.

    `products`: of large matrices; `outer`: of the layers that have one position; `passes`: forward and backward ones through the others;
    `elements`: of the kernel, added up and summed; `exact_weights`: weights of rows of the Jacobian in float64; `vectors`: of tiles with
    blocks of vectors. In float64: `basis`, of a tall basis with a block; `probes`, each with a basis of its own; `dense`, eigenvalues by
    LAPACK, and `pairs`, what all eigenvectors take more; `chase`, from a band to eigenvalues. ScaLAPACK's, in float32: `band`, to a band;
    `panel`, what every rank does of that; `tridiagonal`, for eigenvectors. `hash_bytes`: SHA-256 of what is read; `carried_bytes`: between
    processes; `image_bytes`: images read; by the clock `disk_bytes`, written, and `network_bytes`, between two nodes. `start`,
    `mpi_start`: seconds until a rank works.
    """

    products: float
    outer: float
    passes: float
    elements: float
    exact_weights: float
    vectors: float
    basis: float
    probes: float
    dense: float
    pairs: float
    chase: float
    band: float
    panel: float
    tridiagonal: float
    hash_bytes: float
    carried_bytes: float
    image_bytes: float
    disk_bytes: float
    network_bytes: float
    start: float
    mpi_start: float


# of the way from a band to eigenvalues: LAPACK's speed, and the time that the tridiagonal matrix takes, on one core
LAPACK_CHASE, ROTATIONS_SHARE = 0.75, 0.2
# one core of a Xeon with AVX-512, by benchmarks/bench_tile_cost.py; disk and network are assumed
CORE = Speed(
    products=115e9, outer=150e9, passes=45e9, elements=140e6, exact_weights=90e6, vectors=58e9, basis=11e9, probes=4.5e9, dense=38e9,
    pairs=30e9, chase=10e9, band=85e9, panel=10e9, tridiagonal=18e9, hash_bytes=1.4e9, carried_bytes=0.5e9, image_bytes=0.2e9,
    disk_bytes=0.8e9, network_bytes=1e9, start=1.3, mpi_start=0.4,
)  # fmt: skip
# assumed, not measured: an H100 with float32 products in TF32, and 100 Gbit/s between nodes
GPU = Speed(
    products=150e12, outer=20e12, passes=20e12, elements=300e9, exact_weights=90e6, vectors=5e12, basis=11e9, probes=4.5e9,
    dense=0.5e12, pairs=0.5e12, chase=10e9, band=0.5e12, panel=10e9, tridiagonal=0.5e12, hash_bytes=1.4e9, carried_bytes=0.5e9,
    image_bytes=0.2e9, disk_bytes=2e9, network_bytes=10e9, start=10.0, mpi_start=0.4,
)  # fmt: skip


# -- the kernel ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GramWork:
    """Floating point operations of a kernel: of products of large matrices and of outer products, of passes through layers of one position
    and of several; and its elements on and above the diagonal.
    """

    products: float
    outer: float
    passes: float
    convolutions: float
    elements: float

    @property
    def flops(self) -> float:
        """Of all."""
        return self.products + self.outer + self.passes + self.convolutions

    def seconds(self, speed: Speed, dtype: str) -> float:
        """Of one core, or one GPU."""
        matrices = self.products / speed.products + (self.outer + self.passes) / speed.outer
        return ITEM_BYTES[dtype] / 4 * (matrices + self.convolutions / speed.passes + self.elements / speed.elements)


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
    wide, narrow = (sum(_multiplications(layer) for layer in layers if (layer.positions > 1) == several) for several in (True, False))
    made = sum(num_outputs * _multiplications(layer) for layer, (form, _) in zip(layers, forms) if form == "panel")
    through = 2 * samples * (len(panels) + 1) / 2 * (1 + num_outputs)
    return GramWork(
        products=2 * pairs * sum(count for form, count in forms if form == "panel"),
        outer=2 * pairs * sum(count for form, count in forms if form != "panel"),
        passes=through * narrow,
        convolutions=through * wide + 2 * samples * len(panels) * made,
        elements=panels.num_rows * (panels.num_rows + 1) / 2,
    )


def _multiplications(layer: Layer) -> int:
    """Of a forward pass of a sample."""
    return layer.positions * layer.fan_in * layer.num_outputs


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


def gram_parts(
    work: GramWork | None, panels: Panels, dtype: str, ranks: Ranks, speed: Speed, *, image_bytes: float = 0.0, weights: int = 0
) -> tuple[Part, ...]:
    """Tiles computed, hashed and written by the ranks, where every node reads the images; `work` None: not known, and left out.

    In single precision some rows of the Jacobian of a network with so many `weights` are computed again in double, by the first process.
    """
    written = tile_bytes(panels, dtype)
    products = () if work is None else (Part("products and passes", flops=work.flops, shared=work.seconds(speed, dtype)),)
    exact = EXACT_ROWS * (weights / speed.exact_weights + EXACT_SECONDS) if dtype == "float32" else 0.0
    rest = (
        Part("hashes", shared=written / speed.hash_bytes, written_bytes=written),
        Part("exact rows", alone=exact),
        _starts(ranks, speed, image_bytes),
    )
    return (*products, *rest)


def _starts(ranks: Ranks, speed: Speed, image_bytes: float = 0.0) -> Part:
    """Of the task's own process, and of the ranks; on one node these are copies of that process, or itself."""
    seconds = speed.start + image_bytes / speed.image_bytes
    return Part("starts", alone=seconds, each=seconds if ranks.nodes > 1 else 0.0)


def slowest_share(panels: Panels, num_ranks: int) -> float:
    """Of all tiles, those of the rank that has most."""
    total = num_tiles(panels)
    return 1 / num_ranks if total >= 16 * num_ranks else -(-total // num_ranks) / total


def seconds(parts: Iterable[Part], panels: Panels, num_ranks: int, speed: Speed) -> float:
    """Of clock, for one part after the other."""
    share = slowest_share(panels, num_ranks)
    return sum(part.seconds(share, speed) for part in parts)


# -- its eigenvalues ----------------------------------------------------------------------------------------------------------


def eigenvalues_parts(
    engine: str, question: Question, panels: Panels, dtype: str, resources: Resources, products: int | None = None
) -> tuple[Part, ...]:
    """Of an engine on these resources: every tile's SHA-256 checked, the eigenvalues and eigenvectors, and their certificate.

    "auto" counts as Lanczos. `products`: of the kernel with one vector that Lanczos takes, if that is known.
    """
    rows, speed, ranks = panels.num_rows, GPU if resources.gpus else CORE, Ranks.of(resources)
    check = Part("check of the tiles", alone=tile_bytes(panels, dtype) / speed.hash_bytes, cores=ranks.per_node)
    if engine == "whole":
        cores = resources.cpus if resources.nodes == 1 else 1
        return (check, _starts(Ranks(1, 1), speed), *_whole_parts(question, rows, dtype, cores, products))
    count, probes = question.num_eigenvalues or question.num_vectors, question.num_probes
    found: tuple[Part, ...] = ()
    if engine == "scalapack":
        count, probes, few = question.num_vectors, 0, question.takes_few(rows)
        found = _scalapack_parts(rows, 0 if few else count, dtype, ranks)
        if not few:  # vectors are there, and have to be certified
            taken = float(count + 2 * ASYMMETRY_PRODUCTS)
            return (check, _starts(ranks, speed), *found, *_product_parts(rows, products or taken, dtype, panels, ranks, speed))
    again = count + ASYMMETRY_PRODUCTS if engine == "scalapack" else 0  # certified with all eigenvalues once more
    taken = products or lanczos_vectors(count, probes) + again
    shared = _product_parts(rows, taken, dtype, panels, ranks, speed)
    return (check, _starts(ranks, speed), *found, *shared, *basis_parts(rows, count, probes, taken - again))


def answer_bytes(engine: str, question: Question, num_rows: int, dtype: str) -> int:
    """Of the files that the eigenvalues leave: ScaLAPACK's own vectors are kept beside those that are published."""
    count, item = question.num_eigenvalues or num_rows, 8
    if engine == "scalapack" and not question.takes_few(num_rows):
        item = 2 * ITEM_BYTES[dtype]
    return item * num_rows * question.num_vectors + BYTES_PER_EIGENVALUE * count


def checkpoint_bytes(num_rows: int, count: int) -> int:
    """Of the two checkpoints of block Lanczos that are kept at once."""
    return 2 * 8 * num_rows * basis_size(num_rows, count)


def _product_parts(rows: int, vectors: float, dtype: str, panels: Panels, ranks: Ranks, speed: Speed) -> tuple[Part, ...]:
    """Products of the tiles with vectors, which the ranks share, and their blocks on the network."""
    flops, slower = 2.0 * rows**2 * vectors, ITEM_BYTES[dtype] / 4
    sent = vectors * sent_bytes_of_a_product(rows, dtype, ranks)
    busiest = vectors * rows * (ITEM_BYTES[dtype] * (ranks.nodes - 1).bit_length() + 16) if ranks.nodes > 1 else 0.0
    carried = vectors * sent_bytes_of_a_product(rows, dtype, Ranks(ranks.total, 1))  # those of one node talk by the network too
    seconds = slower * flops / speed.vectors + carried / speed.carried_bytes
    return (Part("products with vectors", flops=flops, shared=seconds, sent_bytes=sent, link_bytes=busiest),)


def sent_bytes_of_a_product(num_rows: int, dtype: str, ranks: Ranks) -> float:
    """Bytes between nodes for one vector: broadcast along a tree, and sums of a share in float64 around a ring, then to the first rank."""
    ring = ranks.nodes * (ranks.total - 1) / ranks.total if ranks.nodes > 1 else 0.0
    gathered = (ranks.total - ranks.per_node) / ranks.total
    return num_rows * ((ranks.nodes - 1) * ITEM_BYTES[dtype] + 8 * (ring + gathered))


def lanczos_vectors(count: int, num_probes: int) -> float:
    """Products of the kernel with one vector for the `count` largest eigenpairs, the quadrature of the entropy, and the certificate."""
    return (PRODUCTS_PER_EIGENPAIR + 1) * count + num_probes * PROBE_STEPS + ASYMMETRY_PRODUCTS


def basis_size(num_rows: int, count: int) -> int:
    """Vectors of the basis of block Lanczos."""
    return min(num_rows, max(BASIS_VECTORS_PER_EIGENPAIR * count, count + 8 * BLOCK))


def lanczos_flops(num_rows: int, count: int, num_probes: int) -> tuple[float, float]:
    """Operations of the products, which all ranks share, and of the vectors beside them, which the first rank alone orthogonalises."""
    vectors = lanczos_vectors(count, num_probes)
    return 2.0 * num_rows**2 * vectors, sum(part.flops for part in basis_parts(num_rows, count, num_probes, vectors))


def basis_parts(rows: int, count: int, num_probes: int, products: float) -> tuple[Part, ...]:
    """What the first rank does alone: blocks against the basis, and probes each against its own, of so many products in all."""
    of_probes, room = num_probes * PROBE_STEPS, basis_size(rows, count)
    found = max(float(count), products - of_probes - count - ASYMMETRY_PRODUCTS)
    first, later = min(found, room), max(0.0, found - room)
    basis = 12.0 * rows * (first * first / 2 + later * BASIS_FILL * room)
    probes = 8.0 * rows * of_probes * (PROBE_STEPS / 2 + count / 2)
    return Part("basis", flops=basis, alone=basis / CORE.basis), Part("probes", flops=probes, alone=probes / CORE.probes)


def _whole_parts(question: Question, rows: int, dtype: str, cores: int, products: int | None) -> tuple[Part, ...]:
    """LAPACK in double precision, on the cores of one node; few vectors by Lanczos."""
    wanted = question.num_eigenvalues or question.num_vectors
    few = replace(question, num_vectors=wanted).takes_few(rows)
    reduced, vectors = 4 / 3 * rows**3, 0.0 if few else 4.0 * rows**3
    found = [Part("dense", flops=reduced + vectors, alone=(reduced / CORE.dense + vectors / CORE.pairs) / cores)]
    if few and question.num_eigenvalues is not None:
        found = []
    if few:
        probes = question.num_probes if question.num_eigenvalues is not None else 0
        taken = products or lanczos_vectors(wanted, probes)
        flops = 2.0 * rows**2 * taken
        found.append(Part("products with vectors", flops=flops, alone=ITEM_BYTES[dtype] / 4 * flops / CORE.vectors / cores))
        found += basis_parts(rows, wanted, probes, taken)
    return tuple(found)


def _scalapack_parts(rows: int, vectors: int, dtype: str, ranks: Ranks) -> tuple[Part, ...]:
    """By MPI ranks of a core each: to a band, with which the first rank goes on; with vectors to tridiagonal at once."""
    slower, total = ITEM_BYTES[dtype] / 4, ranks.total
    reduced, start = 4 / 3 * rows**3, Part("MPI ranks", each=CORE.mpi_start)
    sent = scalapack_sent_bytes(rows, vectors, dtype, ranks)
    link = sent / ranks.nodes
    if not vectors:
        panels, chased = 4.0 * rows**2 * scalapack.BLOCK, 6.0 * rows**2 * scalapack.BLOCK
        carried = scalapack_sent_bytes(rows, vectors, dtype, Ranks(total, 1)) / CORE.carried_bytes
        band = Part(
            "band",
            flops=reduced + total * panels,
            shared=slower * reduced / CORE.band + carried,
            each=slower * panels / CORE.panel,
            sent_bytes=sent,
            link_bytes=link,
        )
        if rows < scalapack_band.FEWEST_CHASED:
            return (start, band, Part("chase", flops=chased, alone=chased / (LAPACK_CHASE * CORE.chase)))
        cores, seconds = min(ranks.per_node, scalapack_band.CHASING_THREADS), chased / CORE.chase
        rotations = Part("eigenvalues of the tridiagonal matrix", alone=ROTATIONS_SHARE * seconds)
        return (start, band, Part("chase", flops=chased, alone=(1 - ROTATIONS_SHARE) * seconds, cores=cores), rotations)
    back = 4.0 * rows**3 if vectors * total > rows else 2.0 * rows**2 * vectors
    seconds = slower * (reduced / CORE.tridiagonal + back / (2 * CORE.pairs))
    return (start, Part("dense", flops=reduced + back, shared=seconds, sent_bytes=sent, link_bytes=link))


def scalapack_sent_bytes(rows: int, vectors: int, dtype: str, ranks: Ranks) -> float:
    """Bytes between nodes. For a band a panel and its product with the kernel, of each block of columns, are summed for all ranks.

    Open MPI halves and doubles what it sums (R. Rabenseifner, ICCS 2004); nodes beyond a power of two hand theirs over first. For
    eigenvectors as measured on grids of 1 x 2 and 2 x 2 ranks of a node each; several of one node send less than this.
    """
    if ranks.nodes == 1:
        return 0.0
    size = ITEM_BYTES[dtype] * float(rows) ** 2
    if vectors:
        height, width = scalapack_library.shape_of(ranks.total)
        return size * (2.9 * (width - 1) + 2.5 * (height - 1))
    halving = 1 << ranks.nodes.bit_length() - 1
    return size * (2 * (halving - 1) + 2.5 * (ranks.nodes - halving))
