"""The spectral reach of each training of a sweep, by estimator and threshold, over its whole course and up to one compute for all (D10)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import Estimate
from orchestrator.study_tables import at_end, by_step
from workers.errors import ConfigError
from workers.mode_flow import EPSILONS
from workers.observables.spectral_reach import find_reach

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

# estimator -> the columns of its loss and position
ESTIMATORS = {"unbiased": ("batch_loss", "chi_pos"), "self": ("batch_loss", "chi_pos_self"), "probe": ("probe_loss", "probe_chi_pos")}
WINDOW = ("batch_loss", "chi_net", "chi_pos", "chi_pos_self", "kappa_over_units", "probe_loss", "probe_chi_net", "probe_chi_pos")
CROSS = ("cross_chi_pos",)
ENDS = ("num_params", "num_params_non_embedding", "flops_6nd", "test_loss", "train_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Courses:
    """`windows`: a row a training and window, with `compute` spent so far (FLOPs, 6 N D); `runs`: a row a training with its last values."""

    windows: "pl.DataFrame"
    runs: "pl.DataFrame"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Slope of reach against log10 of the parameters, a decade, with its 95 % interval, `num_bounds` of `num_runs` being lower bounds.

    `num_without`: runs that have no reach, as their position there is not above 0: the estimate of a gradient that is lost in noise.
    """

    value: float
    low: float
    high: float
    num_runs: int
    num_bounds: int
    num_without: int


def trend(frame: "pl.DataFrame", estimator: str, epsilon: float) -> Trend | None:
    """Of the `reaches` of an estimator at a threshold; None for fewer than three sizes.

    A line through one mean a size, as its runs share what is particular to it, after the mean of each data size is taken away; the
    interval is Student's, with two degrees of freedom less than there are sizes.
    """
    import polars as pl
    from scipy import stats

    if frame.is_empty():
        return None
    every = frame.filter((pl.col("estimator") == estimator) & (pl.col("epsilon") == epsilon))
    own = every.filter(pl.col("reach").is_finite())
    of_data = "train_size" if "train_size" in own.columns else pl.lit(0)
    level = pl.col("reach").mean().over(of_data)
    means = own.with_columns(left=pl.col("reach") - level).group_by("num_params").agg(pl.col("left").mean()).sort("num_params")
    if len(means) < 3:
        return None
    line = stats.linregress(means["num_params"].log10().to_numpy(), means["left"].to_numpy())
    low, high = Estimate(value=float(line.slope), error=float(line.stderr), freedom=len(means) - 2).interval
    return Trend(
        value=float(line.slope),
        low=low,
        high=high,
        num_runs=len(own),
        num_bounds=int(own["is_bound"].sum()),
        num_without=len(every) - len(own),
    )


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
    return Courses(windows=windows.with_columns(compute=compute), runs=runs)


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
