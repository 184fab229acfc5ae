"""An agent's path is the same to the last bit alone and in any batch, on one thread of a CPU; and nearly the same in other arithmetic."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from workers.swarm import contacts
from workers.swarm.contacts import Rod
from workers.swarm.engine import Body, Engine, State
from workers.swarm.fields.shear_flow import ShearFlow
from workers.swarm.friction import spheroid
from workers.swarm.walls import cuboid, rectangle

CASES: dict[str, dict[str, Any]] = {
    "free": dict(disc=200.0),
    "crowded": dict(disc=4.0),
    "one environment": dict(disc=4.0, num_environments=1, aspect=3.0),
    "spheroids": dict(disc=4.0, aspect=3.0),
    "spheroids by Gay and Berne": dict(disc=5.0, aspect=1 / 3, contact="gay_berne"),
    "in space": dict(disc=3.0, num_dimensions=3),
    "spheroids in space": dict(disc=3.5, num_dimensions=3, aspect=3.0, contact="gay_berne"),
    "a rod": dict(disc=8.0, rod=Rod(length=10.0, num_beads=6, start_angle=0.3)),
    "walls": dict(disc=4.0, walls=rectangle(12.0, 10.0)),
    "walls in space": dict(disc=3.0, num_dimensions=3, walls=cuboid(8.0, 8.0, 7.0)),
    "a box": dict(disc=4.0, box=9.0),
    "a flow": dict(disc=4.0, aspect=3.0, fields=[ShearFlow(rate=3.0)]),
    "inertia": dict(disc=4.0, dynamics="langevin"),
    "inertia of spheroids": dict(disc=4.0, aspect=3.0, dynamics="langevin", num_dimensions=3),
}


def engine(seeds: Sequence[int], aspect: float = 1.0, **more: Any) -> Engine:
    """Policies whose temperature and size follow from their seed."""
    bodies = []
    for seed in seeds:
        radius = 0.5 + 0.02 * (seed % 5)
        friction = spheroid(radius, aspect, 8.9e-4)
        bodies.append(Body(radius=radius, friction=friction, temperature=50.0 * (seed % 7), contact_temperature=300.0, aspect=aspect))
    settings = dict(num_environments=2, num_agents=9, slice_seconds=0.05, num_substeps=10) | more
    return Engine(bodies, list(seeds), **settings)


def after(one: Engine, seeds: Sequence[int], disc: float, slices: int = 20, begin: State | None = None) -> State:
    """After slices of random actions, which follow from the policies' seeds."""
    state = one.start(disc)
    if begin is not None:
        state.positions, state.directors = begin.positions.to(one.dtype), begin.directors.to(one.dtype)
    actions = torch.stack([torch.rand(slices, 2, *one.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds], 2)
    for forces, torques in actions.to(one.device, one.dtype):
        one.advance(state, 5.0 * forces * one.along, (4.0 * torques - 2.0) * one.rotation)
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_a_policy_alone_moves_as_in_a_batch(case: str, dtype: torch.dtype):
    settings = dict(CASES[case])
    disc = settings.pop("disc")
    states = []
    for number, place in ((1, 0), (3, 1), (7, 6), (64, 33)):
        seeds = [100 + other for other in range(number)]
        seeds[place] = 41
        one = engine(seeds, dtype=dtype, **settings)
        state = after(one, seeds, disc)
        states.append([part[:, place] for part in (state.positions, state.directors)])
        states[-1] += [] if state.rods is None else [state.rods[place]]
        assert one.num_by_substeps >= 10 * number or case == "free"
    for other in states[1:]:
        for part, own in zip(other, states[0]):
            assert torch.equal(part, own)


@pytest.mark.parametrize("case", CASES)
def test_pairs_by_all_differences_are_those_of_the_triangle(case: str, monkeypatch: pytest.MonkeyPatch):
    settings = dict(CASES[case])
    disc, states = settings.pop("disc"), []
    for many in (1, 1000):
        monkeypatch.setattr(contacts, "MANY", many)
        one = engine([41, 42], **settings)
        assert one.surroundings.pairs.is_square == (many == 1)
        states.append(after(one, [41, 42], disc))
    assert torch.equal(states[0].positions, states[1].positions)
    assert torch.equal(states[0].directors, states[1].directors)


def test_a_thousand_agents_meet_only_who_is_near():
    many = engine([0], num_environments=1, num_agents=1000)
    state = after(many, [0], 40.0, 2)
    apart = torch.cdist(*[state.positions[:, 0, 0].T.double()] * 2) + 1e9 * torch.eye(1000, dtype=torch.float64)
    assert 0.8 < apart.min() < 1.0 < apart.median()


@pytest.mark.parametrize("case", ["free", "crowded", "spheroids", "in space", "walls", "a flow", "inertia"])
def test_single_precision_follows_double_for_a_slice(case: str):
    """To 1e-5 um and the rounding of positions, of agents that move by about 0.2 um in it."""
    settings = dict(CASES[case])
    disc = settings.pop("disc")
    begin = engine([41], **settings).start(disc)
    single, double = (after(engine([41], dtype=dtype, **settings), [41], disc, 1, begin) for dtype in (torch.float32, torch.float64))
    assert torch.allclose(single.positions.double(), double.positions, rtol=2e-7, atol=1e-5)
    assert torch.allclose(single.directors.double(), double.directors, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("case", "slices"), [("free", 20), ("crowded", 2)])
def test_far_from_the_origin_agents_move_as_near_it(case: str, slices: int):
    """In single precision, 1,024 um away: to the rounding of a position there at each slice, 3e-5 um, however many substeps it has.

    In a crowd, which amplifies differences, for two slices.
    """
    settings = dict(num_substeps=200, num_agents=9 if case == "crowded" else 1)
    begin = engine([41], **settings).start(CASES[case]["disc"])
    # a start that is no less exact far away
    begin.positions = (begin.positions * 2**12).round() / 2**12
    there = State(begin.positions + 1024.0, begin.directors)
    near, far = (after(engine([41], **settings), [41], CASES[case]["disc"], slices, state) for state in (begin, there))
    difference = (far.positions.double() - 1024.0) - near.positions.double()
    assert difference.abs().max() < slices * 6.2e-5
    assert (near.positions - begin.positions).abs().max() > 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_moves_agents_as_a_cpu_does(case: str):
    """For three slices in double precision, in which sums of contacts in another order have not grown."""
    settings = dict(CASES[case])
    disc = settings.pop("disc")
    cpu, gpu = (after(engine([40, 41], dtype=torch.float64, device=device, **settings), [40, 41], disc, 3) for device in ("cpu", "cuda"))
    assert torch.allclose(cpu.positions, gpu.positions.cpu(), rtol=0, atol=1e-8)
    assert torch.allclose(cpu.directors, gpu.directors.cpu(), rtol=0, atol=1e-8)
