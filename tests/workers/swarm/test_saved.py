"""A policy by itself: read from its file, it acts as in its deployment, in simulation and on a rig, and what it did is saved."""

import dataclasses
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_runs import committed, rows

from workers import taskdir
from workers.errors import ConfigError, Garbled
from workers.swarm import trajectory
from workers.swarm.concentration import Concentration
from workers.swarm.curriculum import Curriculum
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.physics import Physics, Robots, Timing
from workers.swarm.saved import Policy, load_policy
from workers.swarm.scoring import Deployment
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.world import arena_of
from workers.workloads.swarm_deploy import SwarmDeploy
from workers.workloads.swarm_train import POLICY, SwarmTrain

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN = SwarmTrain(
    robots=Robots(num_agents=4, radius=2.5, speed_body_lengths=5.0, turn_rate=600.0),
    timing=Timing(slice_seconds=0.1),
    curriculum=Curriculum(episodes=(3, 2)),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def file(store: Path) -> Path:
    return taskdir.payload_path(store, committed(store, TRAIN), POLICY)


@pytest.fixture
def policy(file: Path) -> Policy:
    return load_policy(file)


def test_a_saved_policy_acts_as_its_deployment_does(store: Path, policy: Policy):
    plan = Deployment(num_slices=20, slices_per_frame=5, scored_from_frame=1, frames_per_position=1)
    deploy = SwarmDeploy(train=TRAIN, temperature_kelvin=350.0, num_agents=3, deployment=plan, seed=4)
    positions = rows(store, committed(store, deploy))["positions"]
    own = policy.deploy(num_slices=20, slices_per_frame=5, temperature_kelvin=350.0, num_agents=3, seed=4)
    assert own.positions.shape == (5, 3, 2)
    assert own.positions[..., 0].ravel().astype(float).tolist() == positions["x"]
    assert own.seconds.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


def test_what_robots_did_is_saved_with_units(policy: Policy, tmp_path: Path):
    import polars as pl

    rollout = policy.deploy(num_slices=6, slices_per_frame=2)
    for name in ("swarm.h5md", "swarm.parquet"):
        rollout.save(tmp_path / name)
    read = trajectory.read(tmp_path / "swarm.h5md")
    np.testing.assert_allclose(read.positions[..., :2], rollout.positions, rtol=1e-6)
    assert read.header.settings["robots"]["radius"] == 2.5
    assert read.header.action_names == ("ccw", "forward", "cw", "nothing")
    table = pl.read_parquet(tmp_path / "swarm.parquet")
    assert len(table) == 4 * 4
    assert {path.name for path in tmp_path.iterdir()} == {"swarm.h5md", "swarm.parquet"}
    with pytest.raises(ConfigError, match=r"saved as .h5md, .h5 or .parquet, got 'swarm.csv'"):
        rollout.save(tmp_path / "swarm.csv")


def test_a_task_saves_its_trajectory(store: Path):
    plan = Deployment(num_slices=20, slices_per_frame=5, scored_from_frame=1, frames_per_position=1, trajectory=True)
    commit = committed(store, SwarmDeploy(train=TRAIN, deployment=plan, seed=9))
    read = trajectory.read(taskdir.payload_path(store, commit, "trajectory.h5md"))
    columns = rows(store, commit)["positions"]
    np.testing.assert_allclose(read.positions[..., 0].ravel(), columns["x"], rtol=1e-6)
    assert read.seconds.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


def test_a_policy_of_rods_turns_the_rod_of_its_training(tmp_path: Path):
    from workers.swarm.observables.vision_cones import VisionCones
    from workers.swarm.tasks.rotate_rod import RotateRod

    train = SwarmTrain(
        robots=TRAIN.robots,
        physics=Physics(rod_length=40.0, rod_beads=24),
        timing=TRAIN.timing,
        curriculum=Curriculum(episodes=(1,), exploration=(0.0,)),
        task=RotateRod(),
        observable=VisionCones(sees="both"),
    )
    policy = load_policy(taskdir.payload_path(tmp_path, committed(tmp_path, train), POLICY))
    rollout = policy.deploy(num_slices=4, start_radius=30.0)
    assert rollout.rod_angles is not None
    assert rollout.rod_angles[0] == pytest.approx(math.remainder(90.0, 2 * math.pi))
    rollout.save(tmp_path / "rod.h5md")
    assert trajectory.read(tmp_path / "rod.h5md").positions.shape[1] == 4 + 24


def test_a_policy_acts_on_a_rig_as_on_the_engine_behind_it(policy: Policy, tmp_path: Path):
    import threading

    from workers.swarm.rig_server import serve

    deploy = SwarmDeploy(train=TRAIN, seed=2)
    arena = arena_of([deploy.world()], "cpu")
    address, ready = str(tmp_path / "rig"), threading.Event()
    server = threading.Thread(
        target=serve, args=(arena.engine, arena.state, address), kwargs={"ready": lambda *_: ready.set()}, daemon=True
    )
    server.start()
    assert ready.wait(20)
    far = policy.deploy(num_slices=8, seed=2, rig=address)
    near = policy.deploy(num_slices=8, seed=2)
    assert np.array_equal(far.positions, near.positions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_slices": 0}, "num_slices must be a whole number of at least 1, got 0"),
        ({"num_slices": 4, "slices_per_frame": 5}, "slices_per_frame must be at most num_slices=4, got 5"),
        ({"num_slices": 2, "rig": "nowhere:1", "num_agents": 3}, "temperature_kelvin and num_agents are the rig's own"),
        ({"temperature_kelvin": -1.0}, "temperature_kelvin must be at least 0"),
        ({"num_agents": 0}, "num_agents must be at least 1"),
    ],
)
def test_bad_deployments_are_refused(policy: Policy, options: dict[str, float], words: str):
    with pytest.raises(ConfigError, match=words):
        policy.deploy(**options)  # type: ignore[arg-type]


