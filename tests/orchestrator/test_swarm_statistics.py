"""Statistics of swarms: known shares, lines, plateaus, transfers and differences are found, and nothing where there is nothing."""

import itertools
import math

import numpy as np
import polars as pl
import pytest

from orchestrator.swarm import boundaries, over_seeds, proportions, transfer
from orchestrator.swarm.plateaus import plateau, straight
from orchestrator.swarm.proportions import Proportion, onset, wilson
from orchestrator.swarm.two_samples import compared, courses, energy_test
from tests.orchestrator.swarm_tables import course

# -- shares -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Wilson (1927) without correction, as in Newcombe (1998), table I
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_that_of_newcombes_table(successes: int, trials: int, low: float, high: float):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_is_symmetric_and_of_no_trials_unknown():
    low, high = wilson(3, 20)
    assert wilson(17, 20) == pytest.approx((1 - high, 1 - low))
    assert wilson(20, 20)[1] == 1.0
    assert math.isnan(wilson(0, 0)[0])


def test_shares_are_told_apart_by_fishers_test():
    assert Proportion(successes=0, trials=20).p_value(Proportion(successes=10, trials=20)) == pytest.approx(0.000436, rel=0.02)
    assert Proportion(successes=5, trials=20).p_value(Proportion(successes=5, trials=20)) == 1.0
    assert math.isnan(Proportion(successes=0, trials=0).p_value(Proportion(successes=1, trials=2)))


def test_diverged_runs_are_no_trials():
    frame = pl.DataFrame({"radius": [1.0, 1.0, 1.0, 2.0], "success": [1.0, 0.0, math.nan, 1.0]})
    table = proportions.of_groups(frame, ["radius"])
    assert table["trials"].to_list() == [2, 1]
    assert table["successes"].to_list() == [1, 1]


def rates(shares: dict[float, int], trials: int = 20) -> pl.DataFrame:
    rows = [{"radius": radius, "success": float(i < count)} for radius, count in shares.items() for i in range(trials)]
    return proportions.of_groups(pl.DataFrame(rows), ["radius"])


def test_the_onset_is_the_first_success_and_what_is_clearly_above_the_bound():
    found = onset(rates({0.25: 0, 0.325: 0, 0.4: 1, 0.475: 5, 0.55: 9}), "radius", bound=0.05)
    assert (found.first, found.below, found.clear) == (0.4, 0.325, 0.475)
    assert found.holds(0.367)
    assert found.holds(0.4)
    assert not found.holds(0.481)
    assert not found.holds(0.3)
    none = onset(rates({0.25: 0, 0.325: 0}), "radius")
    assert math.isnan(none.first)
    assert none.holds(0.3) is None
    assert onset(rates({0.25: 3, 0.325: 0}), "radius").holds(0.1)


# -- boundaries ---------------------------------------------------------------------------------------------------------------


def test_boundaries_are_the_papers():
    turn = math.radians(600)
    assert boundaries.rotational(turn) == pytest.approx(0.481, abs=5e-4)
    found = [boundaries.translational(speed) for speed in range(1, 6)]
    assert found == pytest.approx([0.627, 0.498, 0.435, 0.395, 0.367], abs=6e-4)
    assert boundaries.rotational(turn, friction=2.3408) == pytest.approx(0.362, abs=5e-4)
    assert boundaries.rotational(turn, friction=1.4645) == pytest.approx(0.423, abs=7e-4)
    assert boundaries.translational(1, friction=0.9738) / boundaries.translational(1) == pytest.approx(1.009, abs=5e-4)
    assert boundaries.translational(1, friction=1.2673) / boundaries.translational(1) == pytest.approx(0.924, abs=5e-4)


