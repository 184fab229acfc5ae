"""What the cost model says for kernels on GPUs, which nobody has measured, and a figure of it beside what was measured on cores."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import short, table
from orchestrator.figures import style
from orchestrator.figures.style import CATEGORIES, MARKERS
from workers.models.cnn import Cnn
from workers.sharded import cost, memory
from workers.sharded.engines import Question
from workers.sharded.panels import Panels
from workers.workload import Resources

GIB = 2**30
MODEL, SHAPE, NUM_CLASSES = Cnn(width=64, depth=3), (3, 32, 32), 10
QUESTION = Question(num_eigenvalues=100, num_vectors=100)
PANEL_ROWS, GPUS_OF_A_NODE, GPU_GIB = 20_000, 8, 80
# of an H100's dense eigensolver, on paper: cuSOLVERMp's figure for 8 GPUs, taken to scale ideally
DENSE_FLOPS = 4.7e12 / 8


def resources(gpus: int) -> Resources:
    """Nodes of eight GPUs, or one of fewer."""
    return Resources(nodes=max(1, gpus // GPUS_OF_A_NODE), gpus=min(gpus, GPUS_OF_A_NODE), memory_gib=1e6)


def hours(rows: int, gpus: int) -> tuple[float, float, float]:
    """Of clock: the tiles, the largest eigenvalues with the entropy, and all eigenvalues by a dense solver."""
    panels, layers, given = Panels(rows, min(rows, PANEL_ROWS)), MODEL.layers(SHAPE, NUM_CLASSES), resources(gpus)
    tiles = cost.gram_parts(cost.gram_work(layers, "full", panels), panels, "float32", cost.Ranks.of(given), cost.GPU)
    largest = cost.eigenvalues_parts("lanczos", QUESTION, panels, "float32", given)
    found = (cost.seconds(parts, panels, gpus, cost.GPU) for parts in (tiles, largest))
    return (*(seconds / 3600 for seconds in found), 4 / 3 * rows**3 / DENSE_FLOPS / gpus / 3600)  # type: ignore[return-value]


def on_paper() -> None:
    """Print what the page has."""
    head = [
        "",
        "kernel, memory there is",
        "disk",
        "operations",
        "tiles",
        "100 largest, entropy",
        "all, dense",
        "network",
        "first node holds",
    ]
    table(head, [_case(size, gpus) for size, gpus in ((100_000, 1), (100_000, 8), (1_000_000, 64))])


def _case(size: int, gpus: int) -> list[str]:
    panels, given, layers = Panels(size, PANEL_ROWS), resources(gpus), MODEL.layers(SHAPE, NUM_CLASSES)
    parts = cost.eigenvalues_parts("lanczos", QUESTION, panels, "float32", given)
    return [
        f"{size:,} rows, {gpus} GPU{'s' if gpus > 1 else ''}",
        f"{4 * size**2 / GIB:,.0f} of {gpus * GPU_GIB:,} GiB",
        f"{cost.tile_bytes(panels, 'float32') / 1e9:,.0f} GB",
        f"{cost.gram_work(layers, 'full', panels).flops / 1e15:,.0f} PFLOP",
        *(f"{short(60 * one)} min" if one < 1 else f"{short(one)} h" for one in hours(size, gpus)),
        f"{sum(part.sent_bytes for part in parts) / 1e9:,.0f} GB",
        f"{memory.engine_gib('lanczos', QUESTION, panels, 'float32', given):,.0f} GiB",
    ]


def draw(figures: Sequence[object], path: Path) -> None:
    """Predicted beside measured on the left, hours against rows on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.styled():
        figure = Figure(figsize=style.WIDE_INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _measured(left, figures)
        _paper(right)
        figure.savefig(path, dpi=200, metadata={"Software": "eigensweep"})


def _measured(ax: object, figures: Sequence[object]) -> None:
    kinds = {"s of a core": "processor (s)", "MB": "bytes (MB)", "GiB": "memory (GiB)", "": "products of the kernel"}
    for index, (unit, text) in enumerate(kinds.items()):
        some = [one for one in figures if one.unit == unit]
        ax.plot(
            [one.measured for one in some],
            [one.predicted for one in some],
            MARKERS[index],
            color=CATEGORIES[index],
            ms=4,
            label=text,
            ls="",
        )
    span = [0.05, 1e4]
    ax.fill_between(span, [0.5 * one for one in span], [2 * one for one in span], color=style.FAINT, lw=0)
    ax.plot(span, span, color=style.INK, lw=0.7)
    ax.set(
        xscale="log", yscale="log", xlim=span, ylim=span, xlabel="measured", ylabel="predicted", title="Model and measurement, 1 to 4 nodes"
    )
    ax.legend()


def _paper(ax: object) -> None:
    sizes = [int(10**4 * 10 ** (step / 8)) for step in range(17)]
    for index, gpus in enumerate((1, 8, 64)):
        fits = [size for size in sizes if 4 * size**2 < gpus * GPU_GIB * GIB]
        times = [hours(size, gpus) for size in fits]
        for row, dashes in enumerate(("-", "--", ":")):
            ax.plot(
                fits,
                [one[row] for one in times],
                dashes,
                color=CATEGORIES[index],
                label=f"{gpus} GPU{'s' * (gpus > 1)}" if not row else None,
            )
    for dashes, text in zip(("-", "--", ":"), ("tiles", "100 largest, entropy", "all, dense solver")):
        ax.plot([], [], dashes, color=style.INK, label=text)
    ax.set(
        xscale="log", yscale="log", ylim=(1e-3, 30), xlabel="rows of the kernel", ylabel="hours", title="The model for H100s, not measured"
    )
    ax.legend(ncols=2)
