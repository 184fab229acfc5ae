"""Trainings and deployments of swarms as tasks: alone or in a batch, interrupted or not, they give the same bits."""

import dataclasses
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from task_runs import StopAfter, attempt, committed, contents, last, rows, scalars, task_of

from workers import taskdir
from workers.context import Context
from workers.errors import ConfigError
from workers.execute import execute_many
from workers.swarm.actions.discrete import Discrete
from workers.swarm.agents.baeuerle import Baeuerle
from workers.swarm.agents.constant import Constant
from workers.swarm.agents.run_and_tumble import RunAndTumble
from workers.swarm.concentration import Concentration
from workers.swarm.curiosity import Curiosity
from workers.swarm.curriculum import Curriculum
from workers.swarm.fields.harmonic import Harmonic
from workers.swarm.keeping import Keeping
from workers.swarm.learners.ppo import Ppo
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.observables.multi_sensing import MultiSensing
from workers.swarm.observables.particle_sensing import ParticleSensing
from workers.swarm.observables.vision_cones import VisionCones
from workers.swarm.physics import Physics, Robots, Timing
from workers.swarm.scoring import Deployment
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.tasks.multi_tasking import MultiTasking
from workers.swarm.tasks.rotate_rod import RotateRod
from workers.swarm.tasks.species_search import SpeciesSearch
from workers.swarm.world import arena_of
from workers.workload import Workload
from workers.workloads.swarm_classical import SwarmClassical
from workers.workloads.swarm_deploy import SwarmDeploy
from workers.workloads.swarm_train import POLICY, SwarmTrain

pytestmark = pytest.mark.usefixtures("one_thread")

ROBOTS = Robots(num_agents=4, radius=2.5, speed_body_lengths=5.0, turn_rate=600.0)
CLOSE = (0.0, 0.0, 3.0, 0.0, 20.0, 0.0, 40.0, 0.0)
TWENTY = Timing(slice_seconds=0.1, num_substeps=20)
AWAY = Concentration(source=(9.0, 0.0))
SHORT = Deployment(num_slices=40, slices_per_frame=4, scored_from_frame=5)


def train(**changed: Any) -> SwarmTrain:
    settings = dict(robots=ROBOTS, timing=Timing(slice_seconds=0.1), curriculum=Curriculum(episodes=(4, 3)), num_evaluations=3)
    return SwarmTrain(**{**settings, **changed})


def rod_train(**changed: Any) -> SwarmTrain:
    return train(
        physics=Physics(rod_length=40.0, rod_beads=24),
        task=RotateRod(velocity_history=5),
        lead_task=SpeciesSearch(sensed="rod"),
        observable=VisionCones(sees="both"),
        start_radius=30.0,
        **changed,
    )


def alike() -> list[SwarmTrain]:
    """What may differ in a batch: temperature, size, shape, seed; two numbers of substeps."""
    return [
        train(
            seed=seed,
            physics=Physics(temperature_kelvin=kelvin),
            robots=dataclasses.replace(ROBOTS, radius=radius, shape=shape),
            timing=Timing(slice_seconds=0.1, allow_coarse_dt=True),
        )
        for seed, kelvin, radius, shape in [
            (0, 300.0, 2.5, "sphere"),
            (1, 0.0, 2.5, "prolate"),
            (2, 350.0, 0.5, "sphere"),
            (3, 273.0, 0.15, "sphere"),
            (4, 300.0, 1.0, "oblate"),
        ]
    ]


def together(root: Path, members: list[Workload], name: str = "first", stop: threading.Event | None = None) -> dict[str, str]:
    """One attempt at all as one batch; how each ended, by attempt."""
    ends: dict[str, str] = {}
    names = [f"{name}-{number}" for number in range(len(members))]
    execute_many(
        root,
        [task_of(one) for one in members],
        attempts=names,
        code="test",
        told=lambda attempt, ended: ends.update({attempt: ended.outcome}),
        stop=stop,
    )
    return ends


def found(root: Path, workload: Workload) -> Any:
    commit = taskdir.read_commit(root, task_of(workload).commit_name)
    return rows(root, commit), contents(root, commit)


