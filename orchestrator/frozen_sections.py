"""Sections of the study of spectral reach: feature learning beside the frozen modes (D9)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.reaches import courses
from orchestrator.study import Section, Table
from orchestrator.study_tables import at_end, by_step, listed, need

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

FROZEN, KERNEL = "spectral_reach_frozen", "spectral_reach_kernel"


def frozen_modes(results: Mapping[str, "Results"]) -> Section:
    """Feature learning beside training in which the kernel stands still."""
    import polars as pl

    from orchestrator.figures.curves import curves

    found = courses(need(results, FROZEN))
    windows = found.windows.sort("step")
    first = pl.col("probe_chi_net").drop_nulls().first().over("key")
    windows = windows.with_columns(amplification=pl.col("probe_chi_net") / first)
    runs = _beside_free(found.runs, windows)
    drawings = []
    for (parameterisation,), part in sorted(windows.partition_by(["parameterisation"], as_dict=True).items()):
        widest = max(part["width"].to_list())
        own = part.filter((pl.col("frozen_at") == 0) & (pl.col("width") == widest))
        for name, label in (("batch_loss", "training loss (nats)"), ("amplification", "sensitivity over its first value")):
            title = "Loss by mode" if name == "batch_loss" else "Amplification of the network's sensitivity"
            ax = curves(own, x="step", y=name, by="frozen", title=f"{title}, {parameterisation}, width {widest}", y_label=label)
            drawings.append(Drawing(name=f"frozen-{name.replace('_', '-')}-{parameterisation}", ax=ax, caption=_of_mode(name)))
    return Section(
        title="Feature learning against frozen modes",
        findings=_frozen_said(runs),
        drawings=drawings,
        tables=[Table(name="frozen", heading="Modes", rows=_frozen_rows(runs))],
    )


def kernel_modes(results: Mapping[str, "Results"]) -> Section:
    """The network beside descent by its kernel of a time: how much of what it learns the kernel of that time could have learned."""
    import polars as pl

    from orchestrator.figures.observables import observables

    frame = by_step(need(results, KERNEL), ("test_loss",)).filter(pl.col("status") != "diverged")
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


PAIR = ("parameterisation", "width", "seed")


def _beside_free(runs: "pl.DataFrame", windows: "pl.DataFrame") -> "pl.DataFrame":
    """With `over_free`, the test loss less that of feature learning at the same parameterisation, width and seed.

    And with `amplification` at the end, and `moved`, the largest sensitivity over the smallest, less 1.
    """
    import polars as pl

    sensitivity = pl.col("amplification")
    grown = windows.group_by("key").agg(sensitivity.drop_nulls().last(), moved=sensitivity.max() / sensitivity.min() - 1)
    free = runs.filter(pl.col("frozen") == "none").select(*PAIR, free="test_loss")
    joined = runs.join(free, on=list(PAIR), how="left").join(grown, on="key", how="left")
    return joined.with_columns(over_free=pl.col("test_loss") - pl.col("free"))


def _frozen_rows(runs: "pl.DataFrame") -> list[dict[str, Any]]:
    """One a mode and width, the means over seeds."""
    import polars as pl

    by = ["parameterisation", "width", "frozen", "frozen_at"]
    known = runs.drop_nulls("amplification")
    rows = known.group_by(by).agg(pl.col("test_loss", "over_free", "amplification").mean(), pl.col("moved").max(), runs=pl.len())
    return [
        {
            "parameterisation": row["parameterisation"],
            "width": row["width"],
            "mode": row["frozen"],
            "frozen at": row["frozen_at"],
            "test loss": (f"{row['test_loss']:.4f}", row["test_loss"]),
            "over feature learning": (f"{row['over_free']:+.4f}", row["over_free"]),
            "chi_net, end over start": (f"{row['amplification']:.4g}", row["amplification"]),
            "chi_net, span": (f"{row['moved']:.1e}", row["moved"]),
            "runs": row["runs"],
        }
        for row in rows.sort(by).iter_rows(named=True)
    ]


def _frozen_said(runs: "pl.DataFrame") -> list[str]:
    """Feature learning beside the best mode that is frozen from the start, in pairs of one width and seed."""
    import polars as pl

    lines = []
    still = runs.filter(pl.col("frozen").is_in(["none", "lazy"]).not_() & (pl.col("frozen_at") == 0))
    best = still.sort("test_loss").unique(list(PAIR), keep="first", maintain_order=True).drop_nulls("over_free")
    for (parameterisation,), part in sorted(best.partition_by(["parameterisation"], as_dict=True).items()):
        moved = still.filter(pl.col("parameterisation") == parameterisation)["moved"].drop_nulls().to_list()
        ahead, num = int((part["over_free"] > 0).sum()), len(part)
        modes = listed(sorted(set(part["frozen"])))
        agrees = "agrees with" if ahead == num else "contradicts" if not ahead else "neither shows nor contradicts"
        few = " One pair says little." if num == 1 else ""
        lead = f"by {float(part['over_free'].to_numpy().mean()):.4f} on average"
        lines.append(
            f"{parameterisation}: feature learning ends at a lower test loss than the best of the frozen modes ({modes}) in {ahead} of "
            f"{num} {'pair' if num == 1 else 'pairs'} of one width and seed, {lead}, and the sensitivity of a frozen kernel is constant to "
            f"{max(moved, default=0.0):.0e}. This {agrees} the claim that feature learning goes on where frozen kernels stall.{few}"
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
