"""Learners of swarms: each policy learns as if it were alone, bit for bit, and checkpoints keep all that it goes on from."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.actions.discrete import Discrete
from workers.swarm.adam import Adam
from workers.swarm.curiosity import Curiosity
from workers.swarm.learners.policy_gradient import PolicyGradient
from workers.swarm.learners.ppo import Ppo
from workers.swarm.learning import Episode, advantages, minibatches, returns, shortened, standardised_samples, taken
from workers.swarm.networks import ACTIVATIONS, Architecture, networks
from workers.swarm.parts import Learner
from workers.swarm.policies import Policies, new_policies, policy_seeds

# T slices; P policies; K agents of a network; I observed numbers

NUM_SLICES = 20
LEARNERS = {
    "policy_gradient": PolicyGradient(),
    "ppo": Ppo(num_epochs=1, num_minibatches=3, max_kl=0.01, max_gradient_norm=0.5, weight_decay=0.01, actor_learning_rate=1e-3),
    "ppo_full": Ppo(num_epochs=2, as_swarmrl=True),
}
DEEP = pytest.param(5, 10, (128, 128, 128, 128), marks=pytest.mark.slow)
SIZES = [(1, 1, (128, 128)), (10, 1, (128, 128)), (5, 10, (2, 128, 128)), DEEP, (3, 5, (33, 17))]


def new(learner: Learner, seeds: list[int], num_inputs: int = 3, hidden: tuple[int, ...] = (128, 128), **further) -> Policies:
    return new_policies(learner, seeds, num_inputs, Discrete().num_outputs, Architecture(hidden=hidden), **further)


def episode(seeds: list[int], number: int, num_agents: int, num_inputs: int) -> Episode:
    """Of each policy's own counter noise: large rewards where the first number that is seen goes with the action."""
    keys = noise.particle_keys(torch.tensor(seeds), 1, num_agents, noise.STARTS)[:, 0]
    drawn = noise.normals(keys, number, (NUM_SLICES + 1) * num_inputs, torch.float32).view(NUM_SLICES + 1, num_inputs, *keys.shape)
    seen = (3.0 * drawn).movedim(1, -1).contiguous()
    actions = (noise.uniforms(keys, number + 1000, NUM_SLICES, torch.float32) * 4).long()
    rewards = 100.0 * (seen[1:, ..., 0] * (actions - 1.5)).clamp(min=0.0)
    return Episode(observations=seen[:-1], actions=actions, rewards=rewards, last=seen[-1])


def trained(learner: Learner, seeds: list[int], num_agents: int, num_inputs: int, num_episodes: int, **further) -> Policies:
    policies = new(learner, seeds, num_inputs, **further)
    for number in range(num_episodes):
        learner.learn(policies, Discrete(), episode(seeds, number, num_agents, num_inputs))
    return policies


@pytest.mark.parametrize(("num_agents", "num_inputs", "hidden"), SIZES, ids=str)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_policy_learns_bit_for_bit_alike_whoever_else_is_in_the_batch(name, num_agents, num_inputs, hidden):
    learner, seeds = LEARNERS[name], list(range(40, 104))
    # PPO makes several steps an episode
    sizes = dict(num_agents=num_agents, num_inputs=num_inputs, num_episodes=20 if name == "policy_gradient" else 6, hidden=hidden)
    batch = trained(learner, seeds, **sizes)
    for first, last in ((0, 1), (63, 64), (30, 32), (5, 8), (20, 27)):
        alone = trained(learner, seeds[first:last], **sizes)
        for policy in range(first, last):
            kept, own = batch.tensors(policy), alone.tensors(policy - first)
            assert kept.keys() == own.keys()
            assert [key for key in own if not torch.equal(kept[key], own[key])] == [], f"policy {policy} of {first} to {last}"


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_networks_of_a_batch_learn_what_torch_learns_alone():
    """Adam's steps, with weights that decay."""
    weights, gradients = values(3, 4, 5), values(10, 3, 4, 5, seed=1)
    ours, theirs = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    adam, torchs = Adam(), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3)
    for gradient in gradients:
        adam.step([ours], [gradient], 0.1, weight_decay=0.3)
        theirs.grad = gradient
        torchs.step()
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_network_that_is_not_active_keeps_weights_means_and_steps():
    weights, gradients = values(3, 4, 5).requires_grad_(), values(3, 3, 4, 5, seed=1)
    adam, active = Adam(), torch.tensor([True, False, True])
    adam.step([weights], [gradients[0]], 0.1)
    before = {name: one.clone() for name, one in (adam.state[weights] | {"weights": weights.detach()}).items()}
    adam.step([weights], [gradients[1]], 0.1, weight_decay=0.1, active_P=active)
    for name, one in (adam.state[weights] | {"weights": weights.detach()}).items():
        assert torch.equal(one[1], before[name][1]) and not torch.equal(one[0], before[name][0])
    alone = weights[1:2].detach().clone().requires_grad_()
    own = Adam({alone: {name: one[1:2].clone() for name, one in adam.state[weights].items()}})
    own.step([alone], [gradients[2, 1:2]], 0.1)
    adam.step([weights], [gradients[2]], 0.1)
    assert torch.equal(weights[1:2], alone)