@pytest.mark.parametrize("members", [alike(), [rod_train(seed=seed) for seed in range(3)]], ids=["sources", "rods"])
def test_a_training_gives_the_same_bits_alone_and_in_a_batch(members: list[SwarmTrain], tmp_path: Path):
    assert set(together(tmp_path / "batch", list(members)).values()) == {"completed"}
    for one in members:
        committed(tmp_path / "alone", one)
        assert found(tmp_path / "batch", one) == found(tmp_path / "alone", one)


@pytest.mark.parametrize(
    "member", [train(), rod_train(), train(late_rewards=True, reset_every=2, num_groups=2)], ids=["source", "rod", "more"]
)
def test_a_training_that_was_stopped_gives_the_same_bits(member: SwarmTrain, tmp_path: Path):
    committed(tmp_path / "whole", member)
    stopped = attempt(tmp_path / "parts", member, "first", stop=StopAfter(3))
    assert (stopped.outcome, stopped.checkpoint) == ("interrupted", 3)
    again = attempt(tmp_path / "parts", member, "second")
    assert (again.outcome, again.resumed_at) == ("completed", 3)
    assert found(tmp_path / "parts", member) == found(tmp_path / "whole", member)


def test_a_batch_that_was_stopped_goes_on_where_its_slowest_member_can(tmp_path: Path):
    members = [train(seed=seed) for seed in range(3)]
    attempt(tmp_path / "parts", members[1], "alone", stop=StopAfter(5))
    assert set(together(tmp_path / "parts", list(members), "first", StopAfter(2)).values()) == {"interrupted"}
    assert set(together(tmp_path / "parts", list(members), "second").values()) == {"completed"}
    for one in members:
        committed(tmp_path / "whole", one)
        assert found(tmp_path / "parts", one) == found(tmp_path / "whole", one)


def deployments() -> list[SwarmDeploy]:
    return [
        SwarmDeploy(train=train(seed=seed), temperature_kelvin=kelvin, deployment=SHORT)
        for seed, kelvin in ((0, None), (0, 350.0), (1, 0.0))
    ]


def test_a_deployment_gives_the_same_bits_alone_in_a_batch_and_interrupted(tmp_path: Path):
    members = deployments()
    for one in members:
        committed(tmp_path / "alone", one)
        committed(tmp_path / "batch", one.train)
    assert set(together(tmp_path / "batch", list(members), "first", StopAfter(17)).values()) == {"interrupted"}
    assert set(together(tmp_path / "batch", list(members), "second").values()) == {"completed"}
    for one in members:
        assert found(tmp_path / "batch", one) == found(tmp_path / "alone", one)
    own, warm = (last(committed(tmp_path / "alone", one)) for one in members[:2])
    assert own["mean_distance"] != warm["mean_distance"]


def test_what_is_scored_is_what_the_frames_say(tmp_path: Path):
    deploy = SwarmDeploy(train=train(), num_agents=3, deployment=dataclasses.replace(SHORT, num_environments=2, start_radius=12.0))
    commit = committed(tmp_path, deploy)
    tables = rows(tmp_path, commit)
    frames, positions = tables["frames"], tables["positions"]
    assert len(frames["frame"]) == 2 * 11
    assert len(positions["agent"]) == 2 * 11 * 3
    scored = [value for frame, value in zip(frames["frame"], frames["mean_distance"]) if frame >= 5]
    assert last(commit)["mean_distance"] == pytest.approx(sum(scored) / len(scored))
    for environment, frame, mean in zip(frames["environment"], frames["frame"], frames["mean_distance"]):
        own = [
            (x * x + y * y) ** 0.5
            for e, f, x, y in zip(positions["environment"], positions["frame"], positions["x"], positions["y"])
            if (e, f) == (environment, frame)
        ]
        assert sum(own) / 3 == pytest.approx(mean, rel=1e-6)
    policy = tables["policy"]
    assert set(policy["action"]) == {"ccw", "forward", "cw", "nothing"}
    assert sum(policy["probability"]) == pytest.approx(deploy.num_observations)