def test_at_a_boundary_the_two_times_are_equal():
    """tau_B = tau_A by the definitions themselves, with the diffusion of a sphere at 280 K in another fluid."""
    turn, speed, temperature, viscosity = 3.0, 2.5, 280.0, 1.3e-3
    energy = boundaries.BOLTZMANN * temperature
    radius = 1e-6 * boundaries.rotational(turn, temperature, viscosity)
    diffusion = energy / (8 * math.pi * viscosity * radius**3)
    assert 1 / (2 * diffusion) == pytest.approx(math.pi / turn)
    radius = 1e-6 * boundaries.translational(speed, temperature, viscosity)
    diffusion = energy / (6 * math.pi * viscosity * radius)
    assert radius**2 / diffusion == pytest.approx(2 * radius / (speed * 2 * radius))


# -- means over seeds -----------------------------------------------------------------------------------------------------------


def test_students_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        low, high = over_seeds.mean(random.normal(3.0, 2.0, 4).tolist()).interval
        held += low <= 3.0 <= high
    assert 930 <= held <= 970
    assert math.isnan(over_seeds.mean([1.0]).interval[0])
    assert over_seeds.mean([1.0, math.nan, 3.0]).value == 2.0


def test_few_trainings_are_said_to_be_few():
    assert "as few as 1 training in a group" in over_seeds.few_said(1, "sweep")[0]
    assert over_seeds.few_said(over_seeds.FEW, "sweep") == []


# -- transfer -------------------------------------------------------------------------------------------------------------------


def deployments(rate, seeds: int = 8) -> pl.DataFrame:
    random = np.random.default_rng(1)
    rows = []
    for trained, seed in itertools.product((0.0, 150.0, 300.0), range(seeds)):
        own = random.normal(0.0, 1.0)
        rows += [
            {"at": trained, "to": to, "seed": seed, "rate": rate(trained, to) + own + 0.05 * random.normal()} for to in (0.0, 150.0, 300.0)
        ]
    return pl.DataFrame(rows)


def test_a_policy_that_is_worse_elsewhere_is_found_in_pairs_though_trainings_differ_more():
    frame = deployments(lambda trained, to: 5.0 - (0.6 if (trained, to) == (0.0, 300.0) else 0.0))
    found = transfer.from_home(frame, "at", "to", "seed", "rate")
    decided = {(row["trained"], row["deployed"]): row["decided"] for row in found.iter_rows(named=True)}
    assert decided == {pair: "worse" if pair == (0.0, 300.0) else "undecided" for pair in decided}
    assert len(decided) == 6
    row = found.filter((pl.col("trained") == 0) & (pl.col("deployed") == 300)).row(0, named=True)
    assert row["low"] < -0.6 < row["high"]
    assert set(transfer.from_natives(frame, "at", "to", "rate")["decided"]) == {"undecided"}


def test_policies_that_are_better_than_natives_are_found():
    frame = deployments(lambda trained, to: 5.0 + (6.0 if trained == 300.0 else 0.0), seeds=10)
    found = transfer.from_natives(frame, "at", "to", "rate")
    better = found.filter(pl.col("decided") == "better").select("trained", "deployed").rows()
    assert better == [(300.0, 0.0), (300.0, 150.0)]
    assert transfer.matrix(frame, "at", "to", "rate").filter(pl.col("trained") == 300)["value"].min() > 9


def test_shares_in_pairs_are_judged_by_mcnemars_test():
    rows = [{"at": 0, "to": to, "seed": seed, "success": float(to == 0 or seed < 2)} for seed in range(12) for to in (0, 300)]
    found = transfer.from_home(pl.DataFrame(rows), "at", "to", "seed", "success", binary=True).row(0, named=True)
    assert found["value"] == pytest.approx(-10 / 12)
    assert found["p_value"] == pytest.approx(2 / 2**10)
    assert found["decided"] == "worse"
    assert found["high"] < 0
    few = pl.DataFrame([row for row in rows if row["seed"] < 4])
    assert transfer.from_home(few, "at", "to", "seed", "success", binary=True)["decided"].to_list() == ["undecided"]


def test_a_cell_of_one_training_is_undecided():
    frame = deployments(lambda trained, to: trained, seeds=1)
    assert set(transfer.from_home(frame, "at", "to", "seed", "rate")["decided"]) == {"undecided"}


# -- lines and plateaus ---------------------------------------------------------------------------------------------------------


