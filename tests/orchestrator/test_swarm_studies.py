"""The studies of swarms say what was put into their results, and other things where other things are put in."""

import math
from pathlib import Path

import polars as pl
import pytest

from orchestrator import study
from orchestrator.figures import style
from orchestrator.grid import Axis, named
from orchestrator.studies import chemotaxis as chemotaxis_study
from orchestrator.studies import swarm_temperature
from orchestrator.swarm import (
    efficiency_sections,
    emergence_sections,
    gradient_sections,
    rod_sections,
    runs,
    schedule_sections,
    strategy_sections,
)
from orchestrator.swarm import transfer_sections as transfers_said
from orchestrator.swarm.proportions import Onset
from tests.orchestrator.swarm_sweeps import (
    TRAINED,
    PlantedSwarm,
    by_swimming,
    chemotaxis,
    deployment,
    rotation,
    schedules,
    search,
    training,
    transfers,
)
from tests.orchestrator.swarm_tables import course
from workers.errors import ConfigError


def told(section, *parts: str) -> str:
    """The one finding that has all these words."""
    found = [line for line in section.findings if all(part in line for part in parts)]
    assert len(found) == 1, section.findings
    return found[0]


# -- what is read -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "trained", "deployed"),
    [
        (["train.physics.temperature_kelvin", "temperature_kelvin"], TRAINED, "temperature_kelvin"),
        (["train.physics.temperature_kelvin"], "temperature_kelvin", "temperature_kelvin"),
        (["train.seed", "train.task.start_radius"], None, None),
    ],
)
def test_temperatures_are_found_by_the_paths_of_axes(paths: list[str], trained: str | None, deployed: str | None):
    axes = named([Axis(path, path, "float", ()) for path in paths])
    assert runs.axis(axes, "temperature_kelvin", of_training=True) == trained
    assert runs.axis(axes, "temperature_kelvin", of_training=False) == deployed
    assert runs.axis(axes, "radius") is None


def test_a_row_is_a_deployment_with_its_axes_by_plain_names():
    planted = transfers("x", lambda at, to, seed: {"success": at == to, "mean_distance": to}, seeds=2)
    frame, diverged = runs.deployments(planted, ("trained", "deployed", "seed"))
    assert (len(frame), diverged) == (50, 0)
    assert frame.filter(pl.col("success") == 1).select("trained", "deployed").unique().height == 5
    assert frame["time_to_source"].is_null().all()
    with pytest.raises(ConfigError, match="the sweep x has no axis radius: put it into sweep.grid"):
        runs.deployments(planted, ("radius",))
    with pytest.raises(ConfigError, match="no deployment of x has ended yet"):
        runs.deployments(PlantedSwarm("x", [training("a", {"seed": 0})]), ("seed",))


def test_settings_of_a_deployment_come_before_its_trainings():
    given = {"train": {"robots": {"radius": 1.0}, "rod": {"rod_length": 80}}, "robots": {"radius": 2.5}, "is_rod": True}
    assert runs.setting(given, "radius", 0.0) == 2.5
    assert runs.setting(given, "rod_length", 0.0) == 80
    assert runs.setting(given, "is_rod", 7.0) == 7.0


# -- searching at temperatures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cold", "warm", "held"),
    [(2, 9, "agrees with"), (9, 2, "contradicts"), (6, 6, "neither shows nor contradicts")],
)
def test_whether_trainings_without_noise_succeed_least_often(cold: int, warm: int, held: str):
    section = gradient_sections.searching({"gradient_search": search(lambda t, seed: seed < (cold if t == 0 else warm))})
    line = told(section, "trainings at 0 K succeed least often")
    assert f"This {held} the paper's finding" in line
    assert f"at 0 K it is {cold / 10:.2f}" in line
    assert f"0 K {cold} of 10" in told(section, "Wilson")
    assert section.notes == []


def test_few_trainings_are_said_to_be_few_and_diverged_ones_are_counted():
    section = gradient_sections.searching(
        {"gradient_search": search(lambda t, seed: t > 0, temperatures=(0.0, 300.0), seeds=2, diverged=1)}
    )
    line = told(section, "succeed least often")
    assert "neither shows nor contradicts" in line
    assert "With so few trainings no outcome could have: p is at least 0.33" in line
    assert "1 deployment diverged: left out" in section.notes
    assert any("as few as 1 training in a group" in note for note in section.notes)


