"""Phases of training."""

import subprocess
import sys

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm import curriculum, noise
from workers.swarm.curriculum import Curriculum

THREE = Curriculum(episodes=(2, 1, 3), exploration=(0.2, 0.1, 0.0), temperatures=(350, 300, 0))


def test_each_episode_is_of_its_phase():
    assert THREE.num_episodes == 6 and THREE.num_phases == 3
    assert [THREE.phase_of(episode) for episode in range(6)] == [0, 0, 1, 2, 2, 2]
    assert [THREE.exploration_at(episode) for episode in range(6)] == [0.2, 0.2, 0.1, 0.0, 0.0, 0.0]
    assert [THREE.temperature_at(episode, 7, 293.0) for episode in range(6)] == [350, 350, 300, 0, 0, 0]
    for episode in (-1, 6):
        with pytest.raises(ValueError, match=f"episode must be between 0 and 5, got {episode}"):
            THREE.phase_of(episode)


def test_the_default_is_that_of_the_papers():
    default = Curriculum()
    assert default.num_episodes == 10_000
    assert [default.exploration_at(episode) for episode in (0, 4999, 5000, 9999)] == [0.2, 0.2, 0.0, 0.0]
    assert default.temperature_at(3, 1, 293.0) == 293.0


def test_temperatures_are_drawn_anew_for_each_episode_of_each_policy():
    drawn = Curriculum(temperature_range=(100, 400))
    found = [[drawn.temperature_at(episode, seed, 300.0) for episode in range(1000)] for seed in range(3)]
    assert found[1] == [drawn.temperature_at(episode, 1, 0.0) for episode in range(1000)]
    assert len({value for one in found for value in one}) == 3000
    for one in found:
        assert 100 <= min(one) < 110 and 390 < max(one) <= 400
        assert sum(one) / 1000 == pytest.approx(250, abs=10)
    # one after another, and between policies, they know nothing of each other
    correlations = torch.corrcoef(torch.tensor([*found, found[0][1:] + found[0][:1]])) - torch.eye(4)
    assert correlations.abs().max() < 0.12
    assert Curriculum(temperature_range=(300, 300)).temperature_at(5, 1, 0.0) == 300.0


def test_numbers_are_of_the_generator_of_all_noise():
    own = [curriculum._mix(value * 0x9E3779B97F4A7C15) for value in (0, 1, 12345)]
    theirs = noise.mix(torch.tensor([0, 1, 12345]) * noise.GOLDEN).tolist()
    assert own == [value % 2**64 for value in theirs]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(episodes=()), "episodes must have one number or more"),
        (dict(episodes=(5, 0)), "episodes must be at least 1, got 0"),
        (dict(episodes=(5,)), r"exploration must have a number for each of the 1 phases, got 2: \(0.2, 0.0\)"),
        (dict(exploration=(0.2, 1.5)), "exploration must be between 0.0 and 1.0, got 1.5"),
        (dict(temperatures=(300,)), "temperatures must have a number for each of the 2 phases, got 1"),
        (dict(temperatures=(300.0, -1.0)), "temperatures must be at least 0.0, got -1.0"),
        (dict(temperature_range=(300,)), "temperature_range must be a lowest and a highest"),
        (dict(temperature_range=(300, 200)), "temperature_range must be a lowest and a highest"),
        (dict(temperature_range=(200, 300), temperatures=(300, 300)), "temperatures must be empty where temperature_range is given"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Curriculum(**settings)


def test_no_torch_is_needed():
    code = "import sys, workers.swarm.curriculum, workers.swarm.keeping; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
