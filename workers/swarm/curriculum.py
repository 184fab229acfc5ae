"""Phases of a training: how long, with how much exploration, at which temperature."""

from dataclasses import dataclass

from workers.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class Curriculum(Settings):
    """Phases one after another (placeholder until the full one)."""

    episodes: tuple[int, ...] = setting((5000, 5000), low=1)
    exploration: tuple[float, ...] = setting((0.2, 0.0), low=0.0, high=1.0)

    @property
    def num_episodes(self) -> int:
        """Of all phases."""
        return sum(self.episodes)

    def phase_of(self, episode: int) -> int:
        """Of an episode, counted from 1."""
        for phase, count in enumerate(self.episodes):
            if episode <= count:
                return phase
            episode -= count
        return len(self.episodes) - 1

    def exploration_at(self, episode: int) -> float:
        """Probability."""
        return self.exploration[self.phase_of(episode)]
