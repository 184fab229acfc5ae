"""Figures and animations of swarms: they hold what they were given, and are written."""

import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestrator import study
from orchestrator.figures import style
from orchestrator.figures.against import against
from orchestrator.figures.density_curves import density_curves
from orchestrator.figures.distance_courses import distance_courses
from orchestrator.figures.onset import onset
from orchestrator.figures.policy_curves import FOLDED, policy_curves
from orchestrator.figures.policy_surface import policy_surface
from orchestrator.figures.rod_frame import rod_frame
from orchestrator.figures.swarm_paths import round_length, swarm_paths
from orchestrator.figures.transfer_matrix import transfer_matrix
from orchestrator.study import Attachment, Section, Study
from orchestrator.swarm import animation, over_seeds, strategies
from tests.orchestrator.swarm_sweeps import walks
from tests.orchestrator.swarm_tables import beside_rod, course, policy_table, turning_rod
from workers.errors import ConfigError


def test_intervals_are_drawn_where_there_are_some_and_places_are_marked():
    frame = pl.DataFrame({"t": [0.0, 300.0], "value": [1.0, 2.0], "low": [math.nan, 1.5], "high": [math.nan, 2.5]})
    ax = against(frame, x="t", marks={"boundary": 150.0}, ticks=[0, 300], title="two", x_label="T (K)")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["boundary"]
    (bars,) = ax.containers[0].lines[2]
    assert sorted(float(np.ptp(own[:, 1])) for own in bars.get_segments()) == [0.0, 1.0]
    assert ax.get_xlabel() == "T (K)"
    assert len(style.data(ax)) == 2


def test_intervals_below_nothing_are_cut_there():
    frame = pl.DataFrame({"t": [0.0, 300.0], "value": [1.0, 2.0], "low": [-3.0, 1.5], "high": [5.0, 2.5]})
    assert against(frame, x="t").get_ylim()[0] == 0.0
    assert against(frame.with_columns(value=pl.col("value") - 1.5), x="t").get_ylim()[0] < -0.5


def test_groups_with_curves_stand_beside_each_other():
    frame = pl.DataFrame({"r": [1.0, 2.0] * 2, "s": [1.0, 1.0, 5.0, 5.0], "value": [1.0, 2.0, 3.0, 4.0]}).with_columns(
        low=pl.col("value") - 0.1, high=pl.col("value") + 0.1
    )
    ax = against(frame, x="r", by="s", curves={1.0: ([1, 2], [1, 2])}, heading="speed", joined=False)
    drawn = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in drawn] == [[1, 2]]
    places = {round(float(line.get_xdata()[0]), 3) for line in ax.lines if line.get_marker() not in ("None", "_", "")}
    assert len(places) == 2


def test_policies_have_a_panel_an_action():
    table = strategies.folded(policy_table(["run_and_rotate", "brownian_piloting"]))
    frame = over_seeds.means(
        table.with_columns(trained=pl.col("key").cast(pl.Float64)), ["trained", "observation", "action"], "probability"
    )
    ax = policy_curves(frame, by="trained", actions=FOLDED, heading="K")
    panels = ax.child_axes
    assert [panel.texts[0].get_text() for panel in panels] == list(FOLDED.values())
    # the first turns where it falls, the second waits
    first, last = ([line.get_ydata()[0] for line in panel.lines if len(line.get_ydata()) > 2] for panel in (panels[0], panels[3]))
    assert first[0] > 0.8 > 0.2 > first[1]
    assert last[1] > 0.7 > 0.2 > last[0]


def test_a_surface_leaves_white_what_is_not_there():
    rows = [{"radius": r, "observation": o, "action": "forward", "value": r * o} for r in (1.0, 2.0) for o in (0.1, 0.2)]
    ax = policy_surface(pl.DataFrame(rows[:-1]), y="radius")
    mesh = ax.child_axes[1].collections[0].get_array()
    assert mesh.shape == (2, 2)
    assert np.ma.masked_invalid(mesh).mask.tolist() == [[False, False], [False, True]]


def test_courses_can_be_cut_and_densities_drawn():
    frame = course("a", frames=100).select("seconds", value="mean_distance", low="mean_distance", high="mean_distance")
    ax = distance_courses(frame.with_columns(trained=pl.lit(0.0)), by="trained", until=20.0)
    assert style.data(ax)["seconds"].max() == 20.0
    assert ax.get_yscale() == "log"
    x = np.linspace(0, 1, 5)
    ax = density_curves(pl.DataFrame({"t": [0.0] * 5, "x": x, "value": x, "low": x, "high": x}), by="t", x_label="place (µm)")
    assert list(ax.lines[-1].get_ydata()) == list(x)


def test_paths_share_one_scale_and_have_a_bar_of_length():
    ax = swarm_paths({"near": walks("a", end=5.0), "far": walks("b", end=30.0)}, title="two")
    near, far = ax.child_axes
    assert near.get_xlim() == far.get_xlim()
    assert [panel.texts[0].get_text() for panel in (near, far)] == ["50 µm", "50 µm"]
    assert style.data(ax)["run"].unique().len() == 2
    assert [round_length(value) for value in (1.0, 4.9, 5.0, 37.0, 0.3)] == [1.0, 2.0, 5.0, 20.0, 0.2]


