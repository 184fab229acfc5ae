"""A swarm in motion: one HTML file without any request, with a play button, a slider, a clock and a bar of length; or a GIF."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Scene", "animation", "gif", "html", "scene"]

MOST_FRAMES = 600
# below which a course would be shown in jumps
FEW_FRAMES = 60
# Okabe and Ito (2008), as in figures.style
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
# what a robot is drawn with at least, as a share of the picture's width
_LEAST = 0.006


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is drawn. `agents`: a list a frame of x, y, angle of each agent in turn (um, rad); `rod`: an angle a frame, or nothing.

    `axes`: semi-axes of a robot along and across its director; `half_width` of the square that is shown, about the origin (um).
    """

    title: str
    seconds: list[float]
    agents: list[list[float]]
    rod: list[float]
    rod_length: float
    rod_width: float
    axes: tuple[float, float]
    source: tuple[float, float] | None
    half_width: float

    @property
    def enlarged(self) -> float:
        """How many times a robot is drawn larger than it is, so that it is seen: 1 where that is not needed."""
        return max(1.0, _LEAST * 2 * self.half_width / min(self.axes))

    @property
    def bar(self) -> float:
        """A round length, at most a third of the picture (um)."""
        most = 2 * self.half_width / 3
        power = 10.0 ** math.floor(math.log10(most))
        return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= most * (1 + 1e-9))

    def plain(self) -> dict[str, Any]:
        """As the page reads it."""
        return {
            "seconds": self.seconds,
            "agents": self.agents,
            "rod": self.rod,
            "rodLength": self.rod_length,
            "rodWidth": self.rod_width,
            "axes": [one * self.enlarged for one in self.axes],
            "source": self.source,
            "half": self.half_width,
            "bar": self.bar,
            "colours": _COLOURS,
        }


def scene(
    positions: "pl.DataFrame",
    frames: "pl.DataFrame",
    *,
    radius: float,
    aspect: float = 1.0,
    source: tuple[float, float] | None = (0.0, 0.0),
    rod_length: float = 100.0,
    rod_width: float = 1.7,
    title: str = "",
    most_frames: int = MOST_FRAMES,
) -> Scene:
    """Of one run. `positions`: frame, agent, x, y, angle; `frames`: frame, seconds, rod_angle (NaN without a rod); `aspect`: of robots of
    the volume of a sphere of `radius`. At most about `most_frames`, evenly chosen. ConfigError where an agent lacks in a frame."""
    import polars as pl

    known = sorted(set(positions["frame"]) & set(frames["frame"]))
    if not known:
        raise ConfigError("no frame has both positions and a time; an animation needs the tables positions and frames of one run")
    even = _even(known)
    chosen = even[:: math.ceil(len(even) / most_frames)]
    shown = positions.filter(pl.col("frame").is_in(chosen)).sort("frame", "agent")
    num_agents = shown["agent"].n_unique()
    if len(shown) != num_agents * len(chosen):
        raise ConfigError(f"{len(shown)} positions are not those of {num_agents} agents in {len(chosen)} frames; give the rows of one run")
    values = shown.select("x", "y", "angle").to_numpy().reshape(len(chosen), -1)
    times = frames.filter(pl.col("frame").is_in(chosen)).sort("frame")
    has_rod = "rod_angle" in times.columns and bool(times["rod_angle"].is_finite().all())
    reach = max(float(shown.select(pl.max_horizontal(pl.col("x").abs().max(), pl.col("y").abs().max())).item()), radius)
    across = radius * aspect ** (-1 / 3)
    return Scene(
        title=title,
        seconds=[round(float(one), 3) for one in times["seconds"]],
        agents=[[round(float(one), 2) for one in row] for row in values],
        rod=[round(float(one), 4) for one in times["rod_angle"]] if has_rod else [],
        rod_length=rod_length,
        rod_width=rod_width,
        axes=(aspect * across, across),
        source=None if has_rod else source,
        half_width=1.08 * (max(reach, rod_length / 2) if has_rod else reach),
    )


def _even(known: list[int]) -> list[int]:
    """Frames at equal steps: where the first are closer together, those at the step of all, or the first if that leaves few."""
    steps = [b - a for a, b in itertools.pairwise(known)]
    wide = max(steps, default=1)
    coarse = [frame for frame in known if (frame - known[0]) % wide == 0]
    if len(coarse) >= min(FEW_FRAMES, len(known)):
        return coarse
    dense = next((place for place, step in enumerate(steps) if step != steps[0]), len(steps))
    return known[: dense + 1]