def test_advantages_are_sums_of_errors_of_values():
    rewards, seen, last = values(7, 3), values(7, 3, seed=1), values(3, seed=2)
    after = torch.cat([seen[1:], last[None]])
    errors = rewards + 0.9 * after - seen
    slow = torch.stack([sum((0.9 * 0.8) ** (k - t) * errors[k] for k in range(t, 7)) for t in range(7)])
    assert torch.allclose(advantages(rewards, seen, last, 0.9, 0.8), slow, rtol=1e-12)
    assert torch.allclose(advantages(rewards, seen, last, 0.9, 0.0), errors, rtol=1e-12)
    assert torch.allclose(advantages(rewards, seen, last, 0.9, 1.0), returns(rewards, 0.9, last) - seen, rtol=1e-12)


def test_returns_go_on_by_the_value_of_what_comes_after():
    rewards, last = values(7, 3), values(3, seed=1)
    slow = torch.stack([sum(0.9 ** (k - t) * rewards[k] for k in range(t, 7)) + 0.9 ** (7 - t) * last for t in range(7)])
    assert torch.allclose(returns(rewards, 0.9, last), slow, rtol=1e-12)
    assert torch.allclose(returns(rewards, 0.9), slow - 0.9 ** torch.arange(7, 0, -1).double()[:, None] * last, rtol=1e-12)


def test_standardised_samples_are_those_of_each_network_by_itself():
    found = standardised_samples(3.0 + 5.0 * values(4, 30))
    assert torch.allclose(found.mean(-1), torch.zeros(4).double(), atol=1e-12)
    assert torch.allclose(found.std(-1, unbiased=False), torch.ones(4).double(), atol=1e-6)
    assert torch.equal(standardised_samples(torch.full((2, 3), 7.0)), torch.zeros(2, 3))