def test_a_policy_that_is_no_number_diverges_and_leaves_the_others_alone(tmp_path: Path):
    good, bad = train(seed=0), train(seed=1, robots=dataclasses.replace(ROBOTS, turn_rate=1e42))
    ends = together(tmp_path / "batch", [good, bad])
    assert list(ends.values()).count("completed") == 1
    committed(tmp_path / "alone", good)
    assert found(tmp_path / "batch", good) == found(tmp_path / "alone", good)


def test_what_comes_from_others_has_no_source_that_could_differ():
    away = ConcentrationField(field=AWAY)
    train(task=SpeciesSearch(), observable=away).check()
    train(task=GradientSensing(field=AWAY), observable=ParticleSensing()).check()
    both = train(task=MultiTasking(first=SpeciesSearch(), second=GradientSensing(field=AWAY)), observable=MultiSensing(first=away))
    both.check()
    assert both.world().source == (9.0, 0.0)


def test_temperatures_that_change_differ_in_a_batch(tmp_path: Path):
    curricula = [{}, {"temperatures": (0.0, 350.0)}, {"temperatures": (350.0, 0.0)}, {"temperature_range": (0.0, 350.0)}]
    members = [train(curriculum=Curriculum(episodes=(4, 3), **one), timing=TWENTY) for one in curricula]
    assert set(together(tmp_path / "batch", list(members)).values()) == {"completed"}
    ends = set()
    for one in members:
        committed(tmp_path / "alone", one)
        assert found(tmp_path / "batch", one) == found(tmp_path / "alone", one)
        ends.add(last(committed(tmp_path / "alone", one))["mean_return"])
    assert len(ends) == 4


def test_the_lead_task_is_rewarded_in_all_phases_but_the_last():
    own = rod_train(curriculum=Curriculum(episodes=(2, 2, 1), exploration=(0.2, 0.1, 0.0)))
    assert [type(own.task_at(episode)) for episode in (1, 4, 5)] == [SpeciesSearch, SpeciesSearch, RotateRod]
    assert isinstance(train().task_at(1), GradientSensing)


