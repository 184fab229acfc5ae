"""Memory of a node that tiles and their eigenvalues need, and what would do where it is too little."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from workers.errors import ConfigError
from workers.sharded import cost, scalapack
from workers.sharded.engines import COPIES_WHOLE, MOST_ROWS_WHOLE, Choice, Machine, Question, choose
from workers.sharded.panels import Panels
from workers.workload import Resources

GIB = 2**30
# of a process: its interpreter with torch, and what that takes beside its tensors
BASE_GIB = 0.3
# what differences of such numbers may be off by
ROUNDING_GIB = 1e-6
# at most for rows of the Jacobian that a kernel is compared with
EXACT_GIB = 2.25
# numbers of nodes that are tried: powers of two
MOST_NODES = 4096
# vectors of the quadrature behind the entropy: the basis of a block of probes, and blocks beside it
QUADRATURE_VECTORS = cost.BLOCK * (cost.PROBE_STEPS + 20)
# blocks of vectors that are there beside a basis at once, and projected matrices beside one of them
BLOCKS, PROJECTED_COPIES = 6, 6
# of eigenvectors while they are certified; and of the kernel in double precision, where that is one process with all eigenvectors
CERTIFIED_COPIES = 4
COPIES_WITH_VECTORS = 6


def ranks_of(resources: Resources) -> int:
    """Of a node: one for each GPU, or for each core."""
    return resources.gpus or resources.cpus


def ranks_obstacle(own_gib: float, rank_gib: float, resources: Resources, beside: str, others: Sequence[str] = ()) -> str:
    """Why a node's memory is too small for ranks that need `rank_gib` each beside the task's `own_gib`, and what would do, or `others`."""
    ranks = ranks_of(resources)
    needed = own_gib + ranks * rank_gib
    if needed <= resources.memory_gib:
        return ""
    remedies = [f"resources.memory_gib={up(needed):g}"]
    fewer = int((resources.memory_gib - own_gib) / rank_gib)
    if fewer > 0:
        kind, nodes = "gpus" if resources.gpus else "cpus", -(-resources.nodes * ranks // fewer)
        remedies.append(f"resources.{kind}={fewer}" + (f" (on resources.nodes={nodes} as many ranks as now)" if nodes > 1 else ""))
    what = "ranks" if ranks > 1 else "rank"
    return (
        f"resources.memory_gib must be at least {up(needed):.2f} for {ranks} {what} of a node {beside}, got {resources.memory_gib:g}; "
        f"any of these would do: {', '.join([*remedies, *others])}"
    )


# -- tiles --------------------------------------------------------------------------------------------------------------------


def tiles_obstacle(own_gib: float, rank_gib: Callable[[int], float], panel_rows: int, least_rows: int, resources: Resources) -> str:
    """As `ranks_obstacle`, of ranks that need `rank_gib(panel_rows)` each; smaller tiles may do, too."""
    smaller = panel_rows // 2
    while smaller >= max(least_rows, 256) and own_gib + ranks_of(resources) * rank_gib(smaller) > resources.memory_gib:
        smaller //= 2
    others = [f"panel_rows={smaller}"] if smaller >= max(least_rows, 256) else []
    return ranks_obstacle(own_gib, rank_gib(panel_rows), resources, f"with tiles of {panel_rows:,} rows", others)


def up(gib: float) -> float:
    """Two digits after the point, none too few."""
    return math.ceil(round(100 * gib, 6)) / 100


# -- eigenvalues --------------------------------------------------------------------------------------------------------------


def machine_of(resources: Resources, no_scalapack: str = "") -> Machine:
    """What a task on these resources has: `no_scalapack` as `scalapack.available` says it on the nodes; before that it is assumed there."""
    ranks, free_gib = ranks_of(resources), resources.memory_gib - BASE_GIB
    return Machine(resources.nodes * ranks, free_gib / ranks, free_gib - BASE_GIB, no_scalapack)


def engine_gib(engine: str, question: Question, panels: Panels, dtype: str, resources: Resources) -> float:
    """Memory of the node that needs most, the first one."""
    ranks, rows = ranks_of(resources), panels.num_rows
    if engine == "whole":
        few = question.num_eigenvalues is None and question.takes_few(rows)
        copies = COPIES_WHOLE if few else max(COPIES_WHOLE, COPIES_WITH_VECTORS)
        return 2 * BASE_GIB + copies * 8 * rows**2 / GIB + ROUNDING_GIB
    own = BASE_GIB if ranks * resources.nodes > 1 else 0.0  # one rank is the task's own process
    asking = own + first_gib(engine, question, panels, dtype, resources) + (ranks - 1) * other_gib(panels, dtype, resources)
    if engine == "lanczos":
        return asking
    vectors = 0 if question.takes_few(rows) else question.num_vectors
    solving = ranks * scalapack.memory_bytes_needed(rows, ranks * resources.nodes, dtype, vectors) / GIB
    return max(BASE_GIB + solving, asking)


def first_gib(engine: str, question: Question, panels: Panels, dtype: str, resources: Resources) -> float:
    """Of the rank that asks: vectors of 8 bytes an element beside its tiles."""
    rows, count = panels.num_rows, question.num_eigenvalues or question.num_vectors
    if engine == "scalapack" and not question.takes_few(rows):
        vectors = CERTIFIED_COPIES * question.num_vectors
    else:
        vectors = lanczos_vectors_held(rows, count, question.num_probes if engine != "scalapack" else 0)
    return other_gib(panels, dtype, resources) + 8 * rows * vectors / GIB


def lanczos_vectors_held(num_rows: int, count: int, num_probes: int) -> int:
    """Vectors of all rows in double precision that the rank which asks holds at most; checked against runs, up to a seventh too many.

    In Lanczos the basis, projected matrices, the eigenvectors and what certifies them; in the quadrature the basis of a block of probes.
    """
    basis = cost.basis_size(num_rows, count)
    lanczos = basis + BLOCKS * cost.BLOCK + max(5 * count, PROJECTED_COPIES * basis**2 // num_rows)
    return max(lanczos, 2 * count + num_probes + QUADRATURE_VECTORS) if num_probes else lanczos


def other_gib(panels: Panels, dtype: str, resources: Resources) -> float:
    """Of a rank that holds tiles and multiplies."""
    item = cost.ITEM_BYTES[dtype]
    largest = min(panels.panel_rows, panels.num_rows) ** 2 * item
    tiles = cost.most_tiles(panels, ranks_of(resources) * resources.nodes)
    held = min(tiles * largest, cost.tile_bytes(panels, dtype))
    # a tile is copied from its mapped file; blocks come, are multiplied, summed and sent
    return BASE_GIB + (held + largest + BLOCKS * 8 * cost.BLOCK * panels.num_rows) / GIB


def fitting_engine(question: Question, panels: Panels, dtype: str, resources: Resources, engine: str) -> Choice:
    """As `choose`, and ConfigError where Lanczos, which it has chosen, has too little memory."""
    choice = choose(question, panels.num_rows, dtype, machine_of(resources), engine)
    needed = engine_gib(choice.engine, question, panels, dtype, resources)
    if needed > resources.memory_gib:
        raise ConfigError(
            f"{choice.engine} needs {up(needed):.2f} GiB on the first node for {choice.reason}, got resources.memory_gib="
            f"{resources.memory_gib:g}"
        )
    return choice


def eigenvalues_obstacle(question: Question, panels: Panels, dtype: str, resources: Resources, engine: str) -> str:
    """Why no engine can answer on these resources, and what would do: more nodes of this memory, or else more memory."""
    try:
        fitting_engine(question, panels, dtype, resources, engine)
    except ConfigError as error:
        return f"{error}; {_remedy(question, panels, dtype, resources, engine)}"
    return ""


def _remedy(question: Question, panels: Panels, dtype: str, resources: Resources, engine: str) -> str:
    def fits(given: Resources) -> bool:
        try:
            fitting_engine(question, panels, dtype, given, engine)
        except ConfigError:
            return False
        return True

    memory = f"resources.memory_gib={least_gib(question, panels, dtype, resources, engine):g}"
    nodes = 2 * resources.nodes
    while nodes <= MOST_NODES and not fits(replace(resources, nodes=nodes)):
        nodes *= 2
    if nodes <= MOST_NODES:
        return f"resources.nodes={nodes} of this memory would do, or {memory}"
    return f"no number of nodes of this memory would do, {memory} would"


def least_gib(question: Question, panels: Panels, dtype: str, resources: Resources, engine: str) -> float:
    """Memory of a node with which these nodes, cores and GPUs can answer.

    All eigenvalues of a kernel of up to `MOST_ROWS_WHOLE` rows are found by one process, of more rows where that needs least.
    """
    rows = panels.num_rows
    plenty = Machine(resources.nodes * ranks_of(resources), math.inf, math.inf)
    engines = [choose(question, rows, dtype, plenty, engine).engine]
    if engine == "auto" and engines == ["whole"] and rows > MOST_ROWS_WHOLE:
        engines = ["whole", "scalapack"]
    return up(min(engine_gib(one, question, panels, dtype, resources) for one in engines))
