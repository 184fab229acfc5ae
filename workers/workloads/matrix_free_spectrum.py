"""The largest eigenvalues of a kernel that is never formed, with their certificate, and the entropy of the whole."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.errors import ConfigError
from workers.sharded import matrix_free_cost
from workers.sharded.memory import ranks_of, up
from workers.snapshots import check_probe, check_snapshot, network_and_probe, snapshot_step
from workers.workload import CostEstimate, Resources, Row, Rows, Workload, setting
from workers.workloads.tiled_gram import NUM_CLASSES, publish_probe
from workers.workloads.train import Train

if TYPE_CHECKING:
    import numpy as np

    from workers.context import Context
    from workers.sharded.engines import Question

    Array = np.ndarray[Any, Any]

# R rows of the kernel; K eigenvalues; V eigenvectors, of the largest; N images; C outputs

# that are looked at before any rank starts: whether their outputs depend on each other
FIRST_IMAGES = 3


@dataclass(frozen=True, kw_only=True)
class MatrixFreeSpectrum(Workload):
    """The largest eigenvalues (ascending) of a snapshot's kernel by products J (J^T v), with weights gamma_k^2 of the residual (else NaN).

    For kernels whose tiles fit no disk: a product with one vector costs a few passes through the network. As many ranks as the task has
    cores, or GPUs, on each of its nodes share the images. Files: `eigenvectors.npy` (R, V), `answer.npz`, and `probe.npz` as of the
    workload `gram`. Rows `entropy_estimate`, `effective_rank_estimate`, `trace_estimate` (tr / R) and their standard errors come from
    deflated stochastic Lanczos quadrature; in single precision `kernel_error` is the norm of the products' error (`products-error.npy`).
    """

    version: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-5

    train: Train = Train()
    snapshot: str = setting("final", help="init, final, or the number of a step that train.num_snapshots keeps")
    probe_size: int = setting(32, low=1, help="images N of the probe set")
    outputs: str = setting("full", choices=("full", "traced"), help="(N C, N C), row n C + c, or (N, N), the mean over outputs (D1)")
    dtype: str = setting("float32", choices=("float32", "float64"))
    num_eigenvalues: int = setting(20, low=1, help="the largest ones")
    num_eigenvectors: int = setting(20, low=1, help="of the largest eigenvalues, as many as there are: they have a weight, and are kept")
    num_probes: int = setting(32, low=4, help="random vectors behind the entropy")
    checkpoint_every_seconds: float = setting(60.0, low=0, identity=False, unit="s", help="0: after every block of vectors")

    def check(self) -> None:
        """A snapshot that the training keeps, not more images than the test set has, and not more eigenvalues than rows."""
        check_snapshot(self.train, self.snapshot)
        check_probe(self.train, self.probe_size)
        if self.num_eigenvalues > self.num_rows():
            raise ConfigError(f"num_eigenvalues must be at most {self.num_rows()}, the rows of the kernel, got {self.num_eigenvalues}")

    def step(self) -> int:
        """The step of the snapshot."""
        return snapshot_step(self.train, self.snapshot)

    def num_rows(self) -> int:
        """Rows of the kernel, if the data have ten classes."""
        return self.probe_size * self._rows_per_image()

    def question(self) -> "Question":
        """What is asked of the kernel, whose error is not known yet."""
        from workers.sharded.engines import Question

        vectors = min(self.num_eigenvectors, self.num_eigenvalues)
        return Question(num_eigenvalues=self.num_eigenvalues, num_vectors=vectors, num_probes=self.num_probes)

    # -- what it takes --------------------------------------------------------------------------------------------------------

    def resources(self) -> Resources:
        """One core: each more, of a node, is a rank more."""
        return self.adapted(Resources())

    def adapted(self, resources: Resources) -> Resources:
        """Memory for a rank on each core or GPU, and three times the time that is expected."""
        demand = self._demand()
        minutes = max(60.0, round(3 * (demand.seconds(resources) or 0.0) / 60))
        return dataclasses.replace(resources, memory_gib=up(demand.usual_gib(resources)), walltime_minutes=minutes)

    def estimate(self, resources: Resources) -> CostEstimate:
        """What the products take on these resources, and whether they fit."""
        demand = self._demand()
        return CostEstimate(
            what=f"the {self.num_eigenvalues:,} largest of {self.num_rows():,} eigenvalues without the kernel",
            memory_gib=demand.least_gib(resources),
            disk_bytes=demand.disk_bytes(self.question().num_vectors),
            flops=demand.flops(),
            seconds=demand.seconds(resources),
            obstacle=demand.obstacle(resources),
        )

    def _rows_per_image(self) -> int:
        return NUM_CLASSES if self.outputs == "full" else 1

    def _demand(self) -> matrix_free_cost.Demand:
        shapes = self.train.data.shapes()
        return matrix_free_cost.Demand(
            num_samples=self.probe_size,
            rows_per_sample=self._rows_per_image(),
            num_outputs=NUM_CLASSES,
            count=self.num_eigenvalues,
            num_probes=self.num_probes,
            dtype=self.dtype,
            layers=self.train.model.layers(shapes[1][1:], NUM_CLASSES) if shapes else None,
            data_bytes=matrix_free_cost.bytes_of(self.train.data.held_bytes(), shapes or (), self.probe_size),
        )

    # -- what it does ---------------------------------------------------------------------------------------------------------

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """The table `spectra`, and rows that certify it."""
        from workers.sharded import matrix_free
        from workers.sharded.solving import answered
        from workers.workloads.tiled_spectrum import rows_of

        resources = Resources(**context.task.resources) if context.task.resources else self.resources()
        demand = self._demand()
        if obstacle := demand.obstacle(resources):
            raise ConfigError(obstacle)
        order: dict[str, Any] = {
            "question": dataclasses.asdict(self.question()),
            "memory_gib": demand.engine_gib(resources),
            "every_seconds": self.checkpoint_every_seconds,
        }
        residuals_NC, probe_loss = self._look(context, order["memory_gib"])
        context.progress(0, 0, "eigenvalues by block Lanczos, without the kernel")
        rank_gib, first_gib = demand.rank_gib(resources)
        ranks = ranks_of(resources)
        found = answered(context, matrix_free.answer, order, ranks_per_node=ranks, rank_gib=rank_gib, first_gib=first_gib)
        if self.dtype == "float32":
            context.adopt(matrix_free.ERROR)
        yield from rows_of(context, self.step(), found, residuals_NC, probe_loss=probe_loss)

    def _look(self, context: "Context", memory_gib: float) -> "tuple[Array, float]":
        """Residuals (N, C) and the mean loss on the probe set, which is published; a network or memory that will not do is refused."""
        from workers import entk

        module, inputs_N, labels_N, index_N = network_and_probe(context, self.train, self.step(), self.probe_size, self.dtype)
        entk.KernelOperator(module, inputs_N[:FIRST_IMAGES], self.outputs, memory_gib=memory_gib)
        return publish_probe(context, self.train.loss, module, inputs_N, labels_N, index_N)
