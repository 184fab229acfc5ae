"""A kernel that fits no single process, in tiles that several compute and publish one by one."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.errors import ConfigError
from workers.extras import ray_missing
from workers.sharded import cost
from workers.sharded.memory import BASE_GIB, EXACT_GIB, GIB, ranks_of, tiles_obstacle, up
from workers.sharded.panels import Panels
from workers.snapshots import check_probe, check_snapshot, network_and_probe, snapshot_step
from workers.workload import CostEstimate, Layer, Resources, Row, Workload, setting
from workers.workloads.train import Train

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from workers.context import Context
    from workers.entk import Estimate, KernelTiles
    from workers.sharded.tiles import TileSet

    Array = np.ndarray[Any, Any]

PROBE = "probe.npz"
NUM_CLASSES = 10
# what the engine of a rank may take beside the tile: as a rule, and at least
ENGINE_GIB, LEAST_ENGINE_GIB = 0.6, 0.2
# of a tile while it is computed, checked and written; of weights while they are read, and beside them while passes run
COPIES_OF_A_TILE, COPIES_OF_WEIGHTS = 2, 4
# rows of the Jacobian that are compared with the kernel at once, and copies of them, in float64
EXACT_ROWS, COPIES_OF_EXACT_ROWS = 32, 2.25
# images of a forward pass of the whole probe set
IMAGES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class TiledGram(Workload):
    """The exact kernel of one snapshot in tiles of `panel_rows` rows and columns, those on and above the diagonal.

    As many ranks as the task has cores, or GPUs, on each of its nodes compute them; no process holds the whole. Files: the tiles,
    `tiles.json` (their SHA-256 and sums), and `probe.npz` as of the workload `gram`.
    """

    version: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-5

    train: Train = Train()
    snapshot: str = setting("final", help="init, final, or the number of a step that train.num_snapshots keeps")
    probe_size: int = setting(256, low=1, help="images N of the probe set")
    outputs: str = setting("full", choices=("full", "traced"), help="(N C, N C), row n C + c, or (N, N), the mean over outputs (D1)")
    dtype: str = setting("float32", choices=("float32", "float64"))
    panel_rows: int = setting(2560, low=1, help="rows and columns of a tile, cut to whole images")
    ray: bool = setting(False, identity=False, help="compute tiles in actors of Ray, which finds other work for those of a lost node")
    ray_address: str | None = setting(None, identity=False, help="of a Ray that is there; null: one of our own on the task's nodes")

    def check(self) -> None:
        """The snapshot must be one that the training keeps, under one name; no more images than the test set has."""
        check_snapshot(self.train, self.snapshot)
        check_probe(self.train, self.probe_size)

    def step(self) -> int:
        """The step of the snapshot."""
        return snapshot_step(self.train, self.snapshot)

    def num_rows(self) -> int:
        """Rows of the kernel, if the data have ten classes."""
        return self.probe_size * self.rows_per_image()

    def rows_per_image(self) -> int:
        """If the data have ten classes."""
        return NUM_CLASSES if self.outputs == "full" else 1

    def panels(self) -> Panels:
        """The rows in panels of whole images."""
        each = self.rows_per_image()
        return Panels(self.num_rows(), max(1, self.panel_rows // each) * each)

    def resources(self) -> Resources:
        """One core: each more, of a node, is a rank more."""
        return self.adapted(Resources())

    def adapted(self, resources: Resources) -> Resources:
        """Memory for a rank on each core or GPU, and three times the time that is expected."""
        memory_gib = self._own_gib(resources) + ranks_of(resources) * self._rank_gib(ENGINE_GIB)
        seconds = self._seconds(resources) or 0.0
        return dataclasses.replace(resources, memory_gib=up(memory_gib), walltime_minutes=max(60.0, round(3 * seconds / 60)))

    def estimate(self, resources: Resources) -> CostEstimate:
        """What the tiles take on these resources, and whether they fit."""
        panels, work = self.panels(), self._work()
        count = cost.num_tiles(panels)
        return CostEstimate(
            what=f"{panels.num_rows:,} rows in {count:,} tile{'s' if count > 1 else ''} of {self.dtype}",
            memory_gib=self._own_gib(resources) + ranks_of(resources) * self._rank_gib(LEAST_ENGINE_GIB),
            disk_bytes=cost.tile_bytes(panels, self.dtype),
            flops=work.flops if work else None,
            seconds=self._seconds(resources),
            obstacle=self._obstacle(resources),
        )

    def _layers(self) -> tuple[Layer, ...]:
        """Empty where model or data do not say what they are made of."""
        shapes = self.train.data.shapes()
        return (shapes and self.train.model.layers(shapes[1][1:], NUM_CLASSES)) or ()

    def _work(self) -> cost.GramWork | None:
        layers = self._layers()
        return cost.gram_work(layers, self.outputs, self.panels()) if layers else None

    def parts(self, resources: Resources) -> tuple[cost.Part, ...]:
        """The steps of the tiles on these resources, as the cost model has them."""
        ranks, speed = cost.Ranks.of(resources), cost.GPU if resources.gpus else cost.CORE
        images = GIB * self._data_gib()
        return cost.gram_parts(self._work(), self.panels(), self.dtype, ranks, speed, image_bytes=images, weights=self._num_weights())

    def _seconds(self, resources: Resources) -> float | None:
        ranks, speed = cost.Ranks.of(resources).total, cost.GPU if resources.gpus else cost.CORE
        return cost.seconds(self.parts(resources), self.panels(), ranks, speed) if self._work() else None

    def _own_gib(self, resources: Resources) -> float:
        """Of the task's own process beside its ranks, and of Ray's. One rank is that process, and needs what it needs more."""
        from workers.sharded.ray_node import HEAD_GIB

        exact = 0.0
        if self.dtype == "float32":
            exact = min(EXACT_GIB, COPIES_OF_EXACT_ROWS * EXACT_ROWS * 8 * self._num_weights() / GIB)
        if resources.nodes * ranks_of(resources) == 1 and not self.ray:
            return max(0.0, exact - LEAST_ENGINE_GIB)
        own = BASE_GIB + self._data_gib() + self._weights_gib() + exact
        return own + (HEAD_GIB if self.ray and self.ray_address is None else 0.0)

    def _num_weights(self) -> int:
        return sum((layer.fan_in + layer.bias) * layer.num_outputs for layer in self._layers())

    def _weights_gib(self) -> float:
        return COPIES_OF_WEIGHTS * cost.ITEM_BYTES[self.dtype] * self._num_weights() / GIB

    def _data_gib(self) -> float:
        """Of the images that each process holds: all, or where they are read when they are taken, those of the probe set."""
        shapes = self.train.data.shapes()
        probe_bytes = 12 * self.probe_size * math.prod(shapes[1][1:]) if shapes else 0
        return (self.train.data.held_bytes() or probe_bytes) / GIB

    def _rank_gib(self, engine_gib: float, panel_rows: int | None = None) -> float:
        rows = min(panel_rows or self.panels().panel_rows, self.num_rows())
        tile = COPIES_OF_A_TILE * rows**2 * cost.ITEM_BYTES[self.dtype] / GIB
        return BASE_GIB + self._data_gib() + self._weights_gib() + engine_gib + tile

    def _obstacle(self, resources: Resources) -> str:
        """Why the memory is too small, or Ray is asked for and not there."""
        if self.ray and (missing := ray_missing()):
            return f"gram.ray=true asks for Ray: {missing}"

        def least_gib(panel_rows: int) -> float:
            return self._rank_gib(LEAST_ENGINE_GIB, panel_rows)

        return tiles_obstacle(self._own_gib(resources), least_gib, self.panels().panel_rows, self.rows_per_image(), resources)

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows `trace` (tr / (N C)), `frobenius`, `probe_loss`, `num_units`, `num_outputs`, `num_rows`, `num_tiles`.

        In single precision `kernel_error` too, ||kernel - exact||_F, and its standard error.
        """
        from workers.sharded.making import Workforce, make_tiles

        ranks, engine_gib = self._ranks(context)
        workforce = Workforce(
            ranks_per_node=ranks,
            memory_gib=engine_gib,
            rank_gib=self._rank_gib(engine_gib),
            ray=self.ray,
            ray_address=self.ray_address,
        )
        module, inputs_N, labels_N, index_N = network_and_probe(context, self.train, self.step(), self.probe_size, self.dtype)
        residuals_NC, probe_loss = publish_probe(context, self.train.loss, module, inputs_N, labels_N, index_N)
        with self.kernel_tiles(context, engine_gib) as engine:  # refuses a model or a memory before any rank starts
            context.log(f"a tile on the diagonal:\n{engine.plan(0, 0)}")
            panels = Panels(len(inputs_N) * engine.rows_per_sample, engine.panel * engine.rows_per_sample)
        tiles = make_tiles(context, panels, self.dtype, workforce)
        values = {"trace": tiles.trace / tiles.num_rows, "frobenius": tiles.frobenius, "probe_loss": probe_loss}
        values |= {"num_units": residuals_NC.shape[0], "num_outputs": residuals_NC.shape[1], "num_rows": tiles.num_rows}
        values["num_tiles"] = len(tiles.facts)
        if self.dtype == "float32":
            error = self._error(module, inputs_N, tiles)
            values |= {"kernel_error": error.value, "kernel_error_standard_error": error.standard_error}
        facts = tiles.facts.values()
        context.log(
            f"{len(facts)} tiles of {tiles.num_rows:,} rows took {sum(one.seconds for one in facts):.1f} core-seconds; "
            f"no rank held more than {max(one.peak_bytes for one in facts) / 2**30:.2f} GiB"
        )
        for name, value in values.items():
            yield Row(step=self.step(), name=name, value=value)

    @contextlib.contextmanager
    def kernel_tiles(self, context: "Context", memory_gib: float) -> "Iterator[KernelTiles]":
        """The engine of one rank."""
        import torch

        from workers import entk

        module, inputs_N, *_ = network_and_probe(context, self.train, self.step(), self.probe_size, self.dtype)
        with torch.no_grad():
            rows = module(inputs_N[:1]).shape[1] if self.outputs == "full" else 1
        with entk.kernel_tiles(
            module, inputs_N, panel=max(1, self.panel_rows // rows), outputs=self.outputs, memory_gib=memory_gib
        ) as tiles:
            yield tiles

    def _ranks(self, context: "Context") -> tuple[int, float]:
        """Ranks of a node, and the memory of the engine of each."""
        resources = Resources(**context.task.resources)
        if obstacle := self._obstacle(resources):
            raise ConfigError(obstacle)
        ranks = ranks_of(resources)
        engine_gib = (resources.memory_gib - self._own_gib(resources)) / ranks - self._rank_gib(0.0)
        return ranks, engine_gib

    def _error(self, module: "nn.Module", inputs_N: "Tensor", tiles: "TileSet") -> "Estimate":
        """||kernel - exact||_F from sampled tiles in float64."""
        from workers import entk
        from workers.sharded.products import TileElements

        return entk.kernel_error(TileElements(tiles), entk.double_tiles(module.cpu(), inputs_N.cpu(), self.outputs))


def publish_probe(
    context: "Context", loss: str, module: "nn.Module", inputs_N: "Tensor", labels_N: "Tensor", index_N: "Tensor"
) -> "tuple[Array, float]":
    """Residuals (N, C) and the mean loss on the probe set; both, with the outputs, labels and indices, are published."""
    import numpy as np
    import torch

    from workers.losses import loss_per_unit, residual

    with torch.no_grad():
        outputs_NC = torch.cat([module(part) for part in inputs_N.split(IMAGES_AT_ONCE)])
        loss_N = loss_per_unit(loss, outputs_NC, labels_N)
    tensors = {"outputs": outputs_NC, "residuals": residual(loss, outputs_NC, labels_N), "labels": labels_N, "index": index_N}
    arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
    with context.file(PROBE) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return arrays["residuals"], loss_N.mean().item()
