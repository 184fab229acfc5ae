"""The loss-network-position decomposition of a trained network's gradient on a fixed probe set."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from workers.losses import loss_per_unit
from workers.snapshots import check_probe, check_snapshot, minutes_to_replay, network_and_probe, seconds_to_replay, snapshot_step
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.train import Train

if TYPE_CHECKING:
    from workers.context import Context

VALUES = ("chi_loss", "chi_net", "chi_pos", "delta_loss")
ROWS = (
    *VALUES,
    *(f"{name}_standard_error" for name in VALUES),
    *("chi_net_probe_error", "chi_pos_self", "delta_loss_self", "kappa_over_units", "chi_pos_times_units_outputs", "cosine"),
    *("mean_loss", "num_units", "num_clusters", "num_outputs", "num_micro_batches"),
)


@dataclass(frozen=True, kw_only=True)
class Position(Workload):
    """chi_loss, chi_net, chi_pos and delta_loss (D3) of one snapshot on images of the test set that depend on the data alone.

    chi_pos and delta_loss are unbiased, over micro-batches; `*_self` are those of the mean gradient of the probe set itself.
    """

    version: ClassVar[int] = 1

    train: Train = Train()
    snapshot: str = setting("final", help="init, final, or the number of a step; trained again where train.num_snapshots keeps it not")
    probe_size: int = setting(64, low=1, help="images N of the probe set")
    estimator: str = setting("auto", choices=("auto", "exact", "ghost", "hutchinson"), help="of chi_net")
    num_probes: int = setting(16, low=1, help="random signs for each image, unless estimator=exact")
    num_micro_batches: int = setting(16, low=2, help="of the U-statistic and its standard error; at most probe_size")
    dtype: str = setting("float64", choices=("float32", "float64"))

    def check(self) -> None:
        """The snapshot must be one that the training keeps."""
        check_snapshot(self.train, self.snapshot, replays=True)
        check_probe(self.train, self.probe_size)

    def resources(self) -> Resources:
        """The data set, and a gradient for each micro-batch."""
        minutes = minutes_to_replay(self.train, snapshot_step(self.train, self.snapshot))
        return Resources(memory_gib=2.0, walltime_minutes=minutes)

    def estimated_seconds(self) -> float:
        """From one Xeon core: mostly the start and the data."""
        return (
            0.3
            + seconds_to_replay(self.train, snapshot_step(self.train, self.snapshot))
            + 2e-7 * getattr(self.train.model, "width", 32) * self.probe_size * (self.num_probes + 2)
        )

    def run(self, context: "Context") -> Iterator[Row]:
        """Each number of `workers.entk.lnp` as a row, and `<name>/<parameter>` of the layers."""
        from workers.entk.position import lnp

        step = snapshot_step(self.train, self.snapshot)
        module, inputs_N, labels_N, _ = network_and_probe(context, self.train, step, self.probe_size, self.dtype, replays=True)
        found = lnp(
            module,
            partial(loss_per_unit, self.train.loss),
            (inputs_N, labels_N),
            estimator=self.estimator,
            num_probes=self.num_probes,
            num_micro_batches=self.num_micro_batches,
        )
        for name in ROWS:
            yield Row(step=step, name=name, value=getattr(found, name))
        for layer, values in found.layers.items():
            for name in ("chi_net", "chi_pos", "delta_loss"):
                yield Row(step=step, name=f"{name}/{layer}", value=getattr(values, name))
