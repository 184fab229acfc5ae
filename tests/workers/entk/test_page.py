"""The page on kernels and the docstrings say what is: their examples run."""

import dataclasses
import doctest
import importlib
import inspect
import typing
from pathlib import Path

import pytest

from workers import entk

PAGE = Path(__file__).parents[3] / "docs" / "entk.md"
MODULES = sorted(path.stem for path in Path(entk.__file__).parent.glob("*.py"))


def test_every_example_of_the_page_runs():
    lines = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    kernel = names["kernel"]
    assert kernel.shape == (240, 240)
    assert names["where"].rayleigh_quotient == pytest.approx(float((r := names["residual"].flatten()) @ kernel @ r / (r @ r)), rel=1e-5)
    assert sum(names["layers"].values()).allclose(kernel, rtol=1e-4, atol=1e-4)


def test_the_page_names_every_public_function():
    page = PAGE.read_text()
    hidden = {"jacobian", "lanczos", "squared_gradient_norms", "diagonal", "kernel_error"}  # parts, for those who build on them
    functions = {name for name in entk.__all__ if name[0].islower() or name == "KernelOperator"}
    assert not {name for name in functions - hidden if f"entk.{name}" not in page}


def test_every_type_that_public_functions_take_or_give_is_public():
    types: set[type] = set()
    for name in entk.__all__:
        thing = getattr(entk, name)
        if inspect.isfunction(thing) or dataclasses.is_dataclass(thing):
            types |= {one for hint in typing.get_type_hints(thing).values() for one in classes(hint)}
    ours = {one.__name__ for one in types if one.__module__.startswith("workers.entk")}
    # what a plan is made of, and what the engine keeps of a model between two steps
    assert ours - set(entk.__all__) == {"Basis", "Group", "Network"}


def classes(hint: object) -> list[type]:
    inner = [one for part in typing.get_args(hint) for one in classes(part)]
    return [hint, *inner] if isinstance(hint, type) else inner


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_run(name):
    module = importlib.import_module("workers.entk" if name == "__init__" else f"workers.entk.{name}")
    assert doctest.testmod(module).failed == 0


def test_a_plan_says_what_is_computed():
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    plan = entk.plan(model, torch.randn(64, 784), outputs="traced")
    assert [piece.form for piece in plan.pieces] == ["readout", "separable", "outer"]
    # pairs of 64 samples x (I + 1), (I + O) and (I + C O + 1) multiplications
    assert plan.flops == 2 * (64 * 65 // 2) * ((512 + 1) + (512 + 512) + (784 + 5120 + 1))
    assert "0.weight, 0.bias" in str(plan)
    assert plan.kernel_bytes == 64 * 64 * 4
    full = entk.plan(model, torch.randn(64, 784))
    assert full.kernel_bytes == 640 * 640 * 4
    small = entk.plan(model, torch.randn(64, 784), memory_gib=2e-3)
    assert small.block_bytes < 2e-3 * 2**30 <= full.block_bytes * 2
    assert small.num_passes > full.num_passes == 64