@pytest.mark.parametrize("num_minibatches", [1, 3, 4, 20])
def test_minibatches_are_each_networks_own_partition_of_its_samples(num_minibatches):
    keys, updates = noise.particle_keys(torch.tensor([5, 6, 7]), 1, 1, noise.CHOICES)[:, 0, 0], torch.tensor([0, 0, 4])
    parts = minibatches(keys, updates, 2, 20, num_minibatches)
    assert len(parts) == num_minibatches and {part.shape[1] for part in parts} <= {20 // num_minibatches, 20 // num_minibatches + 1}
    joined = torch.cat(parts, 1)
    assert torch.equal(joined.sort(-1).values, torch.arange(20).expand(3, 20))
    assert not torch.equal(joined[0], joined[1])
    for network in range(3):
        assert torch.equal(torch.cat(minibatches(keys[network:][:1], updates[network:][:1], 2, 20, 1), 1)[0], joined[network])
    for other in (minibatches(keys, updates + 1, 2, 20, 1), minibatches(keys, updates, 3, 20, 1)):
        assert not torch.equal(other[0], joined)


def test_taken_samples_are_those_at_their_places():
    seen, places = values(3, 5, 2), torch.tensor([[0, 4], [1, 1], [3, 2]])
    assert torch.equal(taken(seen, places), torch.stack([seen[network, places[network]] for network in range(3)]))


def test_gradients_are_shortened_of_each_network_by_itself():
    gradients = [values(3, 4, 5) * torch.tensor([0.01, 1.0, 100.0]).view(3, 1, 1), values(3, 1, 2, seed=1) * 0.001]
    short = shortened(gradients, 0.5)
    length = torch.stack([sum(one[network].square().sum() for one in short).sqrt() for network in range(3)])
    assert torch.allclose(length[1:], torch.full((2,), 0.5).double(), rtol=1e-5)
    assert torch.equal(short[0][0], gradients[0][0])
    assert torch.allclose(short[0] / gradients[0], (short[1][..., :1] / gradients[1][..., :1]).expand(3, 4, 5), rtol=1e-12)


def shares(values_P: torch.Tensor, policies: Policies) -> list[torch.Tensor]:
    return list(torch.autograd.grad(values_P, policies.actor.parameters()))


def test_before_its_first_step_ppo_has_the_gradient_of_the_policy_gradient():
    """At a ratio of 1: of -log pi A, whatever the clip."""
    policies, one, action = new(Ppo(), [1, 2]), episode([1, 2], 0, 5, 3), Discrete()
    ppo = Ppo(entropy_weight=0.0)
    samples = ppo.samples(policies, action, one)
    found = shares(ppo.loss(policies, action, samples)[0], policies)
    logs, _ = action.log_probability(policies.actor(samples.inputs), samples.actions)
    expected = shares(-(logs * samples.advantages).mean(-1).sum(), policies)
    assert all(torch.allclose(own, other, rtol=1e-4, atol=1e-7) for own, other in zip(found, expected))


@pytest.mark.parametrize(("change", "advantage", "moves"), [(0.5, 1.0, False), (0.5, -1.0, True), (-0.5, -1.0, False), (-0.5, 1.0, True)])
def test_a_ratio_beyond_the_clip_moves_a_policy_only_back(change, advantage, moves):
    policies, action, ppo = new(Ppo(), [1]), Discrete(), Ppo(entropy_weight=0.0)
    samples = ppo.samples(policies, action, episode([1], 0, 5, 3))
    samples = replace(samples, logs=samples.logs - change, advantages=torch.full_like(samples.advantages, advantage))
    loss, said = ppo.loss(policies, action, samples)
    assert any(gradient.any() for gradient in shares(loss, policies)) is moves
    assert said["clipped"].tolist() == [1.0]
    assert said["divergence"].item() == pytest.approx(math.exp(change) - 1 - change, rel=1e-4)


def test_a_network_that_went_too_far_changes_no_more_in_an_update():
    """Each by itself: it is then what fewer epochs make of it."""
    free = Ppo(num_epochs=12, actor_learning_rate=5e-5)
    held = replace(free, max_kl=0.005)
    seeds = list(range(8))
    policies = new(held, seeds)
    steps = held.learn(policies, Discrete(), episode(seeds, 0, 10, 3))["steps"].tolist()
    assert min(steps) < 12 and len(set(steps)) > 1
    for number, count in enumerate(steps):
        alone = new(free, [number])
        replace(free, num_epochs=count).learn(alone, Discrete(), episode([number], 0, 10, 3))
        kept, own = policies.tensors(number), alone.tensors(0)
        assert all(torch.equal(kept[key], own[key]) for key in own)


@pytest.mark.parametrize(
    "learner", [Ppo(discount=0.0, num_epochs=5, num_minibatches=2, actor_learning_rate=3e-3), PolicyGradient(discount=0.0)]
)
def test_a_policy_comes_to_do_what_is_rewarded(learner):
    """The last action where the first number is above 0, the first one where it is below."""
    seeds, action = [1, 2, 3], Discrete()
    policies, keys = new(learner, seeds), noise.particle_keys(torch.tensor(seeds), 1, 10, noise.CHOICES)[:, 0]
    for number in range(60):
        one = episode(seeds, number, 10, 3)
        with torch.no_grad():
            actions = torch.stack([action.sample(policies.actor(seen), keys, 20 * number + t) for t, seen in enumerate(one.observations)])
        rewards = one.observations[..., 0].sign() * (actions - 1.5)
        learner.learn(policies, action, replace(one, actions=actions, rewards=rewards))
    seen = torch.tensor([[5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]]).expand(3, 2, 3)
    assert policies.actor(seen).argmax(-1).tolist() == [[3, 0]] * 3


def test_ppo_names_what_does_not_fit():
    with pytest.raises(ConfigError, match="num_minibatches must be 1 where as_swarmrl is true, got 2"):
        Ppo(as_swarmrl=True, num_minibatches=2)
    with pytest.raises(ConfigError, match="num_minibatches must be at most the 20 samples of an episode, got 21"):
        trained(Ppo(num_minibatches=21), [1], 1, 3, 1)


def test_an_episode_that_is_cut_off_is_worth_what_comes_after_unless_as_swarmrl():
    policies, one, action = new(Ppo(), [1]), episode([1], 0, 5, 3), Discrete()
    value = policies.critic(one.last)[..., 0]
    ours, theirs = (Ppo(as_swarmrl=quirk).samples(policies, action, one).targets for quirk in (False, True))
    assert torch.allclose((ours - theirs)[:, -5:], 0.99 * value, atol=1e-3)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_checkpoint_goes_on_as_if_nothing_had_been(name):
    """Two policies of two networks each, put back the other way round and after unequally many updates."""
    learner, curiosity = LEARNERS[name], Curiosity(weight=0.5)

    def learn(policies: Policies, seeds: list[int], numbers: range) -> None:
        for number in numbers:
            one = episode(policy_seeds(seeds, 2, "cpu").tolist(), number, 5, 3)
            learner.learn(policies, Discrete(), curiosity.rewarded(policies, one)[0])

    first, second = (new(learner, [seed], num_groups=2, curiosity=curiosity) for seed in (3, 4))
    learn(first, [3], range(2))
    learn(second, [4], range(1))
    kept = [{key: one.clone() for key, one in policies.tensors(0).items()} for policies in (second, first)]
    again = new(learner, [4, 3], num_groups=2, curiosity=curiosity)
    again.restore(kept)
    assert again.updates.tolist() == [1, 1, 2, 2]
    for policies, seeds in ((again, [4, 3]), (first, [3]), (second, [4])):
        learn(policies, seeds, range(5, 7))
    for policy, alone in enumerate((second, first)):
        found, own = again.tensors(policy), alone.tensors(0)
        assert found.keys() == own.keys()
        assert [key for key in own if not torch.equal(found[key], own[key])] == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_units_that_are_added_to_layers_change_nothing(activation):
    nets = networks([7, 33, 2, 5], torch.tensor([1, 2, 3]), noise.WEIGHTS, torch.float64, activation)
    for number, bias in enumerate(nets.biases):
        bias.data.copy_(values(*bias.shape, seed=number))
    inputs = expected = values(3, 6, 7, seed=9)
    for number, (weight, bias) in enumerate(zip(nets.weights, nets.biases)):
        expected = expected @ weight + bias
        expected = getattr(torch.nn.functional, activation)(expected) if number < 2 else expected
    found = nets(inputs)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    own, other = (torch.autograd.grad(one.square().sum(), nets.parameters()) for one in (found, expected))
    assert all(torch.allclose(one, two, rtol=1e-10, atol=1e-10) for one, two in zip(own, other))


@pytest.mark.parametrize(
    ("num_environments", "num_agents", "num_groups"), [(1, 6, 1), (1, 6, 6), (3, 6, 1), (3, 6, 2), (3, 6, 6), (2, 1, 1)]
)
@pytest.mark.parametrize("num_policies", [1, 4])
def test_agents_of_a_group_share_a_network_and_come_back_to_their_places(num_policies, num_environments, num_agents, num_groups):
    policies = new(PolicyGradient(), list(range(num_policies)), hidden=(2,), num_groups=num_groups)
    shape = (num_policies, num_environments, num_agents)
    numbers = torch.arange(math.prod(shape)).view(shape)
    for some in (numbers, torch.stack([numbers, -numbers], -1)):
        split = policies.acting.by_network(some)
        assert split.shape[:2] == (num_policies * num_groups, num_environments * num_agents // num_groups)
        assert torch.equal(policies.acting.by_agent(split, num_environments), some)
    agents = policies.acting.by_network(torch.arange(num_agents).expand(shape))
    size = num_agents // num_groups
    for network, own in enumerate(agents.tolist()):
        group = network % num_groups
        assert sorted(set(own)) == list(range(group * size, (group + 1) * size))


def test_agents_act_by_their_own_groups_network():
    seen = values(2, 1, 4, 3).float()
    shared, own = (new(PolicyGradient(), [1, 2], num_groups=groups) for groups in (1, 4))
    outputs = own.acting.by_agent(own.actor(own.acting.by_network(seen)), 1)
    for policy, agent in itertools.product(range(2), range(4)):
        weights = [weight[policy * 4 + agent] for weight in own.actor.weights]
        hidden = torch.relu(torch.relu(seen[policy, 0, agent] @ weights[0]) @ weights[1])
        assert torch.allclose(outputs[policy, 0, agent], hidden @ weights[2], atol=1e-5)
    assert len({tuple(one.flatten()[:8].tolist()) for one in own.actor.weights[0]}) == 8
    # the first group has the seed of the policy
    assert torch.equal(own.actor.weights[0][::4], shared.actor.weights[0])
    same = shared.actor(shared.acting.by_network(seen[:, :, :1].expand(2, 1, 4, 3)))
    assert torch.equal(same, same[:, :1].expand_as(same))


def test_what_a_network_says_that_stopped_is_what_it_says_alone():
    """Also where another of the batch goes on."""
    learner = Ppo(num_epochs=4, num_minibatches=2, max_kl=2e-3, actor_learning_rate=0.02)
    said = []
    for seeds in ([3], [3, 4, 5]):
        policies = new(learner, seeds, 1, (8,))
        told = [learner.learn(policies, Discrete(), episode(seeds, number, 5, 1)) for number in range(3)]
        said.append([{name: values[0] for name, values in one.items()} for one in told])
    assert said[0] == said[1]


def test_probabilities_that_have_changed_beyond_all_bounds_have_gradients():
    learner, policies = Ppo(), new(Ppo(), [3], 1, (8,))
    samples = learner.samples(policies, Discrete(), episode([3], 0, 5, 1))
    loss, _ = learner.loss(policies, Discrete(), replace(samples, logs=samples.logs - 200.0))
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, policies.parameters()))
