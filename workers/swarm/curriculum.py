"""What changes while a swarm trains: phases of episodes, with their exploration and their temperature."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from workers.errors import ConfigError
from workers.settings import Settings, setting

# what tells these numbers from a policy's others of the same seed
STREAM = 2**35


@dataclass(frozen=True, kw_only=True)
class Curriculum(Settings):
    """Phases one after another; with the defaults those of 2307.00994 and 2404.01999."""

    episodes: tuple[int, ...] = setting((5000, 5000), low=1, help="of each phase")
    exploration: tuple[float, ...] = setting((0.2, 0.0), low=0.0, high=1.0, help="of each phase, share of actions drawn at random")
    temperatures: tuple[float, ...] = setting((), low=0.0, unit="K", help="of each phase; empty: the physics' own")
    temperature_range: tuple[float, ...] = setting(
        (), low=0.0, unit="K", help="lowest and highest, between which each episode of each policy has its own; empty: none is drawn"
    )

    def check(self) -> None:
        """One of each for every phase, and temperatures given in one way."""
        if not self.episodes:
            raise ConfigError("episodes must have one number or more, one for each phase, got none")
        for name in ("exploration", "temperatures"):
            values = getattr(self, name)
            if len(values) != len(self.episodes) and (values or name == "exploration"):
                raise ConfigError(f"{name} must have a number for each of the {len(self.episodes)} phases, got {len(values)}: {values}")
        if self.temperature_range and (len(self.temperature_range) != 2 or self.temperature_range[0] > self.temperature_range[1]):
            raise ConfigError(f"temperature_range must be a lowest and a highest temperature, or empty, got {self.temperature_range}")
        if self.temperature_range and self.temperatures:
            raise ConfigError(
                f"temperatures must be empty where temperature_range is given, got {self.temperatures} and {self.temperature_range}"
            )

    @property
    def num_phases(self) -> int:
        """Of all."""
        return len(self.episodes)

    @property
    def num_episodes(self) -> int:
        """Of all phases together."""
        return sum(self.episodes)

    def phase_of(self, episode: int) -> int:
        """The phase, from 0, of an episode, from 0."""
        if not 0 <= episode < self.num_episodes:
            raise ValueError(f"episode must be between 0 and {self.num_episodes - 1}, got {episode}")
        return bisect_right(list(accumulate(self.episodes)), episode)

    def exploration_at(self, episode: int) -> float:
        """Share of actions drawn at random."""
        return float(self.exploration[self.phase_of(episode)])

    def temperature_at(self, episode: int, seed: int, own_kelvin: float) -> float:
        """In K: the phase's, one drawn for the policy of `seed`, or the physics' own."""
        phase = self.phase_of(episode)
        if self.temperature_range:
            low, high = self.temperature_range
            return low + _uniform(seed, episode) * (high - low)
        return float(self.temperatures[phase]) if self.temperatures else own_kelvin


def _uniform(seed: int, episode: int) -> float:
    """From 0 to 1, of these two numbers alone; SplitMix64, as the noise of workers/swarm/noise.py."""
    return _mix(_mix((seed + STREAM) * 0x9E3779B97F4A7C15) + episode * 0x9E3779B97F4A7C15) / 2**64


def _mix(value: int) -> int:
    value %= 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)
