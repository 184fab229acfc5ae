"""What all figures share: size, colours, legible logarithmic ticks, and writing them with their data."""

import contextlib
import math
import re
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

# Okabe and Ito (2008), with grey for the yellow that white paper swallows
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT = "#1f2328", "#d8dde3"
# one column of a two-column paper
COLUMN_INCHES = (3.5, 2.8)
# with the equation below the Axes
TALL_INCHES = (3.5, 3.4)
TALLER_INCHES = (3.5, 4.0)
# both columns
WIDE_INCHES = (7.0, 3.2)
# at most what the tick labels and the axis label take on the left
MARGIN_INCHES = 0.75
# of all tick labels of a horizontal axis together, with gaps
_TICK_LETTERS = 34
# of a legend, which then has one column
LONG_ENTRY = 22

LABELS = {
    "width": "width (units per layer)",
    "train_size": "training-set size (samples)",
    "num_params": "parameters",
    "n_params": "parameters",
    "tokens": "tokens seen",
    "tokens_seen": "tokens seen",
    "flops": "compute (FLOPs)",
    "compute": "compute (FLOPs)",
    "step": "training step (updates)",
    "test_loss": "test loss",
    "train_loss": "training loss",
    "test_accuracy": "test accuracy",
    "trace": "kernel trace per row",
    "entropy": "von Neumann entropy (nats)",
    "effective_rank": "effective rank (eigenvalues)",
    "rank": "eigenvalue rank",
    "eigenvalue": "eigenvalue",
}

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.title_fontsize": 7,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "eigensweep",
}
_data: "weakref.WeakKeyDictionary[Any, pl.DataFrame]" = weakref.WeakKeyDictionary()
_tips: "weakref.WeakKeyDictionary[Any, dict[str, list[str]]]" = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Our matplotlib settings, for the artists made inside."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def axes(ax: Any = None, inches: tuple[float, float] = COLUMN_INCHES) -> Any:
    """`ax`, or new Axes, of one paper column unless said otherwise, that need no display and no pyplot."""
    if ax is not None:
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def label(name: str) -> str:
    """The text for a column on an axis, with its unit where we know it."""
    if name.endswith("_traced"):
        quantity, bracket, unit = label(name.removesuffix("_traced")).partition(" (")
        return f"{quantity}, traced kernel{bracket}{unit}"
    return LABELS.get(name, name.rpartition(".")[2].replace("_", " "))


def subject(text: str) -> str:
    """A label without its unit."""
    return text.partition(" (")[0]


def title(ax: Any, text: str, *, margin: float = MARGIN_INCHES) -> None:
    """The finding, broken into lines that fit beside the tick labels, which take `margin` inches."""
    inches = line_inches(ax, margin)
    with styled():
        ax.set_title("\n".join(wrapped(text, inches, size=_RC["axes.titlesize"], weight=_RC["axes.titleweight"])), loc="left")


def line_inches(ax: Any, margin: float = MARGIN_INCHES) -> float:
    """What a line of text has from the left edge of `ax` to the right of its share of the figure."""
    grid = ax.get_subplotspec()
    columns = grid.get_gridspec().ncols if grid else 1
    # beside other Axes the layout leaves less
    return float(ax.figure.get_figwidth() / columns - margin - (0.3 if columns > 1 else 0.0))


def wrapped(text: str | Sequence[str], inches: float, *, size: float, weight: str = "normal", between: str = " ") -> list[str]:
    """`text`, or pieces of it, in lines of at most `inches`; mathematics between dollar signs stays in one piece."""
    lines = [""]
    for piece in text.split() if isinstance(text, str) else text:
        longer = f"{lines[-1]}{between}{piece}" if lines[-1] else piece
        if lines[-1] and text_inches(longer, size, weight) > inches:
            lines.append(piece)
        else:
            lines[-1] = longer
    return lines


def text_inches(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_RC["font.family"], size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, "$" in text)[0]) / 72


