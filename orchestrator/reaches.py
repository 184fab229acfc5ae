"""The spectral reach of each training of a sweep, by estimator and threshold, over its whole course and up to one compute for all (D10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.study_tables import at_end, by_step
from workers.errors import ConfigError
from workers.observables.spectral_reach import find_reach

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

EPSILONS = (0.02, 0.05, 0.1)
# estimator -> the columns of its loss and position
ESTIMATORS = {"unbiased": ("batch_loss", "chi_pos"), "self": ("batch_loss", "chi_pos_self"), "probe": ("probe_loss", "probe_chi_pos")}
WINDOW = ("batch_loss", "chi_loss", "chi_net", "chi_pos", "chi_pos_self", "delta_loss", "probe_loss", "probe_chi_net", "probe_chi_pos")
CROSS = ("cross_chi_pos", "cross_cosine")
ENDS = ("num_params", "num_params_non_embedding", "flops_6nd", "test_loss", "train_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Courses:
    """`windows`: a row a training and window, with `compute` spent so far (FLOPs, 6 N D); `runs`: a row a training with its last values."""

    windows: "pl.DataFrame"
    runs: "pl.DataFrame"
    axes: Sequence[str]

    def reaches(self, *, equal_compute: bool = False) -> "pl.DataFrame":
        """Columns of the axes, those of ENDS, estimator, epsilon, reach, is_bound; a training without three windows has no row.

        `equal_compute`: only the windows up to the compute that the smallest training ends with.
        """
        import polars as pl

        windows = self.windows
        if equal_compute:
            windows = windows.filter(pl.col("compute") <= self.runs["flops_6nd"].min())
        rows: list[dict[str, Any]] = []
        ends = {row["key"]: row for row in self.runs.iter_rows(named=True)}
        for (key,), part in windows.sort("step").partition_by(["key"], as_dict=True, maintain_order=True).items():
            for estimator, (loss, position) in ESTIMATORS.items():
                rows += [{**ends[key], **one} for one in _of_run(part, estimator, loss, position)]
        return pl.DataFrame(rows, infer_schema_length=None)


def courses(results: "Results") -> Courses:
    """The trainings of a sweep with windows; ConfigError where there are none."""
    import polars as pl

    frame = by_step(results, (*WINDOW, *CROSS, *ENDS)).filter((pl.col("workload") == "train") & (pl.col("status") != "diverged"))
    runs = at_end(frame, ENDS)
    windows = frame.filter(pl.col("chi_pos").is_not_null() | pl.col("probe_chi_pos").is_not_null())
    if windows.is_empty():
        raise ConfigError(f"no training of {results.name} has windows of spectral position; set position_windows_per_decade")
    steps = frame.group_by("key").agg(num_steps=pl.col("step").max())
    windows = windows.drop(*ENDS).join(runs.select("key", "flops_6nd", "num_params"), on="key").join(steps, on="key")
    # a window's values are those before the update after it
    compute = pl.col("flops_6nd") * (pl.col("step") + 1) / pl.col("num_steps")
    return Courses(windows=windows.with_columns(compute=compute), runs=runs, axes=results.axis_names)


def _of_run(part: "pl.DataFrame", estimator: str, loss: str, position: str) -> list[dict[str, Any]]:
    own = part.drop_nulls([loss, position]).filter(part.drop_nulls([loss, position])["step"] > 0)
    found: list[dict[str, Any]] = []
    for epsilon in EPSILONS:
        try:
            one = find_reach(own["step"].to_numpy(), own[loss].to_numpy(), own[position].to_numpy(), epsilon)
        except ConfigError:
            continue
        found.append({"estimator": estimator, "epsilon": epsilon, "reach": one.reach, "is_bound": one.is_bound, "reach_step": one.step})
    return found
