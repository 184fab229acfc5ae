"""Sections of the study of spectral reach: feature learning beside the frozen modes (D9)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.reaches import courses
from orchestrator.study import Section, Table
from orchestrator.study_tables import at_end, by_step, labelled, listed, need

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

FROZEN, KERNEL = "spectral_reach_frozen", "spectral_reach_kernel"
MODES = ("frozen", "frozen_at", "parameterisation")


def frozen_modes(results: Mapping[str, "Results"]) -> Section:
    """Feature learning beside training in which the kernel stands still."""
    import polars as pl

    from orchestrator.figures.curves import curves

    found = courses(need(results, FROZEN))
    names = [name for name in MODES if name in found.windows.columns]
    windows = labelled(found.windows, names, "mode").sort("step")
    first = pl.col("probe_chi_net").drop_nulls().first().over("key")
    windows = windows.with_columns(amplification=pl.col("probe_chi_net") / first)
    rows = _frozen_rows(labelled(found.runs, names, "mode"), windows)
    drawings = []
    for (parameterisation,), part in sorted(windows.partition_by(["parameterisation"], as_dict=True).items()):
        own = part.filter(pl.col("frozen_at") == 0) if "frozen_at" in part.columns else part
        for name, label in (("batch_loss", "training loss (nats)"), ("amplification", "sensitivity over its first value")):
            title = "Loss by mode" if name == "batch_loss" else "Amplification of the network's sensitivity"
            ax = curves(own, x="step", y=name, by="frozen", title=f"{title}, {parameterisation}", y_label=label)
            drawings.append(Drawing(name=f"frozen-{name.replace('_', '-')}-{parameterisation}", ax=ax, caption=_of_mode(name)))
    return Section(
        title="Feature learning against frozen modes",
        findings=_frozen_said(rows),
        drawings=drawings,
        tables=[Table(name="frozen", heading="Modes", rows=rows)],
    )


def kernel_modes(results: Mapping[str, "Results"]) -> Section:
    """The network beside descent by its kernel of a time: how much of what it learns the kernel of that time could have learned."""
    import polars as pl

    from orchestrator.figures.observables import observables

    frame = by_step(need(results, KERNEL), ("test_loss",))
    ends = at_end(frame, ["test_loss"]).with_columns(mode=pl.col("snapshot").fill_null("network")).drop_nulls("test_loss")
    drawings = []
    for (parameterisation,), part in sorted(ends.partition_by(["parameterisation"], as_dict=True).items()):
        rows = part.select("width", "mode", value="test_loss")
        ax = observables(rows, x="width", name="test_loss", by="mode", title=f"Network and its kernels, {parameterisation}")
        caption = "Test loss at the end; the kernel of initialisation or of a step goes on in place of the network. Dots are seeds."
        drawings.append(Drawing(name=f"kernel-modes-{parameterisation}", ax=ax, caption=caption))
    means = ends.group_by("parameterisation", "width", "mode").agg(pl.col("test_loss").mean()).sort("parameterisation", "width", "mode")
    return Section(
        title="The kernel of a time in place of the network (kernel@t)",
        findings=_kernel_said(means),
        drawings=drawings,
        tables=[Table(name="kernel-modes", heading="Mean test loss", rows=means.to_dicts())],
    )


def _of_mode(name: str) -> str:
    if name == "batch_loss":
        return "Mean loss of the batches of each window; modes that are frozen from the first step."
    return "chi_net on a fixed probe set over its value at the start; of a frozen kernel it is constant."


def _frozen_rows(runs: "pl.DataFrame", windows: "pl.DataFrame") -> list[dict[str, Any]]:
    import polars as pl

    grown = (
        windows.drop_nulls("amplification")
        .group_by("key")
        .agg(amplification=pl.col("amplification").last(), least=pl.col("amplification").min(), most=pl.col("amplification").max())
    )
    rows = runs.join(grown, on="key", how="left").sort("parameterisation", "frozen", "frozen_at")
    return [
        {
            "parameterisation": row["parameterisation"],
            "mode": row["frozen"],
            "frozen at": row["frozen_at"],
            "test loss": (f"{row['test_loss']:.4f}", row["test_loss"]),
            "chi_net at the end over start": (f"{row['amplification']:.4g}", row["amplification"]),
            "largest over smallest chi_net, less 1": (f"{row['most'] / row['least'] - 1:.1e}", row["most"] / row["least"] - 1),
        }
        for row in rows.iter_rows(named=True)
        if row["amplification"] is not None
    ]


def _frozen_said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for parameterisation in sorted({row["parameterisation"] for row in rows}):
        own = [row for row in rows if row["parameterisation"] == parameterisation]
        free = [row for row in own if row["mode"] == "none"]
        still = [row for row in own if row["mode"] not in ("none", "lazy") and row["frozen at"] == 0]
        if not free or not still:
            continue
        best = min(still, key=lambda row: row["test loss"][1])
        worst = max(row["largest over smallest chi_net, less 1"][1] for row in still)
        lower = free[0]["test loss"][1] < best["test loss"][1]
        lines.append(
            f"{parameterisation}: with feature learning the test loss ends at {free[0]['test loss'][0]} and the sensitivity at "
            f"{free[0]['chi_net at the end over start'][0]} times its start; the best of the frozen modes ({best['mode']}) ends at "
            f"{best['test loss'][0]}, with a sensitivity that is constant to {worst:.0e}. This "
            f"{'agrees with' if lower else 'contradicts'} the claim that frozen representations stall where feature learning goes on."
        )
    return lines


def _kernel_said(means: "pl.DataFrame") -> list[str]:
    """Of the widest network: its loss, and those of its kernels in the order of their times."""
    import polars as pl

    lines = []
    for (parameterisation,), part in sorted(means.partition_by(["parameterisation"], as_dict=True).items()):
        widest_of = max(part["width"].to_list())
        widest = dict(part.filter(pl.col("width") == widest_of).select("mode", "test_loss").iter_rows())
        if "network" not in widest or len(widest) < 2:
            continue
        modes = sorted((mode for mode in widest if mode != "network"), key=lambda mode: 0 if mode == "init" else int(mode))
        told = [f"{widest[mode]:.4f} by the kernel of {'initialisation' if mode == 'init' else f'step {mode}'}" for mode in modes]
        lines.append(f"{parameterisation}, width {widest_of}: test loss {widest['network']:.4f} by the network, {listed(told)}.")
    return lines