def animation(positions: "pl.DataFrame", frames: "pl.DataFrame", path: Path, **options: Any) -> Path:
    """Write the HTML file; `options`: those of `scene`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html(scene(positions, frames, **options)), encoding="utf-8")
    return path


def html(shown: Scene) -> str:
    """The whole document; its policy forbids every request."""
    data = json.dumps(shown.plain(), separators=(",", ":")).replace("</", "<\\/")
    note = "; the star is the source." if shown.source else "."
    note += "" if shown.enlarged == 1.0 else f" Robots are drawn {shown.enlarged:.1f} times as large as they are."
    return Template(_PAGE).substitute(title=escape(shown.title or "swarm"), data=data, last=len(shown.seconds) - 1, note=escape(note))


def gif(shown: Scene, path: Path, *, frames_per_second: int = 20, inches: float = 4.0) -> Path:
    """Write a GIF by matplotlib's PillowWriter."""
    from matplotlib.animation import PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(inches, inches))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    writer = PillowWriter(fps=frames_per_second)
    with writer.saving(figure, str(path), dpi=100):
        for number in range(len(shown.seconds)):
            _draw(ax, shown, number)
            writer.grab_frame()
    return path


def _draw(ax: Any, shown: Scene, number: int) -> None:
    """One frame into Axes that are cleared."""
    from matplotlib.patches import Ellipse

    ax.clear()
    half = shown.half_width
    ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    if shown.source is not None:
        ax.plot(*shown.source, marker="*", color="#1f2328", markersize=11)
    if shown.rod:
        x, y = (0.5 * shown.rod_length * one for one in (math.cos(shown.rod[number]), math.sin(shown.rod[number])))
        ax.plot([-x, x], [-y, y], color="#1f2328", linewidth=max(1.5, shown.rod_width / (2 * half) * 72 * 4), solid_capstyle="round")
    along, across = (one * shown.enlarged for one in shown.axes)
    for place, (x, y, angle) in enumerate(_triples(shown.agents[number])):
        colour = _COLOURS[place % len(_COLOURS)]
        ax.add_patch(Ellipse((x, y), 2 * along, 2 * across, angle=math.degrees(angle), facecolor=colour, edgecolor="white", linewidth=0.4))
        reach = 1.8 * along
        ax.plot([x, x + reach * math.cos(angle)], [y, y + reach * math.sin(angle)], color=colour, linewidth=1.2)
    ax.plot([-0.92 * half, -0.92 * half + shown.bar], [-0.92 * half] * 2, color="#1f2328", linewidth=2.5, solid_capstyle="butt")
    ax.text(-0.92 * half + shown.bar / 2, -0.89 * half, f"{shown.bar:g} µm", ha="center", va="bottom", fontsize=9)
    ax.text(0.96 * half, -0.92 * half, f"{shown.seconds[number]:.0f} s", ha="right", va="bottom", fontsize=10)
    ax.text(-0.94 * half, 0.93 * half, shown.title, ha="left", va="top", fontsize=9)


