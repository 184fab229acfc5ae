"""Scaling seen through the NTK (after arXiv 2507.05035): exponents of loss beside those of kernels, and the limit of large width."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.critical_width import CriticalWidth, Line, at_loss, critical_width
from orchestrator.drawings import Drawing
from orchestrator.pairing import CONFIDENCE, Estimate, estimate_of, holm
from orchestrator.study import Section, Study, Table
from orchestrator.study_tables import at_end, by_step, exponent_rows, labelled, listed, need, sign, slope, slopes
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit, Parameter
    from orchestrator.results import Results

DATA, WIDTH = "ntk_lens_data", "ntk_lens_width"
OBSERVABLES = ("trace", "entropy", "effective_rank")
TASK = "task"
# exponents of loss that differ by no more count as equal
MARGIN = 0.05


def data_scaling(results: Mapping[str, "Results"]) -> Section:
    """Loss and kernel at the end against the size of the training set, for each pair of data set and network."""
    read = _read(need(results, DATA), ("test_loss",), OBSERVABLES)
    frame, observables = _tasks(read), read.named(OBSERVABLES)
    fits = {name: slopes(frame, "train_size", name, TASK) for name in ("test_loss", *observables)}
    pairs = _pairs(fits, observables)
    return Section(
        title="Against the size of the training set",
        findings=[*_loss_said(fits["test_loss"]), *_kernels_said(fits, read), *_pairs_said(pairs, len(observables))],
        drawings=[_scaled(frame, fits[name], "train_size", name, "data") for name in fits],
        tables=[
            Table(name="data-exponents", heading="Exponents against the training set's size", rows=exponent_rows(fits, TASK)),
            Table(name="pairs", heading="Pairs of tasks", rows=pairs),
        ],
        notes=read.notes,
    )


def along_training(results: Mapping[str, "Results"]) -> Section:
    """The kernel at start, end and between."""
    from orchestrator.figures.trajectories import trajectories

    read = _read(need(results, DATA), (), OBSERVABLES)
    frame = labelled(read.frame, ("data", "model"), TASK)
    drawings, findings = [], []
    for (task,), part in sorted(frame.partition_by([TASK], as_dict=True).items()):
        for name in read.named(("trace", "effective_rank")):
            rows = part.select("step", "train_size", value=name).drop_nulls()
            drawings.append(
                Drawing(
                    name=f"along-{name.replace('_', '-')}-{task.replace(' ', '-')}",
                    ax=trajectories(rows, name=name, by="train_size"),
                    caption=f"{task}: the {read.kernel} on a fixed probe set, by size of the training set; median and range of seeds.",
                )
            )
        findings += _course(task, part, read)
    return Section(title="Along training", findings=findings, drawings=drawings, notes=read.notes)


def width_limit(results: Mapping[str, "Results"]) -> Section:
    """How far the kernel moves at equal training loss, against the width; the kernel of infinite width; training that is linearised."""
    read = _read(need(results, WIDTH), ("train_loss", "test_loss", "infinite_width_distance"), ("relative_kernel_change",))
    frame = read.frame
    every, target = _changes_at_loss(frame, read.named(("relative_kernel_change",))[0])
    changes = every.drop_nans()
    heading = f"Change of the {read.kernel} at training loss {target:.3g}"
    found = {label: _critical(part) for (label,), part in sorted(changes.partition_by(["parameterisation"], as_dict=True).items())}
    return Section(
        title="Against the width",
        findings=[*_critical_said(found, target, read), *_limit_said(frame), *_lazy_said(frame)],
        drawings=[*_width_figures(changes, found, target, read), *_limit_figures(frame)],
        tables=[Table(name="critical-width", heading=heading, rows=_width_rows(changes))],
        notes=[*read.notes, *_early_said(len(every) - len(changes), len(every), target)],
    )


# -- what there is --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """A row a task and step, of tasks that did not diverge; names of kernels' observables end in `suffix`, of traced kernels `_traced`."""

    frame: "pl.DataFrame"
    suffix: str
    num_diverged: int

    @property
    def kernel(self) -> str:
        """Which kernel it is (D1)."""
        return "traced kernel" if self.suffix else "full kernel"

    @property
    def notes(self) -> list[str]:
        """Of what is left out."""
        return [f"{self.num_diverged} {'task' if self.num_diverged == 1 else 'tasks'} diverged: left out"] if self.num_diverged else []

    def named(self, names: Sequence[str]) -> list[str]:
        """As the store has them."""
        return [f"{name}{self.suffix}" for name in names]