def test_a_swarm_that_follows_a_rule_is_scored_alike(tmp_path: Path):
    one = SwarmClassical(robots=ROBOTS, timing=Timing(slice_seconds=0.1), agent=RunAndTumble(), deployment=SHORT)
    assert set(last(committed(tmp_path, one))) >= {"success", "mean_distance", "time_to_source", "mean_reward"}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Physics(temperature_kelvin=-1.0), "temperature_kelvin must be at least 0"),
        (lambda: Robots(radius=0.0), "radius must be above 0"),
        (lambda: Robots(shape="cube"), "shape must be one of sphere, prolate, oblate, got 'cube'"),
        (lambda: Robots(shape="sphere", aspect=3.0), "aspect must be 1 or null for shape=sphere"),
        (lambda: Robots(shape="oblate", aspect=3.0), "aspect must be below 1 for shape=oblate"),
        (lambda: Physics(viscosity=None, temperature_kelvin=150.0), "give physics.viscosity as a number"),
        (lambda: train(task=RotateRod()), "needs a rod"),
        (lambda: train(physics=Physics(num_dimensions=3, rod_length=50.0), task=RotateRod()), "dimensions"),
        (lambda: train(start_radius=5.0), "start_radius of at least 7.91 um, got 5"),
        (lambda: train(robots=dataclasses.replace(ROBOTS, start_positions=CLOSE)), "robots 0 and 1 are 3 um apart"),
        (lambda: train(robots=dataclasses.replace(ROBOTS, start_positions=(0.0, 0.0))), "2 numbers for each of 4 robots, got 2"),
        (lambda: train(timing=Timing(slice_seconds=0.1, num_substeps=2)), "take at least 20 substeps, or timing.allow_coarse_dt=true"),
        (lambda: train(robots=dataclasses.replace(ROBOTS, radius=0.05)), "timing.allow_coarse_dt=true, which resolves turns alone"),
        (lambda: train(lead_task=SpeciesSearch(sensed="rod")), "lead_task: species_search needs a rod"),
        (lambda: train(lead_task=GradientSensing(), curriculum=Curriculum(episodes=(2,), exploration=(0.0,))), "lead_task is for phases"),
        (lambda: train(learner=Ppo(num_minibatches=100)), "num_minibatches must be at most the 80 samples"),
        (lambda: train(robots=dataclasses.replace(ROBOTS, mass=1.0)), "robots.mass is for physics.dynamics=langevin"),
        (lambda: train(task=GradientSensing(field=Concentration(source=(9.0, 0.0)))), "field.source must be one, got [9.0, 0.0] and []"),
        (lambda: train(observable=ConcentrationField(field=Concentration(source=(9.0, 0.0, 1.0)))), "must have 2 coordinates"),
        (lambda: train(task=MultiTasking(first=GradientSensing(field=AWAY))), "got [9.0, 0.0] and []: what robots smell"),
        (lambda: train(observable=MultiSensing(first=ConcentrationField(field=AWAY))), "got [] and [9.0, 0.0]: what robots smell"),
        (lambda: train(physics=Physics(field=Harmonic(stiffness=1e6))), "the field (its rate times dt at most 0.1) needs 23,843,438 sub"),
        (lambda: train(action=Discrete(forces=(0.0, 50.0), torques=(1.0, 0.0)), timing=TWENTY), "take at least"),
        (lambda: train(curriculum=Curriculum(episodes=(1, 1), temperatures=(1e6, 300.0)), timing=TWENTY), "1e+06 K"),
        (lambda: SwarmClassical(agent=Baeuerle(), physics=Physics(num_dimensions=3)), "agent: "),
        (lambda: Physics(wall_segments=(1.0, 1.0, 1.0, 1.0)), "with one that has no length"),
        (lambda: train(physics=Physics(walls=(3.0, 3.0))), "would fill"),
        (lambda: train(num_groups=3), "num_groups must divide robots.num_agents=4, got 3"),
        (lambda: Deployment(num_slices=10, slices_per_frame=1, scored_from_frame=50), "scored_from_frame must be below 11"),
    ],
)
def test_bad_settings_are_refused_with_what_is_allowed(made: Any, words: str):
    with pytest.raises(ConfigError) as error:
        made()
    assert words in str(error.value)


def test_robots_begin_where_they_are_told(tmp_path: Path):
    places = (0.0, 0.0, 10.0, 0.0, 20.0, 0.0, 40.0, 5.0)
    one = SwarmDeploy(train=train(robots=dataclasses.replace(ROBOTS, start_positions=places)), deployment=SHORT)
    positions = rows(tmp_path, committed(tmp_path, one))["positions"]
    assert [value for frame, x, y in zip(positions["frame"], positions["x"], positions["y"]) if frame == 0 for value in (x, y)] == list(
        places
    )


def test_the_policy_file_says_how_it_was_trained(tmp_path: Path):
    from safetensors import safe_open

    commit = committed(tmp_path, train())
    with safe_open(taskdir.payload_path(tmp_path, commit, POLICY), "pt") as file:
        assert '"radius": 2.5' in file.metadata()["swarm_train"]
        assert file.get_tensor("actor.weight0").shape == (1, 1, 128)


def test_rows_are_means_since_the_rows_before(tmp_path: Path):
    every, few = (scalars(committed(tmp_path, train(num_evaluations=count))) for count in (7, 1))
    mean = sum(every["mean_return", episode] for episode in range(1, 8)) / 7
    assert few["mean_return", 7] == pytest.approx(mean, rel=1e-12)


KEEPING = Keeping(every=2, num_kept=2, window=2, goal=-1e9, goal_stops=True)


