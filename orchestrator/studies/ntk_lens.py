"""Scaling seen through the NTK (after arXiv 2507.05035): exponents of loss beside those of kernels, and the limit of large width."""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.critical_width import CriticalWidth, at_loss, critical_width
from orchestrator.drawings import Drawing
from orchestrator.study import Section, Study, Table
from orchestrator.study_tables import at_end, by_step, exponent_rows, labelled, listed, need, overlap, sign, slope, slopes
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit
    from orchestrator.results import Results

DATA, WIDTH = "ntk_lens_data", "ntk_lens_width"
OBSERVABLES = ("trace", "entropy", "effective_rank")
TASK = "task"


def data_scaling(results: Mapping[str, "Results"]) -> Section:
    """Loss and kernel at the end against the size of the training set, for each pair of data set and network."""
    frame = _tasks(need(results, DATA))
    fits = {name: slopes(frame, "train_size", name, TASK) for name in ("test_loss", *OBSERVABLES)}
    pairs = [_pair(fits, first, second) for first, second in itertools.combinations(sorted(fits["test_loss"]), 2)]
    return Section(
        title="Against the size of the training set",
        findings=[*_exponents_said(fits), *_pairs_said(pairs)],
        drawings=[_scaled(frame, fits[name], "train_size", name, "data") for name in ("test_loss", *OBSERVABLES)],
        tables=[
            Table(name="data-exponents", heading="Exponents against the training set's size", rows=exponent_rows(fits, TASK)),
            Table(name="pairs", heading="Pairs of tasks", rows=pairs),
        ],
    )


def along_training(results: Mapping[str, "Results"]) -> Section:
    """The kernel at start, end and between."""
    from orchestrator.figures.trajectories import trajectories

    frame = labelled(by_step(need(results, DATA), OBSERVABLES), ("data", "model"), TASK)
    drawings, findings = [], []
    for (task,), part in sorted(frame.partition_by([TASK], as_dict=True).items()):
        for name in ("trace", "effective_rank"):
            rows = part.select("step", "train_size", value=name).drop_nulls()
            drawings.append(
                Drawing(
                    name=f"along-{name.replace('_', '-')}-{task.replace(' ', '-')}",
                    ax=trajectories(rows, name=name, by="train_size"),
                    caption=f"{task}: on a fixed probe set, by size of the training set; median over seeds, the band is their range.",
                )
            )
        findings += _course(task, part)
    return Section(title="Along training", findings=findings, drawings=drawings)


def width_limit(results: Mapping[str, "Results"]) -> Section:
    """How far the kernel moves at equal training loss, against the width; the kernel of infinite width; training that is linearised."""
    frame = by_step(need(results, WIDTH), ("train_loss", "test_loss", "relative_kernel_change", "infinite_width_distance"))
    changes, target = _changes_at_loss(frame)
    found = {label: _critical(part) for (label,), part in sorted(changes.partition_by(["parameterisation"], as_dict=True).items())}
    return Section(
        title="Against the width",
        findings=[*_critical_said(found, target), *_limit_said(frame), *_lazy_said(frame)],
        drawings=[*_width_figures(changes, found, target), *_limit_figures(frame)],
        tables=[Table(name="critical-width", heading=f"Kernel change at training loss {target:.3g}", rows=_width_rows(changes))],
    )


# -- against the size of the training set ---------------------------------------------------------------------------------------


def _tasks(results: "Results") -> "pl.DataFrame":
    """A row a training with its last losses and, from its kernels' task, the last observables."""
    frame = by_step(results, ("test_loss", *OBSERVABLES))
    axes = ["data", "model", "train_size", "seed"]
    kernels = at_end(frame.filter(frame["workload"] == "kernel_dynamics"), OBSERVABLES).select(*axes, *OBSERVABLES)
    losses = at_end(frame.filter(frame["workload"] == "train"), ["test_loss"]).select(*axes, "test_loss")
    return labelled(losses.join(kernels, on=axes), ("data", "model"), TASK)