def test_a_sweep_without_noise_free_trainings_does_not_say_so():
    section = gradient_sections.searching({"gradient_search": search(lambda t, seed: True, temperatures=(150.0, 300.0), seeds=3)})
    assert "cannot be said" in told(section, "trainings at 0 K")


@pytest.mark.parametrize(("sign", "way"), [(1, "rises"), (-1, "falls"), (0, "has no clear trend")])
def test_the_trend_of_distance_with_temperature_is_told(sign: int, way: str):
    planted = search(lambda t, seed: True, distance=lambda t: 8.0 + sign * t / 100, seeds=6)
    assert f"it {way} with temperature" in told(gradient_sections.searching({"gradient_search": planted}), "Mean distance")


def test_swarms_of_which_none_succeeds_have_no_distance_but_a_page():
    results = {"gradient_search": search(lambda t, seed: False, seeds=3)}
    assert "there is no distance to tell" in told(gradient_sections.searching(results), "No training succeeds")
    assert "there are no policies to compare" in told(gradient_sections.policies(results), "No training succeeds")


@pytest.mark.parametrize(
    ("strategy", "waits", "turns"),
    [
        (lambda t: "brownian_piloting" if t > 0 else "run_and_rotate", "agrees with", "agrees with"),
        (lambda t: "run_and_rotate" if t > 0 else "brownian_piloting", "contradicts", "contradicts"),
        (lambda t: "gradient_gliding" if t > 0 else "run_and_rotate", "neither shows nor contradicts", "agrees with"),
    ],
)
def test_what_policies_do_where_it_falls_is_set_beside_the_papers_finding(strategy, waits: str, turns: str):
    section = gradient_sections.policies({"gradient_search": search(lambda t, seed: seed < 6, strategy)})
    line = told(section, "Welch's tests with Holm's correction")
    assert f"The first {waits} the paper's finding" in line
    assert f"the second {turns} its finding" in line
    assert "6 Run and Rotate" in told(section, "By the rules")


def test_policies_of_one_training_without_noise_are_not_compared():
    section = gradient_sections.policies({"gradient_search": search(lambda t, seed: t > 0 or seed == 0, seeds=3)})
    assert "cannot be tested: it takes two successful trainings at 0 K" in section.findings[2]


# -- transfers ------------------------------------------------------------------------------------------------------------------


def test_policies_that_only_one_temperature_gives_are_told_apart():
    def value(at: float, to: float, seed: int) -> dict[str, float]:
        return {"success": float(seed < (18 if at == 300 else 2 if at == to else 1)), "mean_distance": 9.0}

    section = transfers_said.gradient({"gradient_transfer": transfers("gradient_transfer_small", value, seeds=20)})
    assert "300 K is highest, clear of each other" in told(section, "Over all temperatures")
    native = told(section, "policies from elsewhere")
    assert "better in 4 (300 K to" in native
    assert "worse in 4 (" in native
    assert "undecided in 20" in told(section, "the same policies")
    assert "could be decided" not in told(section, "the same policies")


def test_too_few_pairs_to_decide_are_said_to_be_so():
    section = transfers_said.gradient({"gradient_transfer": transfers("g", lambda at, to, seed: {"success": float(at == to)}, seeds=4)})
    assert "With so few trainings no outcome of one pair alone could be decided." in told(section, "McNemar")
    assert "as few as 4 trainings in a group" in section.notes[0]


@pytest.mark.parametrize(("loss", "word"), [(-2.0, "worse"), (2.0, "better")])
def test_rods_that_turn_otherwise_away_from_home_are_told(loss: float, word: str):
    def value(at: float, to: float, seed: int) -> dict[str, float]:
        rate = 4.0 + (loss if (at, to) == (0.0, 350.0) else 0.0) + 0.2 * math.sin(5 * seed + at + 3 * to)
        return {"revolutions_per_hour": rate * (1 if seed % 2 else -1), "success": 0.0}

    section = transfers_said.rod({"rod_transfer": transfers("rod_transfer_small", value)})
    assert f"{word} in 1 (0 K to 350 K (" in told(section, "the same policies")
    assert style.data(section.drawings[0].ax).height == 25
    assert style.data(section.drawings[1].ax).height == 20


# -- temperatures that change while policies are learned ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "ends", "name"),
    [
        ((0, 150, 350), (), "rising, 0 to 350 K"),
        ((350, 0), (), "falling, 350 to 0 K"),
        ((300, 0, 300), (), "by phase, 300 to 300 K"),
        ((), (0, 350), "drawn, 0 to 350 K"),
        ((), (), "own"),
    ],
)
def test_what_a_curriculum_does_to_the_temperature_has_a_name(phases, ends, name: str):
    assert schedule_sections.schedule(phases, ends) == name