def _read(results: "Results", names: Sequence[str], observables: Sequence[str]) -> _Read:
    """Scalars `names`, and the kernel's `observables`: of the full kernel, or of the traced one in a store that has only that."""
    import polars as pl

    traced = [f"{name}_traced" for name in observables]
    every = by_step(results, (*names, *observables, *traced))
    frame = every.filter(pl.col("status") != "diverged")
    has_full = any(frame[name].count() for name in observables)
    suffix = "_traced" if not has_full and any(frame[name].count() for name in traced) else ""
    diverged = every.filter(pl.col("status") == "diverged")["key"].n_unique()
    return _Read(frame=frame.drop(observables if suffix else traced), suffix=suffix, num_diverged=diverged)


# -- against the size of the training set ---------------------------------------------------------------------------------------


def _tasks(read: _Read) -> "pl.DataFrame":
    """A row a training with its last losses and, from its kernels' task, the last observables."""
    frame, observables = read.frame, read.named(OBSERVABLES)
    axes = ["data", "model", "train_size", "seed"]
    kernels = at_end(frame.filter(frame["workload"] == "kernel_dynamics"), observables).select(*axes, *observables)
    losses = at_end(frame.filter(frame["workload"] == "train"), ["test_loss"]).select(*axes, "test_loss")
    return labelled(losses.join(kernels.drop_nulls(observables[0]), on=axes), ("data", "model"), TASK)


def _pairs(fits: "Mapping[str, Mapping[str, Fit]]", observables: Sequence[str]) -> list[dict[str, Any]]:
    """A row a pair of tasks: whether their losses have one exponent, and which observables' slopes have opposite signs.

    Signs are opposite where both slopes' intervals leave 0 out, on two sides, with Holm's correction for all pairs and observables: each
    pair's p is the larger of its two slopes'. The tasks' fits are taken as independent, which is cautious where they share training sets.
    """
    found = list(itertools.combinations(sorted(fits["test_loss"]), 2))
    tests = [(pair, name) for pair in found for name in observables if fits[name].keys() >= set(pair)]
    p_values = [_opposite(fits[name][first], fits[name][second]) for (first, second), name in tests]
    corrected = dict(zip(tests, holm(p_values), strict=True))
    rows = []
    for pair in found:
        first, second = (fits["test_loss"][task] for task in pair)
        difference = _estimate(second).minus(_estimate(first))
        low, high = difference.interval
        opposite = [name for (own, name), p in corrected.items() if own == pair and p < 1 - CONFIDENCE]
        rows.append(
            {
                "first": pair[0],
                "second": pair[1],
                "loss exponents": f"{-slope(first).value:.3f}, {-slope(second).value:.3f}",
                "difference": (f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]", difference.value),
                "exponents are": difference.equality(MARGIN),
                "observables with opposite slopes": ", ".join(opposite) or "none",
            }
        )
    return rows


def _estimate(one: "Fit") -> Estimate:
    """The slope of a fit, of two parameters, with the error that its interval was made of."""
    found = slope(one)
    return estimate_of(found.value, found.low, found.high, one.num_clusters - 1 if one.unit == "seed" else one.num_points - 2)


def _opposite(first: "Fit", second: "Fit") -> float:
    """p of the two slopes' having opposite signs."""
    return max(_estimate(first).p_value, _estimate(second).p_value) if sign(slope(first)) * sign(slope(second)) < 0 else 1.0


def _way(one: "Parameter") -> str:
    if math.isnan(one.low):
        return "cannot be said to grow or fall (no interval)"
    return {1: "grows", -1: "falls", 0: "has no clear trend"}[sign(one)]