def rig(path: Path, train: SwarmTrain) -> str:
    """The address of one like the training."""
    from workers.swarm.rig_server import serve

    arena, ready = arena_of([SwarmDeploy(train=train).world()], "cpu"), threading.Event()
    threading.Thread(
        target=serve, args=(arena.engine, arena.state, str(path)), kwargs={"ready": lambda *_: ready.set()}, daemon=True
    ).start()
    assert ready.wait(20)
    return str(path)


def test_what_a_rig_did_is_saved_on_its_clock_with_whom_it_saw(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from workers.swarm.rig_server import SimulatedRig

    seen = SimulatedRig._seen

    def late(self: SimulatedRig, message: Mapping[str, Any]) -> dict[str, Any]:
        """A clock that began before and runs late; the robot 1 is lost from the third slice on."""
        told = seen(self, message)
        kept = [one for one in told["ids"] if one != 1 or self.engine.slices < 3]
        named = {name: [told[name][one] for one in kept] for name in ("positions", "directors")}
        return {**told, **named, "ids": kept, "seconds": 100.0 + 1.5 * told["seconds"]}

    monkeypatch.setattr(SimulatedRig, "_seen", late)
    rollout = policy.deploy(num_slices=4, rig=rig(tmp_path / "rig", TRAIN))
    rollout.save(tmp_path / "rig.h5md")
    read = trajectory.read(tmp_path / "rig.h5md")
    assert read.seconds.tolist() == pytest.approx([100.0, 100.15, 100.3, 100.45, 100.6])
    assert read.tracked[:3].all()
    assert read.tracked[3:].tolist() == [[True, False, True, True]] * 2


def test_distances_are_those_from_the_source(tmp_path: Path):
    field = Concentration(source=(30.0, -40.0))
    train = dataclasses.replace(TRAIN, task=GradientSensing(field=field), observable=ConcentrationField(field=field))
    policy = load_policy(taskdir.payload_path(tmp_path, committed(tmp_path, train), POLICY))
    rollout = policy.deploy(num_slices=2)
    assert rollout.distances[0] == pytest.approx(np.hypot(rollout.positions[0, :, 0] - 30.0, rollout.positions[0, :, 1] + 40.0), rel=1e-6)


def test_a_rig_that_is_unlike_the_training_is_refused(policy: Policy, tmp_path: Path):
    """And one that ends meanwhile leaves what was seen."""
    from workers.errors import RigLost
    from workers.swarm.rig_server import SimulatedRig

    small = dataclasses.replace(TRAIN, robots=dataclasses.replace(TRAIN.robots, radius=1.5))
    with pytest.raises(ConfigError, match="has robots of radius 1.5 um, and the policy was trained with 2.5 um"):
        policy.deploy(num_slices=2, rig=rig(tmp_path / "small", small))
    space = dataclasses.replace(TRAIN, physics=Physics(num_dimensions=3))
    with pytest.raises(ConfigError, match="has 3 dimensions and no rod, and the policy was trained in 2 with none"):
        policy.deploy(num_slices=2, rig=rig(tmp_path / "space", space))
    answer = SimulatedRig._integrate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SimulatedRig, "_integrate", lambda self, message: answer(self, message) if self.engine.slices < 3 else {"type": "what"}
        )
        with pytest.raises(RigLost) as lost:
            policy.deploy(num_slices=9, rig=rig(tmp_path / "mad", TRAIN))
    assert len(lost.value.rollout.positions) == 4  # type: ignore[attr-defined]


def test_a_file_that_is_no_policy_is_named(tmp_path: Path):
    from safetensors.torch import save_file

    with pytest.raises(ConfigError, match="no file .*missing"):
        load_policy(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("no policy")
    with pytest.raises(Garbled, match="text is no policy of swarm_train"):
        load_policy(tmp_path / "text")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(Garbled, match="no policy of swarm_train"):
        load_policy(tmp_path / "other.safetensors")
