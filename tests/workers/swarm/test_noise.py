"""Numbers of a counter: of the right law, of each particle alone, and the same in any company."""

import pytest
import torch

from workers.swarm import noise


def keys(num_policies: int = 8, num_environments: int = 100, num_agents: int = 10, stream: int = 0) -> torch.Tensor:
    return noise.particle_keys(torch.arange(num_policies), num_environments, num_agents, stream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_have_the_moments_of_the_normal_law(dtype: torch.dtype):
    values = torch.stack([noise.normals(keys(), step, 50, dtype) for step in range(5)]).double().flatten()
    count = len(values)
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(values.pow(power).mean().item() - mean) < 4 * (variance / count) ** 0.5
    assert values.abs().max() <= noise.LARGEST


def test_uniforms_are_even_and_neither_0_nor_1():
    values = noise.uniforms(keys(), 3, 50, torch.float32)
    counts = torch.histc(values.double(), 20, 0.0, 1.0) / values.numel()
    assert (counts - 0.05).abs().max() < 5 * (0.05 / values.numel()) ** 0.5
    assert 0.0 < values.min() < values.max() < 1.0


def test_neighbours_of_every_kind_are_independent():
    """Policies, environments, agents, steps, numbers of a step and streams: the correlation of each with the next."""
    values = torch.stack([noise.normals(keys(stream=stream), step, 4, torch.float64) for stream in (0, 1) for step in (0, 1)])
    values = values.view(2, 2, 4, 8, 100, 10)
    for axis in range(values.dim()):
        size = values.shape[axis]
        product = values.narrow(axis, 0, size - 1) * values.narrow(axis, 1, size - 1)
        assert abs(product.mean().item()) < 4 / product.numel() ** 0.5


def test_numbers_do_not_depend_on_the_batch():
    whole = noise.normals(keys(8, 100, 10), 7, 5, torch.float32)
    part = noise.normals(noise.particle_keys(torch.tensor([3, 5]), 20, 4, 0), 7, 5, torch.float32)
    assert torch.equal(part, whole[:, [3, 5], :20, :4])
    assert torch.equal(noise.normals(keys(), 7, 2, torch.float32)[0], noise.normals(keys(), 7, 1, torch.float32)[0])


def test_uniform_numbers_are_above_0_and_below_1_at_the_ends_of_their_bits():
    ends = torch.tensor([-(2**23), 2**23 - 1], dtype=torch.int64)
    for dtype in (torch.float32, torch.float64):
        found = noise._uniform(ends, dtype)
        assert found[0] > 0.0
        assert found[1] < 1.0