def _loss_said(fits: "Mapping[str, Fit]") -> list[str]:
    told = [f"{_way(slope(one))} for {task} (exponent {slope(one).text()})" for task, one in fits.items()]
    return [f"With the training set's size test loss {listed(told)}."] if told else []


def _kernels_said(fits: "Mapping[str, Mapping[str, Fit]]", read: _Read) -> list[str]:
    lines = []
    for name, stored in zip(OBSERVABLES, read.named(OBSERVABLES), strict=True):
        words = [f"{_way(slope(one))} for {task} ({slope(one).value:+.3f})" for task, one in fits[stored].items()]
        lines += [f"The final {read.kernel}'s {name.replace('_', ' ')} {listed(words)}."] if words else []
    return lines


def _pairs_said(pairs: list[dict[str, Any]], num_observables: int) -> list[str]:
    """Nothing without pairs."""
    if not pairs:
        return []
    count = {word: sum(pair["exponents are"] == word for pair in pairs) for word in ("equal", "different", "undecided")}
    lines = [
        f"Pairs of tasks: {len(pairs)}. Their loss exponents are equal in {count['equal']} (the {CONFIDENCE:.0%} interval of the "
        f"difference lies within ±{MARGIN}), different in {count['different']} (it leaves 0 out) and undecided in {count['undecided']}."
    ]
    claim = "the claim that equal scaling of the loss may hide opposite kernels"
    if not count["equal"]:
        return [*lines, f"No pair is shown to have equal exponents: this sweep does not show {claim}."]
    opposite = [pair for pair in pairs if pair["exponents are"] == "equal" and pair["observables with opposite slopes"] != "none"]
    told = [f"{pair['first']} and {pair['second']} ({pair['observables with opposite slopes']})" for pair in opposite]
    holds = f"with Holm's correction for {len(pairs)} pairs and {num_observables} observables"
    if opposite:
        found = f"Of the equal ones {len(opposite)} have kernels that go opposite ways, {holds}: {listed(told)}."
        return [*lines, f"{found} This agrees with {claim}."]
    return [*lines, f"In none of the equal ones do the kernels clearly go opposite ways, {holds}. This sweep does not show {claim}."]


def _scaled(frame: "pl.DataFrame", fits: "Mapping[str, Fit]", x: str, y: str, name: str) -> Drawing:
    from orchestrator.figures.scaling import scaling

    ax = scaling(frame.drop_nulls(y), list(fits.values()), x=x, y=y, by=TASK)
    caption = "Dots: trainings. Lines: power laws with 95 % bands from whole seeds, dashed beyond the data."
    return Drawing(name=f"{name}-{y.replace('_', '-')}", ax=ax, caption=caption)


def _course(task: str, part: "pl.DataFrame", read: _Read) -> list[str]:
    """Whether entropy of the largest training set's kernels falls (compression) or rises (structure) from start to end."""
    import polars as pl

    own, other = (pl.col(name) for name in read.named(("entropy", "trace")))
    largest = part.filter((pl.col("train_size") == pl.col("train_size").max()) & own.is_not_null())
    if largest["step"].n_unique() < 2:
        return []
    by = largest.group_by("step").agg(entropy=own.median(), trace=other.median()).sort("step")
    low, entropy, trace = by["entropy"].min(), by["entropy"].to_list(), by["trace"].to_list()
    back = f", after a least value of {low:.2f}" if isinstance(low, float) and low < min(entropy[0], entropy[-1]) - 0.05 else ""
    return [
        f"{task}: with the largest training set the {read.kernel}'s entropy goes from {entropy[0]:.2f} to {entropy[-1]:.2f} nats{back}, "
        f"its trace per row from {trace[0]:.3g} to {trace[-1]:.3g}."
    ]


# -- against the width ----------------------------------------------------------------------------------------------------------