def note(ax: Any, text: str) -> None:
    """A remark in the middle of Axes that have nothing to show."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=8, color=INK)


def panels(ax: Any, heights: Sequence[float], columns: int, *, gap: float = 0.03) -> list[list[Any]]:
    """Rows of Axes inside `ax`, which itself keeps only the title, in the proportion of `heights`; `gap`: as a share of the whole."""
    ax.set_axis_off()
    width, unit = (1 - gap * (columns - 1)) / columns, (1 - gap * (len(heights) - 1)) / sum(heights)
    tops = [1 - sum(heights[:i]) * unit - i * gap for i in range(len(heights))]
    with styled():
        return [
            [ax.inset_axes([j * (width + gap), top - height * unit, width, height * unit]) for j in range(columns)]
            for top, height in zip(tops, heights, strict=True)
        ]


def colour_bar(ax: Any, values: Iterable[float], heading: str) -> Any:
    """A logarithmic colour bar beside `ax`; the function from value to colour."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    good = [float(value) for value in values]
    low, high = min(good), max(good)
    if low == high:
        low, high = low / 1.5, high * 1.5
    # the bright end of viridis is not legible on white
    shades = ListedColormap([colormaps["viridis"](0.85 * i / 255) for i in range(256)])
    mapping = ScalarMappable(LogNorm(low, high), shades)
    bar = ax.figure.colorbar(mapping, ax=ax, use_gridspec=False, pad=0.02, aspect=28)
    ticks = [tick for tick in _nice_ticks(low, high) if low * 0.999 <= tick <= high * 1.001]
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=7)
    bar.set_label(heading, fontsize=7.5)
    bar.outline.set_visible(False)
    return mapping.to_rgba


def colours(values: Sequence[Any]) -> dict[Any, str]:
    """A colour for each value: viridis for ordered numbers, Okabe-Ito for names."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if any(isinstance(value, str | bool | None) for value in values):
        return {value: CATEGORIES[i % len(CATEGORIES)] for i, value in enumerate(values)}
    last = max(len(values) - 1, 1)
    # the bright end of viridis is not legible on white
    return {value: to_hex(colormaps["viridis"](0.85 * i / last)) for i, value in enumerate(sorted(values))}


def markers(values: Sequence[Any]) -> dict[Any, str]:
    """A marker for each value, so that colour is not the only difference."""
    return {value: MARKERS[i % len(MARKERS)] for i, value in enumerate(values)}


def thinned(values: Iterable[Any], most: int = 8) -> list[Any]:
    """At most `most` of the sorted values, evenly by rank, with both ends."""
    ordered = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(ordered) <= most:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (most - 1))] for i in range(most)]


def log_axis(axis: Any, values: Iterable[float], *, exact: bool = False) -> None:
    """A logarithmic axis over `values` with plain numbers; `exact`: a tick at each value where they are few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    good = sorted({float(value) for value in values if value is not None and math.isfinite(value) and value > 0})
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    if not good:
        return
    ticks = good if exact and _apart(good) else _nice_ticks(good[0], good[-1])
    if axis.axis_name == "x" and ticks is not good:
        ticks = _room_for(ticks, good[0], good[-1])
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _apart(values: list[float]) -> bool:
    """Whether a label fits at each value."""
    if len(values) > 9 or len(values) < 2:
        return len(values) == 1
    span, letters = math.log(values[-1] / values[0]), [len(number(value)) for value in values]
    room = [_TICK_LETTERS * math.log(b / a) / span for a, b in zip(values, values[1:], strict=False)]
    return all(own > max(0.09 * _TICK_LETTERS, (first + second) / 2 + 0.5) for own, first, second in zip(room, letters, letters[1:]))


def _nice_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that cover the range: powers of ten, or 1-2-5, or even steps within a short range."""
    from matplotlib.ticker import MaxNLocator

    decades = math.log10(high / low) if high > low else 0.0
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if 0.3 <= decades < 0.9:
        return [factor * 10.0**power for power in powers for factor in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    if decades < 0.3:
        return [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low * 0.97, high * 1.03) if tick > 0]
    if decades < 2.6:
        return [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    stride = math.ceil(decades / 6)
    return [10.0**power for power in powers if power % stride == 0]


def _room_for(ticks: list[float], low: float, high: float) -> list[float]:
    """`ticks`, or fewer where their labels would touch on a column's width."""

    def letters(some: Sequence[float]) -> int:
        inside = [tick for tick in some if low * 0.9 <= tick <= high * 1.1]
        return sum(2 + len(re.sub(r"[${}^]", "", number(tick))) for tick in inside)

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [ticks, [factor * 10.0**power for power in powers for factor in (1, 3)], [10.0**power for power in powers]]
    return next((one for one in choices if letters(one) <= _TICK_LETTERS), ticks[::2])


