"""What the spectrum of a kernel that is never formed costs before it is computed: operations, seconds, and the memory of a node."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.sharded import cost
from workers.sharded.memory import BASE_GIB, GIB, lanczos_vectors_held, ranks_obstacle, ranks_of
from workers.workload import Layer, Resources

# N samples of the probe set; R rows of the kernel; K eigenvalues; V eigenvectors; C outputs; P parameters

# of a rank, for activations and gradients: as a rule, and at least. On a CPU more is slower, for convolutions by half: caches are small
ENGINE_GIB, LEAST_ENGINE_GIB = 0.1, 0.05
# through the network for each vector, as of a forward pass: two in a backward pass, two in a forward pass with tangents
PASSES_OF_A_VECTOR = 4
# operations of a core in them per second, in single precision: as benchmarks/bench_matrix_free.py finds them
DENSE, CONVOLVED = 120e9, 23e9
# double precision is there too, for the error of single
NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The largest `count` eigenvalues of `num_samples` samples' kernel with `rows_per_sample` rows each, and the entropy from `num_probes`.

    `layers`: None where model or data do not say what they are made of. `data_bytes`: of the images that each process reads, and the
    probe set that it takes of them.
    """

    num_samples: int
    rows_per_sample: int
    num_outputs: int
    count: int
    num_probes: int
    dtype: str
    layers: Sequence[Layer] | None
    data_bytes: int

    @property
    def num_rows(self) -> int:
        """Of the kernel."""
        return self.num_samples * self.rows_per_sample

    # -- time -----------------------------------------------------------------------------------------------------------------

    def flops(self) -> float | None:
        """Operations; None: nobody knows."""
        products = self._products()
        return None if products is None else sum(products) + sum(part.flops for part in self._alone())

    def seconds(self, resources: Resources) -> float | None:
        """Of clock, roughly: the ranks share the products, and the first one does the rest alone."""
        products = self._products()
        if products is None:
            return None
        dense, convolved = (cost.GPU.passes, cost.GPU.passes) if resources.gpus else (DENSE, CONVOLVED)
        start = (cost.GPU if resources.gpus else cost.CORE).start
        ranks = min(self.num_samples, resources.nodes * ranks_of(resources))
        shared = cost.ITEM_BYTES[self.dtype] / 4 * (products[0] / dense + products[1] / convolved) / ranks
        return 2 * start + shared + sum(part.alone for part in self._alone())

    def _products(self) -> tuple[float, float] | None:
        """Operations of all products with vectors, in dense layers and in convolutions; for a traced kernel each output is a pass."""
        if self.layers is None:
            return None
        vectors = cost.lanczos_vectors(self.count, self.num_probes) * (self.num_outputs // self.rows_per_sample)
        each = [(layer.positions > 1, 2.0 * layer.positions * layer.fan_in * layer.num_outputs) for layer in self.layers]
        dense, convolved = (sum(flops for where, flops in each if where is many) for many in (False, True))
        passes = PASSES_OF_A_VECTOR * vectors * self.num_samples
        return passes * dense, passes * convolved

    def _alone(self) -> tuple[cost.Part, ...]:
        return cost.basis_parts(self.num_rows, self.count, self.num_probes, cost.lanczos_vectors(self.count, self.num_probes))

    # -- memory and disk ------------------------------------------------------------------------------------------------------

    def least_gib(self, resources: Resources) -> float:
        """Memory of the first node: the task, its ranks with one vector at once, and the basis that the first of them keeps."""
        return self._without_engines() + ranks_of(resources) * (self._process_gib() + self._least_engine_gib())

    def usual_gib(self, resources: Resources) -> float:
        """As `least_gib`, with room for more vectors at once, which is faster."""
        engine = max(ENGINE_GIB, 4 * self._vector_gib())
        return self._without_engines() + ranks_of(resources) * (self._process_gib() + engine)

    def engine_gib(self, resources: Resources) -> float:
        """What a rank uses for activations and gradients: what there is, on CPUs up to what a block of vectors takes."""
        if resources.gpus or self.layers is None:
            return self._share_gib(resources)
        return min(self._share_gib(resources), max(ENGINE_GIB, cost.BLOCK * self._vector_gib()))

    def rank_gib(self, resources: Resources) -> tuple[float, float]:
        """All that a rank may have, and the first one, which keeps the basis."""
        own = self._process_gib() + self._share_gib(resources)
        return own, own + self._vectors_gib()

    def obstacle(self, resources: Resources) -> str:
        """Why the memory is too small, and what would do; "": it is not."""
        rank_gib = self._process_gib() + self._least_engine_gib()
        return ranks_obstacle(self._without_engines(), rank_gib, resources, f"and a basis of {self.num_rows:,} rows")

    def disk_bytes(self, num_vectors: int) -> int:
        """Of the eigenvectors, and of the two checkpoints that are kept."""
        return 8 * self.num_rows * num_vectors + cost.checkpoint_bytes(self.num_rows, self.count)

    def _without_engines(self) -> float:
        return self._process_gib() + self._vectors_gib()

    def _vectors_gib(self) -> float:
        return 8 * self.num_rows * lanczos_vectors_held(self.num_rows, self.count, self.num_probes) / GIB

    def _process_gib(self) -> float:
        return BASE_GIB + self.data_bytes / GIB

    def _share_gib(self, resources: Resources) -> float:
        """What there is for activations and gradients of a rank."""
        return (resources.memory_gib - self._without_engines()) / ranks_of(resources) - self._process_gib()

    def _least_engine_gib(self) -> float:
        return max(LEAST_ENGINE_GIB, self._vector_gib())

    def _vector_gib(self) -> float:
        """Two gradients, and as much again for activations."""
        return 4 * NUMBER_BYTES * num_parameters(self.layers or ()) / GIB


def num_parameters(layers: Sequence[Layer]) -> int:
    """Weights and biases."""
    return sum((layer.fan_in + layer.bias) * layer.num_outputs for layer in layers)


def bytes_of(held_bytes: int, shapes: Sequence[Sequence[int]], num_samples: int) -> int:
    """Of the images that are held, and of `num_samples` of them in both precisions."""
    return held_bytes + (12 * num_samples * math.prod(shapes[-1][1:]) if shapes else 0)