@pytest.mark.parametrize("keeping", [dataclasses.replace(KEEPING, goal_stops=False), KEEPING], ids=["all", "goal"])
def test_policies_are_kept_by_rules_also_where_the_training_was_stopped(keeping: Keeping, tmp_path: Path):
    member = train(keeping=keeping)
    commit = committed(tmp_path / "whole", member)
    names = sorted(payload.name for payload in commit.files)
    if keeping.goal_stops:
        assert names == ["policy-2.safetensors", POLICY]
        assert last(commit)["num_episodes"] == 2
        return
    assert names == ["policy-2.safetensors", "policy-4.safetensors", "policy-6.safetensors", POLICY]
    attempt(tmp_path / "parts", member, "first", stop=StopAfter(5))
    assert attempt(tmp_path / "parts", member, "second").outcome == "completed"
    assert found(tmp_path / "parts", member) == found(tmp_path / "whole", member)


def test_a_policy_that_reached_its_goal_leaves_the_others_alone(tmp_path: Path):
    members = [train(seed=0, keeping=dataclasses.replace(KEEPING, goal=0.1)), train(seed=1, keeping=dataclasses.replace(KEEPING, goal=0.1))]
    assert set(together(tmp_path / "batch", list(members)).values()) == {"completed"}
    for one in members:
        committed(tmp_path / "alone", one)
        assert found(tmp_path / "batch", one) == found(tmp_path / "alone", one)


def test_curiosity_and_ppo_are_learned_by_in_a_training_and_survive_a_stop(tmp_path: Path):
    member = train(learner=Ppo(num_epochs=2, num_minibatches=2), curiosity=Curiosity(weight=0.5))
    commit = committed(tmp_path / "whole", member)
    assert last(commit)["mean_curiosity"] > 0
    attempt(tmp_path / "parts", member, "first", stop=StopAfter(4))
    assert attempt(tmp_path / "parts", member, "second").outcome == "completed"
    assert found(tmp_path / "parts", member) == found(tmp_path / "whole", member)


def test_swarms_of_two_aspects_whose_contacts_turn_them_are_batches_of_their_own(tmp_path: Path):
    contact, coarse = Physics(contact="gay_berne"), Timing(slice_seconds=0.1, allow_coarse_dt=True)
    members = [
        train(physics=contact, timing=coarse, robots=dataclasses.replace(ROBOTS, shape=shape), curriculum=Curriculum(episodes=(1, 1)))
        for shape in ("prolate", "oblate")
    ]
    assert set(together(tmp_path, list(members)).values()) == {"completed"}


def test_a_swarm_that_is_nowhere_is_no_failure_to_find_the_source(tmp_path: Path):
    trap = Physics(field=Harmonic(stiffness=1e6))
    coarse = Timing(slice_seconds=0.1, allow_coarse_dt=True)
    one = SwarmClassical(robots=ROBOTS, physics=trap, timing=coarse, agent=Constant(), deployment=SHORT)
    assert committed(tmp_path, one).status == "diverged"


def test_a_rod_that_has_turned_a_hundred_times_turns_on_as_at_first():
    world = dataclasses.replace(rod_train().world(), physics=Physics(rod_length=40.0, rod_beads=24, temperature_kelvin=0.0), seed=1)
    turned = []
    for angle in (0.3, 0.3 + 200 * math.pi):
        arena = arena_of([world], "cpu")
        direction = torch.tensor([math.cos(0.3), math.sin(0.3)])
        aside = torch.tensor([-direction[1], direction[0]])
        places = torch.stack([sign * (15.0 * direction - 3.5 * aside) + shift * direction for sign in (1, -1) for shift in (-3.0, 3.0)], 1)
        facing = torch.stack([sign * aside for sign in (1, 1, -1, -1)], 1)
        state = arena.engine.start_at(places[:, None, None].contiguous(), facing[:, None, None].contiguous())
        state.rods = torch.full((1, 1), angle, dtype=torch.float64)
        for _ in range(10):
            arena.engine.advance(state, arena.forces.expand(arena.engine.shape), torch.zeros(arena.engine.shape))
        turned.append(float(state.rods) - angle)
    assert turned[0] != 0.0
    assert turned[1] == pytest.approx(turned[0], rel=1e-3)


def test_a_context_is_what_a_notebook_needs(tmp_path: Path):
    context = Context(root=tmp_path, task=task_of(train()), attempt="by-hand")
    names = {row.name for row in train().run(context)}
    assert {"mean_return", "mean_distance", "entropy"} <= names