def _changes_at_loss(frame: "pl.DataFrame", name: str) -> "tuple[pl.DataFrame, float]":
    """The relative kernel change of each training where its loss first falls to the least value that all of them reach; NaN where it does
    so before its first kernel after the start."""
    import polars as pl

    axes = ["parameterisation", "width", "seed"]
    free = frame.filter(pl.col("frozen") == "none")
    losses = free.filter(pl.col("train_loss").is_finite()).select(*axes, "step", "train_loss")
    kernels = free.filter(pl.col(name).is_finite()).select(*axes, "step", relative_kernel_change=name)
    runs = losses.join(kernels, on=[*axes, "step"]).sort("step").partition_by(axes, as_dict=True)
    if not runs:
        raise ConfigError(f"{WIDTH} has no training yet with both losses and kernels")
    reached = max(float(min(run["train_loss"])) for run in runs.values())
    rows = []
    for values, run in runs.items():
        change = at_loss(run["train_loss"].to_list(), run["relative_kernel_change"].to_list(), reached)
        rows.append({**dict(zip(axes, values)), "relative_kernel_change": change})
    return pl.DataFrame(rows).sort(axes), reached


def _early_said(number: int, of: int, target: float) -> list[str]:
    return [f"{number} of {of} trainings have no kernels on both sides of training loss {target:.3g}: left out"] if number else []


def _critical(part: "pl.DataFrame") -> CriticalWidth | None:
    by_width = dict(part.group_by("width").agg("relative_kernel_change").sort("width").iter_rows())
    return critical_width(by_width) if len(by_width) >= 4 else None


def _critical_said(found: Mapping[str, CriticalWidth | None], target: float, read: _Read) -> list[str]:
    lines = []
    for label, one in found.items():
        if one is None:
            continue
        start = f"{label}: at training loss {target:.3g} the {read.kernel}'s change {_went(one.wide)}"
        if not one.is_tested:
            lines.append(f"{start} over all widths; whether one leaves that law cannot be tested with one seed.")
            continue
        if math.isnan(one.width):
            lines.append(
                f"{start} over all widths, none of which clearly leaves that law. This is only a bound: a critical width is less than the "
                "narrowest, or the seeds' spread hides it."
            )
            continue
        side = "below" if one.deviation < 0 else "above"
        bound = " (a bound: fewer than three widths on one side)" if one.is_bound else ""
        narrow = "" if math.isnan(one.narrow.slope) else f", and up to there it {_went(one.narrow)}"
        lines.append(f"{start} in wide networks; {one.width:.0f} is the widest that leaves this law, {side} it{bound}{narrow}.")
    return lines


def _went(line: Line) -> str:
    """By the sign of the slope, where 2 standard errors leave 0 out."""
    power = f"width^{line.slope:.2f}"
    if math.isnan(line.error):
        return f"goes as {power}"
    power = f"{power} ± {2 * line.error:.2f}"
    if abs(line.slope) <= 2 * line.error:
        return f"has no clear trend ({power})"
    return f"{'falls' if line.slope < 0 else 'rises'} as {power}"


def _limit_said(frame: "pl.DataFrame") -> list[str]:
    import polars as pl

    start = frame.filter((pl.col("step") == 0) & (pl.col("frozen") == "none")).drop_nulls("infinite_width_distance")
    fits = slopes(start, "width", "infinite_width_distance", "parameterisation")
    ways = {-1: "tends to", 0: "is not clearly seen to tend to", 1: "goes away from"}
    return [
        f"{label}: the kernel at initialisation {ways[sign(slope(one))]} that of infinite width, its distance as width^{slope(one).text()} "
        "(theory: -1/2)."
        for label, one in fits.items()
    ]


def _lazy_said(frame: "pl.DataFrame") -> list[str]:
    """Feature learning's gain: test loss beside that of the linearised network, in the narrowest and the widest."""
    import polars as pl

    rows = _gains(frame)
    if rows.is_empty():
        return []
    ends = [rows.filter(pl.col("width") == width).row(0, named=True) for width in (rows["width"].min(), rows["width"].max())]
    told = [f"{math.expm1(row['gain']):+.1%}{_plus_minus(_of_ratio(row), '.1%')} at width {row['width']}" for row in ends]
    return [f"Test loss of the network over that of the linearised one, less 1 (ntk): {listed(told)}."]