@pytest.mark.parametrize(("won", "word"), [(18, "better"), (0, "worse")])
def test_training_at_changing_temperature_is_set_beside_one_temperature(won: int, word: str):
    results = {
        "gradient_schedules": schedules("s", lambda way, to, seed: {"success": seed < (won if way == "drawn" else 9)}, seeds=20),
        "gradient_transfer": transfers("g", lambda at, to, seed: {"success": seed < 9}, seeds=20),
    }
    section = schedule_sections.gradient(results)
    said = told(section, "Beside policies trained at one temperature")
    assert said.count(f"drawn, 0 to 350 K is {word} than") == 5
    assert "rising" not in said
    assert f"{won / 20:.3g} [" in told(section, "Over all temperatures of deployment") or won == 0
    cells = style.data(section.drawings[0].ax)
    assert cells["trained"].unique(maintain_order=True).to_list()[:5] == ["0 K", "150 K", "273 K", "300 K", "350 K"]
    assert cells.height == 8 * 5


def test_schedules_that_make_no_difference_are_undecided():
    results = {
        "rod_schedules": schedules("s", lambda way, to, seed: {"revolutions_per_hour": 2.0 + math.sin(seed)}),
        "rod_transfer": transfers("t", lambda at, to, seed: {"revolutions_per_hour": -2.0 - math.sin(seed + 0.1)}),
    }
    assert "None is decided to be better or worse" in told(schedule_sections.rod(results), "one temperature")


def test_schedules_alone_say_what_lacks():
    section = schedule_sections.rod({"rod_schedules": schedules("s", lambda way, to, seed: {"revolutions_per_hour": 2.0}, seeds=2)})
    assert "policies of one temperature to compare with lack: submit the sweep of transfers, too" in section.notes
    assert len(section.findings) == 1


# -- rods -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "way"), [(1, "rises"), (-1, "falls")])
def test_rates_and_levers_of_rods_are_told_whichever_way_they_turn(sign: int, way: str):
    def rate(t: float, seed: int) -> float:
        return (6.0 + sign * t / 80) * (1 + 0.03 * seed) * (1 if seed % 2 else -1)

    section = rod_sections.rotating({"rod_rotation": rotation(rate, lambda t: 30 - sign * t / 35)})
    line = told(section, "Of these, revolutions per hour")
    assert f"the rate {way} with temperature" in line
    assert line.startswith("Of these, revolutions per hour: 6.45 [")
    assert "6 of 6" in told(section, "turn the rod by more than 0.5")
    assert f"the lever {'falls' if sign > 0 else 'rises'} with temperature" in told(section, "the tip")


def test_rods_that_hardly_turn_are_counted_and_in_no_mean():
    section = rod_sections.rotating({"rod_rotation": rotation(lambda t, seed: 3.0 if seed < 2 and t > 0 else 0.1)})
    line = told(section, "turn the rod by more than 0.5")
    assert "0 of 6 (0.00 [0.00, 0.39]) at 0 K" in line
    assert "2 of 6" in line
    assert told(section, "Of these, revolutions per hour").startswith("Of these, revolutions per hour: 3 ")
    still = rod_sections.rotating({"rod_rotation": rotation(lambda t, seed: 0.1)})
    assert still.findings[1] == "None turns it faster: there is no rate to tell."


def test_groups_of_places_are_found_where_there_are_such():
    places = rod_sections.rotating({"rod_rotation": rotation(lambda t, seed: 3.0, lambda t: 8.0 if t < 200 else 45.0)})
    assert "the trainings fall into 2 groups" in told(places, "silhouette")
    assert "18 of 273 K, 300 K and 350 K and 12 of 0 K and 150 K" in told(places, "silhouette")


# -- chemotaxis -------------------------------------------------------------------------------------------------------------------


def test_onsets_are_told_beside_the_boundary_of_swimming():
    section = emergence_sections.emergence({"chemotaxis": chemotaxis(by_swimming, seeds=12)})
    assert "none of 72 below it" in told(section, "the smallest with a radius of 0.4 µm")
    assert "agrees with" in told(section, "above the boundary of swimming", "below it 0 of")
    assert "does not show" in told(section, "before active swimming overpowers")
    assert "at 3 of 3 speeds" in told(section, "First successes: 0.7 µm at 1, 0.475 µm at 3 and 0.4 µm at 5")
    assert len(section.tables[0].rows) == 3


