"""Strategies and rods: planted policies get their names, groups are found, rods turn as fast as they were made to."""

import math

import numpy as np
import polars as pl
import pytest

from orchestrator.swarm import clusters, densities, rods, strategies
from orchestrator.swarm.strategies import Policy, classify
from tests.orchestrator.swarm_tables import FALLING, OBSERVATIONS, beside_rod, policy, policy_table, turning_rod
from workers.errors import ConfigError


@pytest.mark.parametrize("handedness", ["ccw", "cw"])
@pytest.mark.parametrize("name", [*FALLING, "search_and_sit"])
def test_each_strategy_is_named_with_its_handedness(name: str, handedness: str):
    found = classify(Policy(observations=OBSERVATIONS, probabilities=policy(name, handedness=handedness)))
    assert found.name == name
    if name in ("run_and_rotate", "gradient_gliding"):
        assert found.handedness == handedness
    if name == "brownian_piloting":
        assert found.handedness == ""
        assert found.evidence.startswith("rising: forward 0.97; falling: nothing 0.82")


def test_a_probability_beyond_a_rule_changes_the_name():
    def named(*falling: float, rising: float = 0.97) -> str:
        rest = (1 - rising) / 3
        rows = [falling if o < 0.3 else (rest, rising, rest, rest) for o in OBSERVATIONS]
        return classify(Policy(observations=OBSERVATIONS, probabilities=np.array(rows))).name

    assert named(0.61, 0.1, 0.1, 0.19) == "run_and_rotate"
    assert named(0.55, 0.1, 0.1, 0.25) == "exotic"
    assert named(0.45, 0.3, 0.1, 0.15) == "gradient_gliding"
    assert named(0.61, 0.1, 0.1, 0.19, rising=0.7) == "exotic"
    assert named(0.1, 0.1, 0.19, 0.61) == "brownian_piloting"
    assert named(0.2, 0.1, 0.2, 0.5) == "exotic"


def test_a_policy_that_says_nothing_of_falls_is_refused():
    with pytest.raises(ConfigError, match=r"the policy has -0.1 to 1.7"):
        classify(Policy(observations=np.linspace(-0.1, 1.7, 5), probabilities=np.full((5, 4), 0.25)))


def test_the_table_names_every_task_and_refuses_what_is_no_distribution():
    names = ["run_and_rotate", "brownian_piloting", "gradient_gliding"]
    found = strategies.table(policy_table(names))
    assert found["strategy"].to_list() == names
    assert found["falling_nothing"].to_list()[1] > 0.6
    with pytest.raises(ConfigError, match="do not sum to 1"):
        strategies.policies(policy_table(names).with_columns(probability=pl.col("probability") * 1.1))
    with pytest.raises(ConfigError, match="actions are ccw, forward, cw, nothing, got left"):
        strategies.policies(policy_table(names).with_columns(action=pl.lit("left")))


# -- clusters -------------------------------------------------------------------------------------------------------------------


def test_distances_of_known_distributions():
    one, other, both = [[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.5]]]
    found = clusters.distances(np.array([one, other, both]))
    assert found[0, 1] == pytest.approx(1.0)
    # 1 bit of each mixture less half a bit ...: H(3/4, 1/4) - 1/2
    half = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert found[0, 2] == found[2, 1] == pytest.approx(math.sqrt(half))
    assert found.diagonal().tolist() == [0.0, 0.0, 0.0]


def test_planted_groups_of_policies_are_found_whatever_their_handedness():
    names = ["run_and_rotate"] * 6 + ["brownian_piloting"] * 4 + ["gradient_gliding"] * 3
    known = strategies.policies(policy_table(names))
    found = clusters.clusters(clusters.distances(np.stack([one.folded() for one in known.values()])))
    assert found.sizes == (6, 4, 3)
    assert found.silhouette > 0.6
    assert [names[one] for one in found.medoids] == ["run_and_rotate", "brownian_piloting", "gradient_gliding"]


def test_alike_members_are_one_cluster():
    random = np.random.default_rng(0)
    points = random.normal(size=(40, 6))
    found = clusters.clusters(np.linalg.norm(points[:, None] - points[None], axis=2))
    assert found.sizes == (40,)
    assert math.isnan(found.silhouette)
    assert clusters.clusters(np.zeros((2, 2))).sizes == (2,)


def test_the_silhouette_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    points, labels = random.normal(size=(30, 2)), random.integers(0, 4, 30)
    labels[0] = 9
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert clusters.silhouette(distance, labels) == pytest.approx(metrics.silhouette_score(distance, labels, metric="precomputed"))


# -- rods -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_rod_turns_as_fast_as_it_was_made_to(wrapped: bool):
    frames = pl.concat([turning_rod("slow", 0.4, wrapped=wrapped), turning_rod("back", -7.5, wrapped=wrapped)])
    found = dict(rods.revolutions_per_hour(frames).iter_rows())
    assert found == pytest.approx({"slow": 0.4, "back": -7.5})


def test_without_a_rod_there_is_no_rate():
    frames = turning_rod("none", 1.0).with_columns(rod_angle=pl.lit(math.nan))
    assert rods.revolutions_per_hour(frames).is_empty()


@pytest.mark.parametrize("rate", [20.0, -20.0])
def test_agents_keep_their_place_in_the_frame_of_the_rod(rate: float):
    frames = turning_rod("a", rate, frames=50)
    placed = rods.in_rod_frame(beside_rod(frames, [(30.0, -2.0)]), frames)
    assert placed["along"].to_numpy() == pytest.approx(30.0)
    assert placed["across"].to_numpy() == pytest.approx(-2.0 if rate > 0 else 2.0)


def test_occupation_counts_tasks_alike_and_ends_of_the_rod_as_one():
    frames = pl.concat([turning_rod("a", 5.0, frames=50), turning_rod("b", 5.0, frames=10)])
    positions = pl.concat([beside_rod(frames.filter(pl.col("key") == key), [place]) for key, place in (("a", (33, 3)), ("b", (-33, 3)))])
    placed = rods.in_rod_frame(positions, frames).with_columns(temperature=pl.lit(300.0))
    ((edges, shares),) = rods.occupation(placed, ["temperature"], 60.0, num_bins=12).values()
    assert len(edges) == 13
    assert shares.sum() == pytest.approx(1.0)
    assert sorted(shares[shares > 0]) == pytest.approx([0.25] * 4)
    assert shares == pytest.approx(shares[::-1, ::-1])


def test_densities_are_of_trainings_and_integrate_to_one():
    random = np.random.default_rng(2)
    rows = [
        {"key": f"{t}-{i}", "temperature": t, "along": x} for t in (0.0, 300.0) for i in range(4) for x in random.normal(t / 10, 4.0, 500)
    ]
    found = densities.of_groups(pl.DataFrame(rows), "along", "temperature", (-60.0, 60.0), 2.0)
    for temperature, part in found.partition_by("temperature", as_dict=True).items():
        x, y = part["x"].to_numpy(), part["value"].to_numpy()
        assert y.sum() * (x[1] - x[0]) == pytest.approx(1.0, abs=0.01)
        assert (x * y).sum() / y.sum() == pytest.approx(temperature[0] / 10, abs=0.5)
        # the kernel widens: 4 and 2
        assert math.sqrt((x**2 * y).sum() / y.sum() - ((x * y).sum() / y.sum()) ** 2) == pytest.approx(math.sqrt(20), rel=0.05)
    one = densities.of_groups(pl.DataFrame(rows[:500]), "along", "temperature", (-60.0, 60.0), 2.0)
    assert one["low"].is_nan().all()
