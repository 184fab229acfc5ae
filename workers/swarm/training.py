"""Training runs of policies that go on as one batch: each has its own rows, file and checkpoints, as if it were alone."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workers.errors import Diverged
from workers.pauses import pause
from workers.processes import keep_freed_memory
from workers.seeds import role_seed
from workers.swarm.policies import new_policies
from workers.swarm.runs import Run, batches, joined
from workers.swarm.shelf import Shelf
from workers.swarm.sums import inner_mean
from workers.swarm.world import arena_of, distances, kept
from workers.workload import Row
from workers.workloads.swarm_train import POLICY

if TYPE_CHECKING:
    from torch import Tensor

    from workers.context import Context
    from workers.swarm.learning import Episode
    from workers.workloads.swarm_train import SwarmTrain

# P policies; E environments; N agents; G networks of a policy

Event = tuple[int, "Row | Diverged | None"]
LEARNED, TALLY = "policy.", "tally."


def train_many(members: "Sequence[tuple[SwarmTrain, Context]]") -> Iterator[Event]:
    """(number of a member, a row of it, or None at its end, or why it diverged); members of equally many substeps go on as one."""
    keep_freed_memory()
    for runs in batches(members, lambda settings: settings.world().kind()):
        yield from _Together(runs).run()


class _Together:
    """Policies of one batch, all after the same number of episodes. `tallies`: sums (P,) by name since the last rows."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.gone = list(runs), set[int]()
        self.settings, self.context = runs[0].settings, runs[0].context
        self.episode = max(0, runs[0].started_at)
        self.tallies: dict[str, Tensor] = {}
        self.worlds = [run.settings.world() for run in runs]
        self.arena = arena_of(self.worlds, self.context.device, runs if self.episode else ())
        seeds = [weight_seed(run.settings) for run in runs]
        self.policies = new_policies(
            self.settings.learner,
            seeds,
            self.arena.seen.shape[-1],
            self.settings.action.num_outputs,
            self.settings.network,
            num_groups=self.settings.num_groups,
            curiosity=self.settings.curiosity,
            dtype=self.arena.engine.dtype,
            device=self.context.device,
        )
        if self.episode:
            self.policies.restore([run.tensors(LEARNED) for run in runs])
            names = runs[0].tensors(TALLY)
            self.tallies = {name: joined(runs, TALLY, name) for name in names}
        self.shelves = {run.number: Shelf(run.settings.keeping) for run in runs if run.settings.keeping.is_active}
        for run in runs if self.episode else ():
            if run.number in self.shelves:
                self.shelves[run.number].restore(run)
        self.checkpointed = self.reported = time.monotonic()

    def run(self) -> Iterator[Event]:
        """To the last episode."""
        evaluated, last = self.settings.evaluated(), self.settings.num_steps
        for episode in range(self.episode + 1, last + 1):
            returns = self._play(episode)
            yield from self._shelve(episode, returns)
            if episode in evaluated:
                yield from self._rows(episode)
            if not self._going():
                return
            if episode < last:
                pause(self, episode, [run.context for run in self._going()])
        for run in self._going():
            yield from self._finish(run)

    def _going(self) -> list[Run]:
        return [run for run in self.runs if run.number not in self.gone]

    # -- episodes ---------------------------------------------------------------------------------------------------------------

    def _play(self, episode: int) -> "Tensor":
        """One, and what is learned of it; its mean returns (P,)."""
        settings, self.arena.task = self.settings, self.settings.task_at(episode)
        curricula = [run.settings.curriculum for run in self.runs]
        if any(one.changes_temperature for one in curricula):
            own = [(world.seed, world.physics.temperature_kelvin) for world in self.worlds]
            kelvin_P = [one.temperature_at(episode - 1, *its) for one, its in zip(curricula, own, strict=True)]
            self.arena.engine.set_temperatures(kelvin_P)
        if settings.reset_every and (episode - 1) % settings.reset_every == 0 and episode > 1:
            self.arena.begin(self.worlds[0].begin(self.arena.engine))
        played = self.arena.episode(self.policies.acting, settings.slices_per_episode, settings.curriculum.exploration_at(episode - 1))
        returns = _of_policies(played, len(self.runs))
        self._tally("mean_return", returns)
        if settings.curiosity.weight:
            played, new = settings.curiosity.rewarded(self.policies, played)
            self._tally("mean_curiosity", inner_mean(new.view(len(self.runs), -1)))
        said = settings.learner.learn(self.policies, settings.action, played)
        self._tally("mean_distance", inner_mean(distances(self.arena.state, self.worlds[0].source).flatten(1)))
        for name, values in said.items():
            self._tally(name, inner_mean(values.double().view(len(self.runs), -1)))
        self._tally("count", self.tallies["mean_return"].new_ones(len(self.runs)))
        self.episode = episode
        return returns

    def _shelve(self, episode: int, returns: "Tensor") -> Iterator[Event]:
        """Keep policies where their rules say so; those that have reached their goal are done."""
        found = returns.tolist() if self.shelves else []
        for place, run in enumerate(self.runs):
            if run.number in self.gone or run.number not in self.shelves:
                continue
            if self.shelves[run.number].look(episode, found[place], self.policies, place):
                yield from self._finish(run)

    def _finish(self, run: Run) -> Iterator[Event]:
        """The last rows, with means where they are not out yet, and the files."""
        place = self.runs.index(run)
        if self.tallies and self.episode not in run.settings.evaluated():
            for name, values in self._means().items():
                yield run.number, Row(step=self.episode, name=name, value=values[place])
        self._save(POLICY, run, self.policies.weights(place))
        if shelf := self.shelves.get(run.number):
            for episode, weights in sorted(shelf.weights.items()):
                self._save(f"policy-{episode}.safetensors", run, weights, kept_for=shelf.reasons()[episode])
        yield run.number, Row(step=self.episode, name="num_episodes", value=self.episode)
        yield run.number, Row(step=self.episode, name="coarse_dt", value=float(self.worlds[place].is_coarse()))
        self.gone.add(run.number)
        yield run.number, None

    def _tally(self, name: str, values: "Tensor") -> None:
        """Add, in double precision."""
        values = values.double()
        self.tallies[name] = self.tallies[name] + values if name in self.tallies else values

    def _rows(self, episode: int) -> Iterator[Event]:
        """Means since the last rows; a policy whose numbers are none is over, and the others do not notice."""
        found = self._means()
        for place, run in enumerate(self.runs):
            if run.number in self.gone:
                continue
            for name, values in found.items():
                yield run.number, Row(step=episode, name=name, value=values[place])
            if not math.isfinite(sum(values[place] for values in found.values())):
                self.gone.add(run.number)
                yield (
                    run.number,
                    Diverged(f"the policy's numbers are none at episode {episode}; try a smaller learning rate of the learner"),
                )
        self.tallies = {}

    def _means(self) -> dict[str, list[float]]:
        """Of each policy, since the last rows."""
        count = self.tallies["count"]
        return {name: (values / count).tolist() for name, values in sorted(self.tallies.items()) if name != "count"}

    # -- what is kept -----------------------------------------------------------------------------------------------------------

    def checkpoint(self, step: int) -> None:
        """Of each policy, as it would write it alone."""
        for place, run in enumerate(self.runs):
            if run.number not in self.gone:
                shelf = self.shelves.get(run.number)
                meta = {"slices": self.arena.engine.slices} | ({"shelf": shelf.state} if shelf else {})
                run.context.checkpoint(step, self._tensors(place) | (shelf.tensors() if shelf else {}), **meta)
        self.checkpointed = time.monotonic()

    def _tensors(self, place: int) -> "dict[str, Tensor]":
        return {
            **kept(self.arena, place),
            **{f"{LEARNED}{name}": value for name, value in self.policies.tensors(place).items()},
            **{f"{TALLY}{name}": values[place] for name, values in self.tallies.items()},
        }

    def _save(self, name: str, run: Run, weights: "dict[str, Tensor]", **facts: str) -> None:
        """A policy's file."""
        from safetensors.torch import save_file

        # one entry: the order of several is another in every file
        header = {"version": run.settings.version, "settings": of_identity(run.settings), "episode": self.episode, **facts}
        with run.context.file(name) as path:
            save_file({key: value.cpu().contiguous() for key, value in weights.items()}, path, metadata={"swarm_train": json.dumps(header)})


def of_identity(settings: "SwarmTrain") -> dict[str, Any]:
    """Plain settings that make a task what it is, so that one key has one file."""
    names = {field.name for field in dataclasses.fields(settings) if field.metadata.get("identity", True)}
    return {name: value for name, value in settings.to_plain().items() if name in names | {"name"}}


def weight_seed(settings: "SwarmTrain") -> int:
    """Of networks."""
    return role_seed(settings.seed, "init", settings.seed_init)


def _of_policies(played: "Episode", num_policies: int) -> "Tensor":
    """The mean return (P,) of an episode over a policy's agents, in double precision."""
    rewards = played.rewards.double().transpose(0, 1).reshape(num_policies, -1)
    return inner_mean(rewards) * played.num_slices