def _triples(row: list[float]) -> Iterator[tuple[float, float, float]]:
    for place in range(0, len(row), 3):
        yield row[place], row[place + 1], row[place + 2]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title><style>
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --page: #f6f8fa; --line: #d1d9e0; --accent: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9198a1; --page: #0d1117; --line: #3d444d; --accent: #56b4e9 } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 760px; margin: 0 auto; padding: 20px 16px 40px }
h1 { font-size: 19px; margin: 0 0 10px }
canvas { display: block; width: 100%; aspect-ratio: 1; background: #fff; border: 1px solid var(--line); border-radius: 8px }
.controls { display: flex; gap: 12px; align-items: center; margin: 10px 0; flex-wrap: wrap }
button, select { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 6px }
button, select { padding: 3px 12px }
button { min-width: 5.5em; cursor: pointer } option { color: #000 }
input[type=range] { flex: 1; min-width: 160px; accent-color: var(--accent) }
output { min-width: 6em; text-align: right; font-variant-numeric: tabular-nums }
p { color: var(--faint); font-size: 13px; margin: 6px 0 }
</style></head><body><main><h1>$title</h1>
<canvas id="picture" width="1440" height="1440" role="img" aria-label="Positions and headings of the robots"></canvas>
<div class="controls"><button id="play" type="button">Play</button>
<input id="time" type="range" min="0" max="$last" value="0" step="1" aria-label="time">
<label>speed <select id="speed"><option value="0.25">1/4</option><option value="1" selected>1</option><option value="4">4</option>
</select></label><label><input id="trails" type="checkbox" checked> trails</label><output id="clock"></output></div>
<p>A line from each robot shows its heading$note Space plays and pauses; the arrow keys step.</p></main>
<script type="application/json" id="data">$data</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);
const canvas = by("picture"), pen = canvas.getContext("2d"), last = data.seconds.length - 1;
const scale = canvas.width / (2 * data.half), ink = "#1f2328", trail = 40;
const px = x => canvas.width / 2 + x * scale, py = y => canvas.height / 2 - y * scale;
let now = 0, playing = false, before = 0;
const line = (x0, y0, x1, y1, width, colour) => {
  pen.lineWidth = width; pen.strokeStyle = colour; pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke();
};
const between = (a, b, share) => a + (b - a) * share;
// the short way round
const turned = (a, b, share) => a + Math.atan2(Math.sin(b - a), Math.cos(b - a)) * share;
function star(x, y, size) {
  pen.fillStyle = ink; pen.beginPath();
  for (let i = 0; i < 10; i++) {
    const reach = i % 2 ? 0.42 * size : size, angle = Math.PI / 2 + i * Math.PI / 5;
    pen.lineTo(px(x) + reach * Math.cos(angle), py(y) - reach * Math.sin(angle));
  }
  pen.closePath(); pen.fill();
}
function robot(x, y, angle, colour) {
  const along = data.axes[0] * scale, across = data.axes[1] * scale;
  pen.fillStyle = colour; pen.beginPath(); pen.ellipse(px(x), py(y), along, across, -angle, 0, 2 * Math.PI); pen.fill();
  const reach = 1.8 * along;
  line(px(x), py(y), px(x) + reach * Math.cos(angle), py(y) - reach * Math.sin(angle), Math.max(2.5, 0.25 * across), colour);
}
function draw() {
  const at = Math.min(Math.floor(now), last), next = Math.min(at + 1, last), share = now - at;
  pen.fillStyle = "#fff"; pen.fillRect(0, 0, canvas.width, canvas.height); pen.lineCap = "round";
  if (data.rod.length) {
    const angle = turned(data.rod[at], data.rod[next], share), half = data.rodLength / 2;
    line(px(-half * Math.cos(angle)), py(-half * Math.sin(angle)), px(half * Math.cos(angle)), py(half * Math.sin(angle)),
      Math.max(5, data.rodWidth * scale), ink);
  }
  const one = data.agents[at], other = data.agents[next];
  for (let i = 0; i < one.length; i += 3) {
    const colour = data.colours[(i / 3) % data.colours.length];
    const x = between(one[i], other[i], share), y = between(one[i + 1], other[i + 1], share);
    if (by("trails").checked) {
      pen.globalAlpha = 0.35; pen.lineWidth = 2.5; pen.strokeStyle = colour; pen.beginPath();
      for (let k = Math.max(0, at - trail); k <= at; k++) pen.lineTo(px(data.agents[k][i]), py(data.agents[k][i + 1]));
      pen.lineTo(px(x), py(y)); pen.stroke(); pen.globalAlpha = 1;
    }
    robot(x, y, turned(one[i + 2], other[i + 2], share), colour);
  }
  if (data.source) star(data.source[0], data.source[1], 22);
  const left = 50, low = canvas.height - 50, wide = data.bar * scale;
  pen.lineCap = "butt"; line(left, low, left + wide, low, 7, ink);
  pen.fillStyle = ink; pen.font = "30px sans-serif"; pen.textAlign = "center";
  pen.fillText(data.bar + " \\u00b5m", left + wide / 2, low - 16);
  by("clock").textContent = between(data.seconds[at], data.seconds[next], share).toFixed(1) + " s";
  by("time").value = at;
}
function tick(stamp) {
  if (!playing) return;
  now += Math.min(stamp - before, 100) / 1000 * 20 * by("speed").value; before = stamp;
  if (now >= last) { now = last; pause(); }
  draw();
  if (playing) requestAnimationFrame(tick);
}
function pause() { playing = false; by("play").textContent = "Play"; }
function play() {
  if (now >= last) now = 0;
  playing = true; by("play").textContent = "Pause"; before = performance.now(); requestAnimationFrame(tick);
}
const toggle = () => playing ? pause() : play();
by("play").addEventListener("click", toggle);
by("time").addEventListener("input", event => { pause(); now = +event.target.value; draw(); });
by("trails").addEventListener("change", draw);
document.addEventListener("keydown", event => {
  if (event.target.matches?.("input, select, button")) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === " ") { event.preventDefault(); toggle(); }
  if (step) { pause(); now = Math.max(0, Math.min(last, Math.floor(now) + step)); draw(); }
});
draw();
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
</script></body></html>
"""
