"""The engine on a CUDA device gives the kernels that it gives on the CPU in float64."""

import copy

import pytest
import torch

from tests.workers.entk.networks import case
from workers import entk
from workers.entk.norms import squared_gradient_norms

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

NAMES = ["mlp", "cnn", "norms", "language model", "tied language model", "cross attention", "strides, dilation, groups", "lstm"]


@pytest.mark.parametrize("outputs", ["full", "traced"])
@pytest.mark.parametrize("name", NAMES)
def test_kernel_is_that_of_the_cpu(name: str, outputs: str) -> None:
    model, x = case(name)
    slow = entk.gram(model, x, outputs=outputs)
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        moved = copy.deepcopy(model).to("cuda", dtype)
        inputs = x.to("cuda", dtype) if x.is_floating_point() else x.to("cuda")
        found = entk.gram(moved, inputs, outputs=outputs)
        assert found.device.type == "cuda" and found.dtype == dtype
        assert float((found.cpu().double() - slow).norm() / slow.norm()) < allowed


@pytest.mark.parametrize("name", NAMES)
def test_gradient_norms_are_those_of_the_cpu(name: str) -> None:
    model, x = case(name)
    cotangents = torch.randn(2, *model(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    slow = squared_gradient_norms(model, x, cotangents)
    found = squared_gradient_norms(model.cuda(), x.cuda(), cotangents.cuda())
    torch.testing.assert_close(found.cpu(), slow, rtol=1e-9, atol=0.0)


def test_products_and_spectra_are_those_of_the_cpu() -> None:
    model, x = case("cnn")
    kernel = entk.gram(model, x)
    moved = copy.deepcopy(model).cuda()
    operator = entk.KernelOperator(moved, x.cuda())
    block = torch.randn(kernel.shape[0], 3, dtype=torch.float64)
    torch.testing.assert_close((operator @ block.cuda()).cpu(), kernel @ block, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(entk.spectrum(kernel.cuda()).eigenvalues.cpu(), entk.spectrum(kernel).eigenvalues, rtol=1e-9, atol=1e-9)


def test_a_little_memory_is_kept_to() -> None:
    model, x = case("cnn")
    model, x = model.cuda().float(), x.cuda().float().repeat(40, 1, 1, 1)
    entk.gram(model, x)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kernel = entk.gram(model, x, memory_gib=0.25)
    assert torch.cuda.max_memory_allocated() - before < 0.25 * 2**30 + 3 * kernel.nbytes