def test_points_without_success_are_open_and_boundaries_named():
    frame = pl.DataFrame(
        {"radius": [0.2, 0.5, 1.0], "speed": [1.0] * 3, "successes": [0, 1, 4], "trials": [5] * 3, "value": [0.0, 0.2, 0.8]}
    )
    ax = onset(frame, x="radius", y="speed", boundaries={"theory": ([0.4, 0.4], [0, 2])})
    none, some = ax.collections[:2]
    assert len(none.get_offsets()) == 1
    assert not none.get_facecolors().size
    assert list(some.get_array()) == [0.2, 0.8]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["theory"]


def test_cells_of_a_matrix_have_their_numbers_and_arrows():
    rows = [{"trained": a, "deployed": b, "value": a - b, "low": a - b - 1, "high": a - b + 1} for a in (0.0, 300.0) for b in (0.0, 300.0)]
    words = ["undecided", "worse", "better", "undecided"]
    ax = transfer_matrix(pl.DataFrame(rows).with_columns(decided=pl.Series(words)), diverging=True, form="+.0f", unit="K")
    texts = [text.get_text() for text in ax.texts]
    assert texts[:4] == ["+0", "[-1, +1]", "-300 ↓", "[-301, -299]"]
    assert "+300 ↑" in texts
    assert len(ax.patches) == 2
    assert ax.get_xlabel() == "deployed at (K)"


def test_histograms_beside_a_rod_are_densities():
    shares = np.zeros((4, 4))
    shares[1, 2] = 1.0
    ax = rod_frame({"0 K": (np.linspace(-20, 20, 5), shares)}, length=30.0)
    mesh = np.ma.masked_invalid(ax.child_axes[0].collections[0].get_array())
    assert mesh.compressed().tolist() == [0.01]
    assert style.data(ax).rows() == [("0 K", -5.0, 5.0, 1.0)]


# -- in motion ----------------------------------------------------------------------------------------------------------------


def embedded(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1].replace("<\\/", "</"))


def test_an_animation_holds_every_place_and_asks_for_nothing(tmp_path: Path):
    positions, frames = walks("a", num_frames=30), course("a", frames=30)
    path = animation.animation(positions, frames, tmp_path / "one" / "swarm.html", radius=2.0, title="A <swarm>")
    text = path.read_text()
    data = embedded(text)
    assert data["seconds"] == [float(one) for one in range(30)]
    row = positions.filter((pl.col("frame") == 7) & (pl.col("agent") == 3)).row(0, named=True)
    assert data["agents"][7][9:12] == pytest.approx([row["x"], row["y"], row["angle"]], abs=0.006)
    assert data["source"] == [0.0, 0.0]
    assert data["rod"] == []
    assert data["axes"] == [2.0, 2.0]
    assert "A &lt;swarm&gt;" in text
    assert "the star is the source" in text
    assert not re.findall(r"(?:src|href)=|https?:|@import|fetch\(", text)


def test_long_runs_are_thinned_and_small_robots_enlarged_with_a_word(tmp_path: Path):
    found = animation.scene(walks("a", num_frames=301), course("a", frames=301), radius=0.1, most_frames=100)
    assert found.seconds[:3] == [0.0, 4.0, 8.0]
    assert len(found.agents) == 76
    assert found.enlarged > 2
    assert f"drawn {found.enlarged:.1f} times as large" in animation.html(found)
    assert "times as large" not in animation.html(animation.scene(walks("a"), course("a", frames=300), radius=2.0))


def test_a_rod_stands_in_place_of_the_source_and_spheroids_keep_their_volume():
    rod = turning_rod("a", 30.0, frames=20)
    found = animation.scene(beside_rod(rod, [(30.0, -3.0)]), rod, radius=2.0, aspect=3.0, rod_length=100.0)
    assert found.source is None
    assert found.rod == pytest.approx(rod["rod_angle"].to_list(), abs=1e-4)
    along, across = found.axes
    assert along / across == pytest.approx(3.0)
    assert along * across**2 == pytest.approx(8.0)
    assert found.half_width == pytest.approx(54.0)
    assert "star" not in re.sub(r"<script>.*", "", animation.html(found), flags=re.DOTALL)


def test_rows_of_two_runs_are_refused():
    two = pl.concat([walks("a", num_frames=5), walks("b", num_frames=5)])
    with pytest.raises(ConfigError, match="give the rows of one run"):
        animation.scene(two, course("a", frames=5), radius=1.0)
    with pytest.raises(ConfigError, match="no frame has both"):
        animation.scene(walks("a", num_frames=0), course("a", frames=5), radius=1.0)


def test_a_gif_has_every_frame(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    shown = animation.scene(walks("a", num_frames=5), course("a", frames=5), radius=2.0)
    path = animation.gif(shown, tmp_path / "swarm.gif", inches=2.0)
    with image.open(path) as found:
        assert found.n_frames == 5
        assert found.size == (200, 200)


def test_pages_beside_a_report_are_written_and_linked(tmp_path: Path):
    def make(results):
        return Section(title="One", attachments=[Attachment(name="a.html", label="look & see", text="<p>here</p>")])

    page = study.page_of(Study(name="mine", title="Mine", sweeps={}, sections=(make,)), {}, tmp_path)
    assert (tmp_path / "pages" / "a.html").read_text() == "<p>here</p>"
    assert '<a href="pages/a.html">look &amp; see</a>' in page.path.read_text()
