"""Eigenvalues of a kernel in tiles with their certificate, by the engine that fits the question and the machine."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workers import taskdir
from workers.errors import ConfigError
from workers.sharded.memory import machine_of, ranks_of
from workers.workload import CostEstimate, Resources, Row, Rows, Workload, setting
from workers.workloads.tiled_gram import PROBE, TiledGram

if TYPE_CHECKING:
    import numpy as np

    from workers.context import Context, Input
    from workers.sharded.engines import Question

    Array = np.ndarray[Any, Any]

# R rows; K eigenvalues; V eigenvectors, of the largest; N units; C outputs


@dataclass(frozen=True, kw_only=True)
class TiledSpectrum(Workload):
    """The largest eigenvalues (ascending) of a tiled kernel, or all, with weights gamma_k^2 of the residual (else NaN), and the entropy.

    Files: `eigenvectors.npy` (R, V), `answer.npz`. Where not all eigenvalues are asked for, rows `entropy_estimate`,
    `effective_rank_estimate` and their `_standard_error` come from deflated stochastic Lanczos quadrature. A Lanczos run that is killed
    goes on from its newest checkpoint.
    """

    version: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-5

    gram: TiledGram = TiledGram()
    num_eigenvalues: int | None = setting(100, low=1, help="the largest ones; null: all")
    num_eigenvectors: int = setting(100, low=1, help="of the largest eigenvalues, as many as there are: they have a weight, and are kept")
    num_probes: int = setting(32, low=4, help="random vectors behind the entropy, where not all eigenvalues are asked for")
    engine: str = setting(
        "auto", choices=("auto", "whole", "scalapack", "lanczos"), identity=False, help="auto prints what it chose, and why"
    )
    checkpoint_every_seconds: float = setting(60.0, low=0, identity=False, unit="s", help="of Lanczos; 0: after every block")

    def check(self) -> None:
        """Not more eigenvalues than rows."""
        if self.num_eigenvalues is not None and self.num_eigenvalues > self.gram.num_rows():
            raise ConfigError(
                f"num_eigenvalues must be at most {self.gram.num_rows()}, the rows of the kernel, got {self.num_eigenvalues}; null: all"
            )

    def resources(self) -> Resources:
        """Those of `adapted` for one core."""
        return self.adapted(Resources())

    def adapted(self, resources: Resources) -> Resources:
        """The least memory with which these nodes, cores and GPUs find the eigenvalues, and three times the time that is expected.

        All eigenvalues of up to 16,384 rows are found by one process; of more rows by ScaLAPACK where that needs less.
        """
        from workers.sharded import memory

        least = memory.least_gib(self.question(), self.gram.panels(), self.gram.dtype, resources, self.engine)
        given = dataclasses.replace(resources, memory_gib=least)
        return dataclasses.replace(given, walltime_minutes=max(60.0, round(3 * (self.estimate(given).seconds or 0.0) / 60)))

    def estimate(self, resources: Resources) -> CostEstimate:
        """What the eigenvalues take on these resources, by which engine, and whether they fit."""
        from workers.sharded import cost, memory

        question, panels, dtype = self.question(), self.gram.panels(), self.gram.dtype
        obstacle = memory.eigenvalues_obstacle(question, panels, dtype, resources, self.engine)
        engine = self.engine if obstacle else memory.fitting_engine(question, panels, dtype, resources, self.engine).engine
        parts, speed = cost.eigenvalues_parts(engine, question, panels, dtype, resources), cost.GPU if resources.gpus else cost.CORE
        asked = "all" if self.num_eigenvalues is None else f"the {self.num_eigenvalues:,} largest"
        seconds = cost.seconds(parts, panels, cost.Ranks.of(resources).total, speed)
        disk_bytes = cost.answer_bytes(engine, question, panels.num_rows, dtype)
        if engine == "lanczos" and seconds > self.checkpoint_every_seconds:
            disk_bytes += cost.checkpoint_bytes(panels.num_rows, self.num_eigenvalues or question.num_vectors)
        return CostEstimate(
            what=f"{asked} of {panels.num_rows:,} eigenvalues: {engine}",
            memory_gib=memory.engine_gib(engine, question, panels, dtype, resources),
            disk_bytes=disk_bytes,
            flops=sum(part.flops for part in parts),
            seconds=seconds,
            obstacle=obstacle,
        )

    def question(self, num_rows: int | None = None) -> "Question":
        """What is asked of the kernel, of `num_rows` if it is there, whose error is not known yet."""
        from workers.sharded.engines import Question

        vectors = min(self.num_eigenvectors, self.num_eigenvalues or num_rows or self.gram.num_rows())
        return Question(num_eigenvalues=self.num_eigenvalues, num_vectors=vectors, num_probes=self.num_probes)

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """The table `spectra`, and rows that certify it."""
        import numpy as np

        from workers.sharded import scalapack
        from workers.sharded.engines import choose
        from workers.sharded.solving import solve
        from workers.sharded.tiles import INDEX, TileSet

        gram = context.input("gram")
        tiles = TileSet.load(gram.file(INDEX))
        with np.load(gram.file(PROBE)) as arrays:
            residuals_NC = arrays["residuals"]
        resources = Resources(**context.task.resources) if context.task.resources else self.resources()
        ranks = ranks_of(resources)
        told = dict(zip(*(gram.rows()[column] for column in ("name", "value"))))
        error = (told.get("kernel_error", 0.0), told.get("kernel_error_standard_error", 0.0))
        question = dataclasses.replace(self.question(tiles.num_rows), error=error)
        choice = choose(question, tiles.num_rows, tiles.dtype, machine_of(resources, scalapack.available()), self.engine)
        context.log(f"engine {choice.engine}: {choice.reason}")
        moved = self._mended(context, gram, tiles, ranks)
        often = self.checkpoint_every_seconds
        found = solve(context, gram.file(INDEX), moved, question, choice, ranks_per_node=ranks, every_seconds=often)
        yield from rows_of(context, self.gram.step(), found, residuals_NC, num_tiles_mended=len(moved))

    def _mended(self, context: "Context", gram: "Input", tiles: Any, num_cores: int) -> dict[tuple[int, int], Path]:
        """Damaged tiles, computed again as parts of this task; so many at once are looked at."""
        from concurrent.futures import ThreadPoolExecutor

        from workers.sharded.making import publish
        from workers.sharded.tiles import tile_name

        damaged, pairs = [], list(tiles.panels.pairs())
        with ThreadPoolExecutor(num_cores) as pool:
            for number, is_intact in enumerate(pool.map(tiles.is_intact, pairs)):
                context.progress(number, len(pairs), f"{number} of {len(pairs)} tiles checked")
                if not is_intact:
                    damaged.append(pairs[number])
        if not damaged:
            return {}
        context.log(f"{len(damaged)} tiles are not what was published: {damaged[:5]}; they are computed again")
        commit = gram.commit
        task = taskdir.Task(
            key=commit.key, workload=commit.workload, version=commit.version, settings=commit.settings, inputs=commit.inputs
        )
        own = dataclasses.replace(context, task=task)
        with self.gram.kernel_tiles(own, memory_gib=1.0) as engine:
            for pair in damaged:
                publish(context, engine, pair)
        return {pair: context.folder / tile_name(pair) for pair in damaged}


def rows_of(context: "Context", step: int, found: "dict[str, Array]", residuals_NC: "Array", **numbers: float) -> Iterator[Row | Rows]:
    """The table `spectra`, with the weights of those eigenvalues whose vectors are published, and what was found and `numbers` as rows."""
    import numpy as np

    from workers.sharded.findings import VECTORS

    vectors_RV, values_K = np.load(context.folder / VECTORS, mmap_mode="r"), found["eigenvalues"]
    num_rows, num_vectors = vectors_RV.shape
    weights_K = np.full(len(values_K), np.nan)
    weights_K[-num_vectors:] = _weights(vectors_RV, residuals_NC)
    yield _spectra(step, num_rows, values_K, weights_K)
    told = {name: float(value) for name, value in found.items() if name != "eigenvalues"}
    told |= {"num_rows": num_rows, "num_units": residuals_NC.shape[0], "num_outputs": residuals_NC.shape[1], **numbers}
    for name, value in told.items():
        yield Row(step=step, name=name, value=value)


def _spectra(step: int, num_rows: int, values_K: "Array", weights_K: "Array") -> Rows:
    """For the largest eigenvalues (K,), ascending, with their weights (K,)."""
    size = len(values_K)
    columns = {
        "step": [step] * size,
        "index": range(num_rows - size, num_rows),
        "eigenvalue": values_K.tolist(),
        "weight": weights_K.tolist(),
    }
    return Rows(table="spectra", columns=columns)


def _weights(vectors_RV: "Array", residuals_NC: "Array") -> "Array":
    """gamma_k^2 (V,): of the full kernel's rows n C + c, or summed over outputs for the traced one (D1)."""
    starts_RS = residuals_NC.reshape(len(vectors_RV), -1).astype(float)
    found: Array = ((vectors_RV.T @ starts_RS) ** 2).sum(1) / (starts_RS**2).sum()
    return found
