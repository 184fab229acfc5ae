"""Deploys the policies of many trainings at once, those that fit into one batch together."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workers.ensembles.groups import without
from workers.swarm.arena import Arena
from workers.swarm.deployment import Deployed, Event
from workers.swarm.networks import Networks
from workers.swarm.policies import Acting
from workers.swarm.runs import Run, batches
from workers.swarm.world import AXES, arena_of
from workers.workload import Rows
from workers.workloads.swarm_train import POLICY

if TYPE_CHECKING:
    from torch import Tensor

    from workers.context import Context
    from workers.swarm.parts import ClassicalAgent, Controls
    from workers.workloads.swarm_classical import SwarmClassical
    from workers.workloads.swarm_deploy import SwarmDeploy
    from workers.workloads.swarm_train import SwarmTrain

# P policies


def deploy_many(members: "Sequence[tuple[SwarmDeploy, Context]]") -> Iterator[Event]:
    """(number of a member, a row of it, or None at its end); those whose robots and networks are alike act as one batch."""
    for runs in batches(members, _kind):
        yield from _deployed(runs)


def follow_many(members: "Sequence[tuple[SwarmClassical, Context]]") -> Iterator[Event]:
    """The same of swarms that follow a rule."""
    for runs in batches(members, _kind):
        agent: ClassicalAgent = runs[0].settings.agent
        arena = _arena(runs)

        def act(arena: Arena, agent: "ClassicalAgent" = agent) -> "Controls":
            return agent.controls(arena.engine, arena.before, arena.state)

        yield from Deployed(runs, arena, act).run()


def _kind(settings: Any) -> str:
    """Of equally many substeps, and equal but for what may differ in a batch."""
    own = getattr(settings, "train", settings)
    return json.dumps([settings.world().kind(), without(own.to_plain(), AXES)], sort_keys=True)


def _arena(runs: list[Run]) -> Arena:
    return arena_of([run.settings.world() for run in runs], runs[0].context.device, runs if runs[0].started_at >= 0 else ())


def _deployed(runs: list[Run]) -> Iterator[Event]:
    from safetensors.torch import load_file

    files = [run.context.input("train").file(POLICY) for run in runs]
    train: SwarmTrain = runs[0].settings.train
    acting = Acting(actors_of([load_file(path) for path in files], train.network.activation, runs[0].context.device), train.num_groups)
    arena = _arena(runs)

    def act(arena: Arena) -> "Controls":
        return arena.action.controls(arena.act(acting))

    def policy(place: int) -> list[Rows]:
        return [_policy(runs[place].settings, acting, place, arena)] if arena.seen.shape[-1] == 1 and arena.action.names else []

    yield from Deployed(runs, arena, act, policy).run()


def actors_of(kept: "Sequence[dict[str, Tensor]]", activation: str, device: str) -> Networks:
    """The actors of policies' files as one batch."""
    import torch

    num_layers = sum(name.startswith("actor.weight") for name in kept[0])

    def layers(kind: str) -> "list[Tensor]":
        return [torch.cat([one[f"actor.{kind}{layer}"] for one in kept]).to(device) for layer in range(num_layers)]

    return Networks(layers("weight"), layers("bias"), activation)


def _policy(settings: "SwarmDeploy", acting: Acting, place: int, arena: Arena) -> Rows:
    """The table `policy`: a row a group of agents, observed number and action."""
    import numpy as np
    import torch

    largest, names = settings.largest_observation, arena.action.names
    seen = torch.linspace(-largest, largest, settings.num_observations, dtype=arena.seen.dtype, device=arena.seen.device)
    with torch.no_grad():
        outputs = acting.actor(seen[None, :, None].expand(acting.actor.weights[0].shape[0], -1, -1).contiguous())
    own = outputs.view(-1, acting.num_groups, *outputs.shape[1:])[place]
    chances = torch.softmax(own.double(), -1).cpu().numpy()
    group, observation, action = np.meshgrid(np.arange(len(chances)), seen.double().cpu().numpy(), np.arange(len(names)), indexing="ij")
    return Rows(
        table="policy",
        columns={
            "group": group.ravel().tolist(),
            "observation": observation.ravel().tolist(),
            "action": [names[number] for number in action.ravel()],
            "probability": chances.ravel().tolist(),
        },
    )