def _of_ratio(row: Mapping[str, Any]) -> float | None:
    """The standard error of the ratio, from that of its logarithm."""
    return None if row["error"] is None else math.exp(row["gain"]) * float(row["error"])


def _gains(frame: "pl.DataFrame") -> "pl.DataFrame":
    """By width: mean over seeds of ln(test loss / linearised test loss), and its standard error."""
    import polars as pl

    axes = ["parameterisation", "width", "seed"]
    ends = at_end(frame.filter(pl.col("workload") == "train"), ["test_loss"])
    lazy = ends.filter(pl.col("frozen") == "linearised").select(*axes, lazy="test_loss")
    both = ends.filter(pl.col("frozen") == "none").join(lazy, on=axes)
    ratio = (pl.col("test_loss") / pl.col("lazy")).log()
    both = both.filter(ratio.is_finite())
    return both.group_by("width").agg(gain=ratio.mean(), error=ratio.std() / pl.len().sqrt()).sort("width")


def _plus_minus(error: float | None, form: str) -> str:
    """Nothing for one seed."""
    return "" if error is None else f" ± {error:{form}}"


def _width_figures(changes: "pl.DataFrame", found: Mapping[str, CriticalWidth | None], target: float, read: _Read) -> list[Drawing]:
    from orchestrator.figures.critical_width import critical_widths

    ax = critical_widths(changes, {label: one for label, one in found.items() if one is not None})
    caption = (
        f"Relative change of the {read.kernel} since initialisation where the training loss has fallen to {target:.3g}. Dots: seeds. "
        "Lines: power laws of wide networks (solid) and narrow ones (dotted); the bar marks the critical width."
    )
    return [Drawing(name="kernel-change-width", ax=ax, caption=caption)]


def _limit_figures(frame: "pl.DataFrame") -> list[Drawing]:
    import polars as pl

    from orchestrator.figures.scaling import scaling

    start = frame.filter((pl.col("step") == 0) & (pl.col("frozen") == "none")).drop_nulls("infinite_width_distance")
    drawings = []
    if len(start):
        fits = slopes(start, "width", "infinite_width_distance", "parameterisation")
        ax = scaling(start, list(fits.values()), x="width", y="infinite_width_distance", y_label="distance to infinite width (relative)")
        drawings.append(Drawing(name="infinite-width", ax=ax, caption="At initialisation, on the probe set; dots: seeds."))
    ends = at_end(frame.filter(pl.col("workload") == "train"), ["test_loss"]).filter(pl.col("parameterisation") == "ntk")
    if ends["frozen"].n_unique() > 1:
        from orchestrator.figures.observables import observables

        rows = ends.select("width", training=pl.col("frozen").replace("none", "network"), value="test_loss")
        ax = observables(rows, x="width", name="test_loss", by="training", title="Test loss of the network and of its linearisation")
        drawings.append(Drawing(name="linearised-test-loss", ax=ax, caption="The network and its linearisation at initialisation (ntk)."))
    return drawings


def _width_rows(changes: "pl.DataFrame") -> list[dict[str, Any]]:
    import polars as pl

    value = pl.col("relative_kernel_change")
    rows = changes.group_by("parameterisation", "width").agg(mean=value.mean(), seeds=pl.len(), error=value.std() / pl.len().sqrt())
    return [
        {
            "parameterisation": row["parameterisation"],
            "width": row["width"],
            "relative kernel change": (f"{row['mean']:.3f}{_plus_minus(row['error'], '.3f')}", row["mean"]),
            "seeds": row["seeds"],
        }
        for row in rows.sort("parameterisation", "width").iter_rows(named=True)
    ]


STUDY = Study(
    name="ntk_lens",
    title="Scaling through the lens of the neural tangent kernel",
    sweeps={
        DATA: "test loss, trace, entropy and effective rank against the training set's size",
        WIDTH: "kernel change, infinite width and linearised training against the width",
    },
    sections=(data_scaling, along_training, width_limit),
)