def _pair(fits: "Mapping[str, Mapping[str, Fit]]", first: str, second: str) -> dict[str, Any]:
    """Whether two tasks' losses have exponents that agree within their intervals, and which observables' exponents have opposite signs."""
    losses = [slope(fits["test_loss"][task]) for task in (first, second)]
    opposite = [
        name
        for name in OBSERVABLES
        if first in fits[name] and second in fits[name] and sign(slope(fits[name][first])) * sign(slope(fits[name][second])) < 0
    ]
    return {
        "first": first,
        "second": second,
        "loss exponents": f"{-losses[0].value:.3f}, {-losses[1].value:.3f}",
        "equal within intervals": "yes" if overlap(*losses) else "no",
        "observables with opposite slopes": ", ".join(opposite) or "none",
    }


def _exponents_said(fits: "Mapping[str, Mapping[str, Fit]]") -> list[str]:
    told = [f"{task} {-slope(one).value:.3f} [{-slope(one).high:.3f}, {-slope(one).low:.3f}]" for task, one in fits["test_loss"].items()]
    ways = {1: "grows", -1: "falls", 0: "has no clear trend"}
    lines = [f"Test loss falls as a power of the training set's size with exponent {listed(told)}."] if told else []
    for name in OBSERVABLES:
        words = [f"{ways[sign(slope(one))]} for {task} ({slope(one).value:+.3f})" for task, one in fits[name].items()]
        lines += [f"The final kernel's {name.replace('_', ' ')} {listed(words)}."] if words else []
    return lines


def _pairs_said(pairs: list[dict[str, Any]]) -> list[str]:
    equal = [pair for pair in pairs if pair["equal within intervals"] == "yes"]
    opposite = [pair for pair in equal if pair["observables with opposite slopes"] != "none"]
    told = [f"{pair['first']} and {pair['second']} ({pair['observables with opposite slopes']})" for pair in opposite]
    claim = "the claim that equal scaling of the loss may hide opposite kernels"
    if opposite:
        return [
            f"Of {len(pairs)} pairs of tasks {len(equal)} have loss exponents that are equal within their intervals, and {len(opposite)} "
            f"of these have kernels that go opposite ways: {listed(told)}. This agrees with {claim}."
        ]
    return [
        f"Of {len(pairs)} pairs of tasks {len(equal)} have loss exponents that are equal within their intervals; in none of these do the "
        f"kernels go clearly opposite ways. This sweep does not show {claim}."
    ]


def _scaled(frame: "pl.DataFrame", fits: "Mapping[str, Fit]", x: str, y: str, name: str) -> Drawing:
    from orchestrator.figures.scaling import scaling

    ax = scaling(frame.drop_nulls(y), list(fits.values()), x=x, y=y, by=TASK)
    caption = "Dots: trainings. Lines: power laws with 95 % bands from whole seeds, dashed beyond the data."
    return Drawing(name=f"{name}-{y.replace('_', '-')}", ax=ax, caption=caption)


def _course(task: str, part: "pl.DataFrame") -> list[str]:
    """Whether entropy of the largest training set's kernels falls (compression) or rises (structure) from start to end."""
    import polars as pl

    largest = part.filter(pl.col("train_size") == pl.col("train_size").max()).drop_nulls("entropy")
    if largest["step"].n_unique() < 2:
        return []
    by = largest.group_by("step").agg(pl.col("entropy").median(), pl.col("trace").median()).sort("step")
    low, entropy, trace = by["entropy"].min(), by["entropy"].to_list(), by["trace"].to_list()
    back = f", after a least value of {low:.2f}" if isinstance(low, float) and low < min(entropy[0], entropy[-1]) - 0.05 else ""
    return [
        f"{task}: with the largest training set entropy goes from {entropy[0]:.2f} to {entropy[-1]:.2f} nats{back}, "
        f"the trace per row from {trace[0]:.3g} to {trace[-1]:.3g}."
    ]


# -- against the width ----------------------------------------------------------------------------------------------------------