def limit(axis: Any, values: Iterable[float], margin: float = 0.05) -> None:
    """The range of a logarithmic axis: that of `values`, and a share of its decades beside."""
    good = [float(value) for value in values if math.isfinite(value) and value > 0]
    if not good:
        return
    beside = max((max(good) / min(good)) ** margin, 1.002)
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(min(good) / beside, max(good) * beside)


def said(name: Any) -> str:
    """The value of a group in words: a text without underscores, or a number."""
    return name.replace("_", " ") if isinstance(name, str) else number(float(name))


def number(value: float) -> str:
    """A short plain number: 0.05, 64, 20k, 3M, or a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.6g}"
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if factor <= abs(value) < 1000 * factor:
            return f"{value / factor:.4g}{suffix}"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    lead = value / 10.0**power
    exponent = f"10$^{{{power}}}$"
    return exponent if abs(lead - 1) < 1e-6 else f"{lead:.2g}·{exponent}"


def legend(ax: Any, heading: str = "", *, below: bool = False) -> None:
    """One legend: below the Axes where its entries are long, inside where they are few, else beside."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    if below:
        columns = 1 if max(map(len, labels)) > LONG_ENTRY else min(2, len(handles))
        ax.legend(title=heading or None, loc="upper center", bbox_to_anchor=(0.5, -0.2), handletextpad=0.5, ncols=columns)
    elif len(handles) > 4:
        ax.legend(title=heading or None, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.3, alignment="left")
    else:
        ax.legend(title=heading or None, loc="best", handlelength=1.3, alignment="left")


def remember(ax: Any, frame: "pl.DataFrame") -> None:
    """Keep the data drawn in `ax`, for `save`."""
    _data[ax] = frame


def median(values: Any) -> float:
    """The median of a column of numbers, NaN of none."""
    found = values.median()
    return math.nan if found is None else float(found)


def data(ax: Any) -> "pl.DataFrame":
    """The data drawn in `ax`."""
    import polars as pl

    return _data.get(ax, pl.DataFrame())


def tips(ax: Any, scatter: Any, texts: Sequence[str]) -> None:
    """Texts that `svg` shows when the pointer is over the points of a scatter."""
    known = _tips.setdefault(ax.figure, {})
    scatter.set_gid(f"tips-{len(known)}")
    known[scatter.get_gid()] = list(texts)


def save(ax: Any, path: str | Path) -> list[Path]:
    """Write the figure of `ax` as PNG and PDF and its data as CSV beside it; `path` with any suffix or none."""
    stem = Path(path).with_suffix("") if Path(path).suffix in (".png", ".pdf", ".csv") else Path(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf", "csv")]
    layout = ax.figure.get_layout_engine()
    with styled():
        ax.figure.savefig(written[0], dpi=250, format="png", metadata={"Software": "eigensweep"})
        # laid out once is enough
        ax.figure.set_layout_engine("none")
        ax.figure.savefig(written[1], format="pdf", metadata={"CreationDate": None})
    ax.figure.set_layout_engine(layout)
    data(ax).write_csv(written[2])
    return written


def svg(ax: Any, prefix: str) -> str:
    """The figure of `ax` as an inline SVG element whose ids begin with `prefix` and whose points carry `data-tip` texts."""
    import io

    file = io.StringIO()
    with styled():
        ax.figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for gid, texts in _tips.get(ax.figure, {}).items():
        text = _with_tips(text, gid, texts)
    for pattern in (r'(\bid=")', r'(href="#)', r"(url\(#)"):
        text = re.sub(pattern, rf"\g<1>{prefix}-", text)
    return text


def _with_tips(text: str, gid: str, texts: Sequence[str]) -> str:
    """`text` with the i-th marker of the group `gid` carrying the i-th tip; unchanged where their number differs."""
    from html import escape

    start = text.find(f'<g id="{gid}">')
    # the group holds its markers as <use> elements and ends before the next group with an id
    end = text.find('<g id="', start + 1)
    group = text[start:end]
    if start < 0 or group.count("<use ") != len(texts):
        return text
    rest = iter(texts)
    marked = re.sub("<use ", lambda _: f'<use tabindex="0" data-tip="{escape(next(rest), quote=True)}" ', group)
    return text[:start] + marked + text[end:]