def test_speeds_of_large_radii_alone_tell_no_onset():
    found = {1.0: Onset(first=0.7, below=0.55, clear=0.7), 2.0: Onset(first=1.0, below=math.nan, clear=1.0)}
    rows = [{"speed": speed, "onset": onset, "boundary": 0.6} for speed, onset in found.items()]
    (line,) = emergence_sections._onsets_said(rows, "sphere")
    assert "at 1 of 1 speed with one (body lengths / s: 1)" in line
    assert "First successes: 0.7 µm at 1." in line


def test_boundaries_are_those_of_the_settings():
    planted = chemotaxis(by_swimming, seeds=2, turn_rate=60.0, temperature_kelvin=150.0)
    section = emergence_sections.emergence({"chemotaxis": planted})
    assert "R* = 0.822 µm" in told(section, "above the boundary of turning")


def test_success_below_the_boundary_is_told():
    section = emergence_sections.emergence({"chemotaxis": chemotaxis(lambda shape, radius, speed: 0.9 * (radius > 0.3), seeds=12)})
    assert "down to 0.52 of it. This agrees" in told(section, "before active swimming overpowers")
    assert "the first success is at a smaller radius than the boundary at 3 speeds, and well beyond it at 0" in told(
        section, "First successes"
    )


def test_success_that_has_nothing_to_do_with_size_contradicts_no_boundary_and_shows_none():
    section = emergence_sections.emergence({"chemotaxis": chemotaxis(lambda shape, radius, speed: 0.5, seeds=10)})
    assert "neither shows nor contradicts" in told(section, "above the boundary of turning")
    small = emergence_sections.emergence({"chemotaxis": chemotaxis(lambda shape, radius, speed: float(radius < 0.35), seeds=10)})
    assert "This contradicts the claim" in told(small, "above the boundary of turning")


def test_boundaries_are_those_of_the_shape():
    planted = chemotaxis(by_swimming, shapes=("prolate", "oblate"), seeds=2)
    section = emergence_sections.emergence({"chemotaxis": planted})
    assert "R* = 0.362 µm" in told(section, "prolate: above the boundary of turning")
    assert "R* = 0.423 µm" in told(section, "oblate: above the boundary of turning")
    assert [drawing.name for drawing in section.drawings] == ["onset-prolate", "onset-oblate"]


def test_without_success_every_section_says_so():
    results = {"chemotaxis": chemotaxis(lambda shape, radius, speed: 0.0, seeds=2)}
    assert "none of 72 trainings succeeds, up to a radius of 2.5 µm" in emergence_sections.emergence(results).findings[0]
    assert "No training succeeds" in efficiency_sections.efficiency(results).findings[0]


@pytest.mark.parametrize(
    ("slope", "held"), [(1.5, "agrees with it at 3 of 3 speeds"), (-0.2, "agrees with it at 0 of 3 speeds and contradicts")]
)
def test_growth_of_distance_with_size_is_told(slope: float, held: str):
    section = efficiency_sections.efficiency({"chemotaxis": chemotaxis(by_swimming, slope=slope)})
    assert held in told(section, "the equilibrium distance grows by")


def test_distances_are_set_beside_the_authors():
    section = efficiency_sections.efficiency({"chemotaxis": chemotaxis(by_swimming, slope=1.12)})
    line = told(section, "theirs are read off a figure")
    assert "for their 4.1 at 1 (within 10%; mean " in line
    assert "for their 6.8 at 5 (clearly elsewhere; mean " in line


def test_a_training_that_just_counts_does_not_hide_where_the_others_end():
    part = pl.DataFrame({"radius": [2.5] * 4, "speed": [1.0] * 4, "mean_distance": [4.1, 4.2, 14.3, 4.16]})
    (line,) = efficiency_sections._authors_said(part)
    assert "4.18 for their 4.1 at 1 (within 10%; mean 6.69 [" in line