def _changes_at_loss(frame: "pl.DataFrame") -> "tuple[pl.DataFrame, float]":
    """The relative kernel change of each training where its loss first falls to the least value that all of them reach."""
    import polars as pl

    axes = ["parameterisation", "width", "seed"]
    free = frame.filter(pl.col("frozen") == "none")
    losses = free.drop_nulls("train_loss").select(*axes, "step", "train_loss")
    kernels = free.drop_nulls("relative_kernel_change").select(*axes, "step", "relative_kernel_change")
    runs = losses.join(kernels, on=[*axes, "step"]).sort("step").partition_by(axes, as_dict=True)
    if not runs:
        raise ConfigError(f"{WIDTH} has no training yet with both losses and kernels")
    reached = max(float(min(run["train_loss"])) for run in runs.values())
    rows = []
    for values, run in runs.items():
        change = at_loss(run["train_loss"].to_list(), run["relative_kernel_change"].to_list(), reached)
        rows.append({**dict(zip(axes, values)), "relative_kernel_change": change})
    return pl.DataFrame(rows).drop_nans().sort(axes), reached


def _critical(part: "pl.DataFrame") -> CriticalWidth | None:
    by_width = dict(part.group_by("width").agg("relative_kernel_change").sort("width").iter_rows())
    return critical_width(by_width) if len(by_width) >= 4 else None


def _critical_said(found: Mapping[str, CriticalWidth | None], target: float) -> list[str]:
    lines = []
    for label, one in found.items():
        if one is None:
            continue
        start = f"{label}: at training loss {target:.3g} the kernel's change falls as width^{one.wide.slope:.2f}"
        if math.isnan(one.width):
            lines.append(f"{start} at all widths, none of which leaves that law.")
            continue
        side = "below" if one.deviation < 0 else "above"
        bound = " (a bound: fewer than three widths on one side)" if one.is_bound else ""
        lines.append(
            f"{start} in wide networks; {one.width:.0f} is the widest that leaves this law, {side} it{bound}, and up to there it goes as "
            f"width^{one.narrow.slope:.2f}."
        )
    return lines


def _limit_said(frame: "pl.DataFrame") -> list[str]:
    import polars as pl

    start = frame.filter((pl.col("step") == 0) & (pl.col("frozen") == "none")).drop_nulls("infinite_width_distance")
    fits = slopes(start, "width", "infinite_width_distance", "parameterisation")
    return [
        f"{label}: the kernel at initialisation tends to that of infinite width as width^{slope(one).text()} (theory: -1/2)."
        for label, one in fits.items()
    ]


def _lazy_said(frame: "pl.DataFrame") -> list[str]:
    """Feature learning's gain: test loss beside that of the linearised network, and from which width it is lost in the seeds."""
    import polars as pl

    rows = _gains(frame)
    if rows.is_empty():
        return []
    ends = [rows.filter(pl.col("width") == width).row(0, named=True) for width in (rows["width"].min(), rows["width"].max())]
    told = [f"{row['gain']:+.1%}{_plus_minus(row['error'], '.1%')} at width {row['width']}" for row in ends]
    return [f"Test loss of the network over that of the linearised one, less 1 (ntk): {listed(told)}."]


def _gains(frame: "pl.DataFrame") -> "pl.DataFrame":
    """By width: mean over seeds of ln(test loss / linearised test loss), and its standard error."""
    import polars as pl

    axes = ["parameterisation", "width", "seed"]
    ends = at_end(frame.filter(pl.col("workload") == "train"), ["test_loss"])
    lazy = ends.filter(pl.col("frozen") == "linearised").select(*axes, lazy="test_loss")
    both = ends.filter(pl.col("frozen") == "none").join(lazy, on=axes)
    ratio = (pl.col("test_loss") / pl.col("lazy")).log()
    return both.group_by("width").agg(gain=ratio.mean(), error=ratio.std() / pl.len().sqrt()).sort("width")


def _plus_minus(error: float | None, form: str) -> str:
    """Nothing for one seed."""
    return "" if error is None else f" ± {error:{form}}"


def _width_figures(changes: "pl.DataFrame", found: Mapping[str, CriticalWidth | None], target: float) -> list[Drawing]:
    from orchestrator.figures.critical_width import critical_widths

    ax = critical_widths(changes, {label: one for label, one in found.items() if one is not None})
    caption = (
        f"Relative change of the kernel since initialisation where the training loss has fallen to {target:.3g}. Dots: seeds. Lines: power "
        "laws of wide networks (solid) and narrow ones (dotted); the bar marks the critical width."
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
        ax = observables(rows, x="width", name="test_loss", by="training")
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