def test_a_line_is_found_with_an_interval_that_holds_its_slope():
    random, held, width = np.random.default_rng(0), 0, []
    for draw in range(60):
        x, seed = np.tile(np.linspace(0.7, 2.5, 12), 6), np.repeat(np.arange(6), 12)
        y = 1.1 + 1.4 * x + 0.2 * random.normal(size=len(x)) + 0.1 * random.normal(size=6)[seed]
        found = straight(x, y, seed, random_seed=draw)
        assert found is not None
        held += found.slope.low <= 1.4 <= found.slope.high
        width.append(found.slope.high - found.slope.low)
    assert held >= 53
    assert np.median(width) < 0.3


def test_a_line_of_one_seed_has_no_interval_and_one_of_one_radius_is_none():
    found = straight(np.array([1.0, 2.0]), np.array([3.0, 5.0]), np.zeros(2))
    assert found is not None
    assert found.slope.value == pytest.approx(2.0)
    assert math.isnan(found.slope.low)
    assert straight(np.ones(4), np.arange(4), np.arange(4)) is None


@pytest.mark.parametrize(("start", "from_zero"), [(0.0, True), (70.0, False)])
def test_a_plateau_and_its_scale_are_found(start: float, from_zero: bool):
    random = np.random.default_rng(3)
    x, seed = np.tile(np.linspace(0.3, 2.5, 16), 8), np.repeat(np.arange(8), 16)
    y = 12.0 + (start - 12.0) * np.exp(-x / 0.4) + 0.3 * random.normal(size=len(x))
    found = plateau(x, y, seed, from_zero=from_zero)
    assert found is not None
    assert found.limit.low < 12.0 < found.limit.high
    assert found.scale.low < 0.4 < found.scale.high
    assert found.scale.high - found.scale.low < 0.25
    assert found.is_reached
    assert found.at(np.array([0.4]))[0] == pytest.approx(12.0 + (start - 12.0) / math.e, rel=0.03)


def test_one_run_alone_at_an_end_leaves_the_slope_open():
    """Of radii 1, 1.75 and 2.5 with 1, 4 and 4 runs: over draws the intervals hold the slope, though weightings all keep the one run."""
    random, held = np.random.default_rng(0), 0
    x, seed = np.repeat([1.0, 1.75, 2.5], [1, 4, 4]), np.array([2, 0, 1, 2, 3, 0, 1, 2, 3])
    for draw in range(150):
        found = straight(x, 2.0 + 1.5 * x + 0.5 * random.normal(size=9), seed, random_seed=draw)
        assert found is not None
        held += found.slope.low <= 1.5 <= found.slope.high
    assert held >= 135
    two = straight(x[[0, 5, 6, 7, 8]], np.array([13.0, 5.0, 5.1, 5.2, 5.3]), seed[[0, 5, 6, 7, 8]])
    assert two is not None
    assert math.isnan(two.slope.low)


def test_a_held_start_stays_at_0_and_too_few_radii_have_no_plateau():
    x, seed = np.tile([0.5, 1.0, 2.0], 4), np.repeat(np.arange(4), 3)
    y = 5 * (1 - np.exp(-x / 0.7)) + 0.1 * np.random.default_rng(0).normal(size=12)
    found = plateau(x, y, seed, from_zero=True)
    assert found is not None
    assert (found.start.low, found.start.value, found.start.high) == (0.0, 0.0, 0.0)
    assert plateau(x, y, seed) is None
    assert plateau(x[x < 2], y[x < 2], seed[x < 2], from_zero=True) is None


def test_what_does_not_bound_the_scale_has_no_plateau_that_is_reached():
    """As of the first real runs: one training each at two of three radii."""
    x, y, seed = np.array([0.55, 1.0, 2.5, 2.5]), np.array([350.0, 40.0, 310.0, 340.0]), np.array([0, 1, 0, 2])
    found = plateau(x, y, seed, from_zero=True)
    assert found is not None
    assert not found.is_reached
    assert found.scale.high > 100