def test_limits_of_time_and_reward_are_found():
    section = efficiency_sections.efficiency({"chemotaxis": chemotaxis(by_swimming)})
    assert "comes within 5 % of its limit at 3 of 3 speeds" in told(section, "time to the source", "with growing radius")
    rows = {(row["of"], row["at"][1]): row for row in section.tables[0].rows if row["along"] == "radius"}
    assert rows["time to the source", 5.0]["limit"][1] == pytest.approx(8.0, rel=0.05)
    assert rows["mean reward times radius", 5.0]["over"][1] == pytest.approx(0.4, rel=0.15)
    short = efficiency_sections.efficiency({"chemotaxis": chemotaxis(by_swimming, radii=(0.4, 0.475, 0.55, 0.7), speeds=(5.0,))})
    assert "is not shown to have reached a limit" in told(short, "mean reward")
    assert not any("along the speed" in line for line in short.findings)


def test_limits_along_the_speed_are_found():
    few = efficiency_sections.efficiency({"chemotaxis": chemotaxis(by_swimming)})
    assert "too few speeds succeed to say whether the time to the source converges" in told(few, "converges along the speed")
    speeds = (1.0, 2.0, 3.0, 4.0, 5.0)
    section = efficiency_sections.efficiency({"chemotaxis": chemotaxis(by_swimming, radii=(1.9, 2.5), speeds=speeds, late=0.5)})
    assert "at 2 of 2 radii" in told(section, "with growing speed", "mean reward")
    over = [row["over"][1] for row in section.tables[0].rows if (row["along"], row["of"]) == ("speed", "mean reward times radius")]
    assert over == pytest.approx([0.7, 0.7], rel=0.2)


def test_strategies_are_counted_and_their_radii_and_courses_compared():
    section = strategy_sections.kinds({"chemotaxis": chemotaxis(by_swimming, seeds=9)})
    assert "this agrees with its finding of three" in told(section, "by the rules")
    assert "that it belongs to small robots is seen" in told(section, "Mann-Whitney")
    assert "fall into 3 groups" in told(section, "Jensen-Shannon")
    assert "does not contradict" in told(section, "nearly identical trajectories")
    assert {one.name.partition("-")[0] for one in section.attachments} == {"chemotaxis"}
    assert len(section.attachments) == 3


def test_strategies_that_come_later_contradict_identical_trajectories():
    section = strategy_sections.kinds({"chemotaxis": chemotaxis(by_swimming, late=1.6)})
    line = told(section, "nearly identical trajectories")
    assert "contradicts in 2 of 3 pairs" in line
    assert "Gradient Gliding and Run and Rotate are not told apart" in line


def test_one_training_a_point_is_not_tested():
    section = strategy_sections.kinds({"chemotaxis": chemotaxis(by_swimming, seeds=1, radii=(1.0, 1.9, 2.5))})
    assert "cannot be tested" in told(section, "trajectories")
    assert "rare strategies are not seen" in section.notes[0]


# -- the pages --------------------------------------------------------------------------------------------------------------------


def test_pages_have_every_section_their_figures_and_swarms_in_motion(tmp_path: Path):
    results = {
        "gradient_search": search(lambda t, seed: True, temperatures=(0.0, 300.0), seeds=2),
        "rod_rotation": rotation(lambda t, seed: 3.0, seeds=1),
    }
    page = study.page_of(swarm_temperature.STUDY, results, tmp_path)
    text = page.path.read_text()
    assert "no results yet of gradient_transfer" in text
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names >= {"gradient-success", "gradient-courses", "gradient-first", "gradient-density", "gradient-paths", "gradient-policies"}
    assert names >= {"gradient-learning", "rod-rates", "rod-places", "rod-along"}
    motions = sorted(path.name for path in (tmp_path / "pages").glob("*.html"))
    assert motions == [
        f"{kind}-{at}-K.html"
        for kind, at in (("gradient-trained-at", 0), ("gradient-trained-at", 300), ("rod-rod-at", 0), ("rod-rod-at", 350))
    ]
    assert all(f'href="pages/{name}"' in text for name in motions)


@pytest.mark.parametrize("make", [*swarm_temperature.STUDY.sections, *chemotaxis_study.STUDY.sections])
def test_a_section_without_results_says_which_sweep_lacks(make):
    with pytest.raises(ConfigError, match="no results yet of the sweep"):
        make({})


def test_a_rodless_sweep_has_no_rate():
    planted = PlantedSwarm(
        "rod_rotation",
        [deployment("a", {"temperature_kelvin": 0.0, "seed": 0}, success=0.0, revolutions_per_hour=math.nan)],
        {"frames": course("a", frames=5)},
    )
    with pytest.raises(ConfigError, match="no deployment of rod_rotation has a rod"):
        rod_sections.rotating({"rod_rotation": planted})