def test_what_still_grows_at_the_end_has_no_plateau():
    x, seed = np.tile(np.linspace(0.3, 2.5, 16), 6), np.repeat(np.arange(6), 16)
    found = plateau(x, 3 * x + 0.2 * np.random.default_rng(0).normal(size=len(x)), seed, from_zero=True)
    assert found is not None
    assert not found.is_reached
    one = plateau(x[:16], 5 * (1 - np.exp(-x[:16] / 0.2)), seed[:16], from_zero=True)
    assert one is not None
    assert one.scale.value == pytest.approx(0.2, rel=0.05)
    assert not one.is_reached


def energy(first, second, **options):
    return energy_test(np.concatenate([first, second]), np.arange(len(first) + len(second)) < len(first), **options)


# -- two samples ----------------------------------------------------------------------------------------------------------------


def test_groups_of_one_distribution_are_seldom_told_apart():
    random = np.random.default_rng(5)
    p_values = [energy(random.normal(size=(5, 3)), random.normal(size=(6, 3)))[1] for _ in range(200)]
    assert np.mean(np.array(p_values) <= 0.05) < 0.1
    assert 0.4 < np.mean(p_values) < 0.65


def test_groups_that_differ_are_told_apart_and_few_are_not_judged():
    random = np.random.default_rng(6)
    rows = np.concatenate([random.normal(size=(6, 4)), random.normal(3.0, 1.0, (6, 4)), random.normal(size=(2, 4))])
    found = {(one.first, one.second): one for one in compared(rows, ["a"] * 6 + ["b"] * 6 + ["c"] * 2)}
    assert found["a", "b"].verdict == "different"
    assert found["a", "b"].p_value == pytest.approx(2 / math.comb(12, 6))
    assert found["a", "b"].share > 0.4 > found["a", "c"].share
    assert found["a", "c"].verdict == "not told apart"
    few = compared(rows[[0, 1, 6, 7]], ["a", "a", "b", "b"])
    assert [one.verdict for one in few] == ["too few"]
    assert math.isnan(few[0].p_holm)


def test_the_statistic_is_the_energy_distance():
    """Of two points against two others on a line, by hand: 2 * 3 - 0.5 - 0.5 over columns of deviation 1."""
    first, second = np.array([[0.0], [1.0]]), np.array([[3.0], [4.0]])
    share, *_ = energy(first, second)
    assert share == pytest.approx((2 * 3 - 0.5 - 0.5) / 6)


def test_many_trainings_are_exchanged_at_random():
    random = np.random.default_rng(7)
    share, p, least = energy(random.normal(size=(15, 2)), random.normal(2.0, 1.0, (15, 2)))
    assert p == least == pytest.approx(1e-4)
    assert 0 < share < 1


def test_courses_are_taken_at_common_times():
    frames = pl.concat([course("a", end=5.0, frames=1200), course("b", end=20.0, frames=800)])
    keys, rows = courses(frames, num=10)
    assert keys == ["a", "b"]
    assert rows.shape == (2, 10)
    assert np.exp(rows[:, -1]) == pytest.approx([5.0, 20.0], rel=0.2)
    assert np.exp(rows[:, 0]) == pytest.approx([66.0, 66.0], rel=0.2)


def test_what_strata_differ_by_is_not_taken_for_a_difference_of_groups():
    """Group a is more frequent in the first of two strata, which lie apart; within each, groups are alike, or differ a little."""
    random = np.random.default_rng(8)
    labels = ["a"] * 14 + ["b"] * 3 + ["a"] * 3 + ["b"] * 14
    strata = [0] * 17 + [1] * 17
    rows = random.normal(size=(34, 3)) + 20.0 * np.array(strata)[:, None]
    assert compared(rows, labels)[0].verdict == "different"
    assert compared(rows, labels, strata)[0].verdict == "not told apart"
    shifted = rows + 2.0 * (np.array(labels) == "b")[:, None]
    assert compared(shifted, labels, strata)[0].verdict == "different"
    alone = compared(rows, ["a"] * 17 + ["b"] * 17, strata)[0]
    assert (alone.verdict, alone.nums) == ("too few", (0, 0))
