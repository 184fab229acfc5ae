"""Kernels along a training in one task: the same numbers as tasks of single kernels, spectra and motions give."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from task_runs import committed, last, scalars

from workers import entk
from workers.errors import ConfigError
from workers.infinite_width import mlp_kernel
from workers.layers import rate_factors
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.snapshots import probe_batch
from workers.workloads.gram import Gram
from workers.workloads.kernel_dynamics import KernelDynamics
from workers.workloads.motion import Motion
from workers.workloads.spectrum import Spectrum
from workers.workloads.train import Train

TRAIN = Train(model=Mlp(width=10, parameterisation="ntk"), num_steps=30, num_snapshots=4, train_size=200)
DYNAMICS = KernelDynamics(train=TRAIN, num_kernels=4, probe_size=8)


def at(root: Path, workload: KernelDynamics, step: int) -> dict[str, float]:
    return {name: value for (name, own), value in scalars(committed(root, workload)).items() if own == step}


@pytest.mark.parametrize("kernel", ["full", "traced"])
def test_rows_are_those_of_single_tasks(tmp_path: Path, kernel: str):
    found = at(tmp_path, replace(DYNAMICS, kernel=kernel), 30)
    gram, start = Gram(train=TRAIN, probe_size=8), Gram(train=TRAIN, probe_size=8, snapshot="init")
    for task in (gram, Motion(gram=gram, reference=start, kernel=kernel)):
        expected = {name: value for name, value in last(committed(tmp_path, task)).items() if name in found and name != "trace"}
        assert len(expected) > 8
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-7, abs=1e-10, nan_ok=True), name


def test_observables_of_the_spectrum_are_those_of_a_spectrum_task(tmp_path: Path):
    from workers.spectrum_data import from_rows, observe
    from workers.taskdir import read_rows

    commit = committed(tmp_path, Spectrum(gram=Gram(train=TRAIN, probe_size=8)))
    expected = observe(from_rows(*(read_rows(tmp_path, commit, table) for table in ("scalars", "spectra"))))
    found = at(tmp_path, DYNAMICS, 30)
    assert {"trace", "entropy", "effective_rank", "participation_ratio"} <= set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name


def test_a_kernel_at_initialisation_has_not_moved_and_later_ones_have(tmp_path: Path):
    found = scalars(committed(tmp_path, DYNAMICS))
    assert sorted({step for _, step in found}) == [0, 1, 5, 30]
    assert ("relative_kernel_change", 0) not in found
    changes = [found["relative_kernel_change", step] for step in (1, 5, 30)]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert found["linearisation_gap", 30] > 0


@pytest.mark.parametrize("kernel", ["full", "traced"])
def test_the_distance_to_infinite_width_is_that_of_the_kernels(tmp_path: Path, kernel: str):
    task = replace(DYNAMICS, kernel=kernel)
    inputs_N, _, _ = probe_batch(TRAIN, 8, "cpu", torch.float64)
    own = entk.gram(TRAIN.build(TRAIN.data.load()).double(), inputs_N, outputs=kernel)
    limit = mlp_kernel(TRAIN.model, inputs_N)
    limit = torch.kron(limit, torch.eye(10, dtype=torch.float64)) if kernel == "full" else limit
    assert at(tmp_path, task, 0)["infinite_width_distance"] == pytest.approx(float((own - limit).norm() / limit.norm()), rel=1e-6)


def test_the_driving_kernel_weighs_each_layer_by_its_rate(tmp_path: Path):
    train = replace(TRAIN, model=Mlp(width=64, depth=2, parameterisation="mup"), num_steps=2, num_snapshots=2)
    module, (inputs_N, _, _) = train.build(train.data.load()).double(), probe_batch(train, 8, "cpu", torch.float64)
    jacobians = entk.gram(module, inputs_N, layers="weight")
    factors = rate_factors(module, normalised=False)
    assert set(factors.values()) == {2.0}  # width over base width, of inputs, readout and biases
    expected = sum(factors.get(name, 1.0) * kernel for name, kernel in jacobians.items())
    found = at(tmp_path, KernelDynamics(train=train, probe_size=8, driving=True), 0)
    assert found["trace"] == pytest.approx(float(expected.trace()) / len(expected), rel=1e-10)
    assert found["trace"] != pytest.approx(at(tmp_path, KernelDynamics(train=train, probe_size=8), 0)["trace"], rel=1e-3)


def test_of_other_networks_no_distance_to_infinite_width_is_said(tmp_path: Path):
    train = replace(TRAIN, model=Cnn(width=2), num_steps=2, num_snapshots=2)
    assert "infinite_width_distance" not in at(tmp_path, KernelDynamics(train=train, probe_size=4), 2)


def test_a_network_that_is_linearised_stays_at_its_kernel(tmp_path: Path):
    train = replace(TRAIN, frozen="linearised", dtype="float64")
    found = at(tmp_path, replace(DYNAMICS, train=train), 30)
    assert found["relative_kernel_change"] < 1e-12
    assert found["linearisation_gap"] < 1e-12
    later = at(tmp_path, replace(DYNAMICS, train=replace(train, frozen_at=0.5)), 30)
    assert later["relative_kernel_change"] > 1e-3
    assert "linearisation_gap" not in later


def test_a_loss_with_a_logit_temperature_is_refused_when_planned():
    with pytest.raises(ConfigError, match="train.logit_temperature must be 1 where kernels or positions are computed, got 2.0"):
        replace(DYNAMICS, train=replace(TRAIN, logit_temperature=2.0))


def test_steps_without_a_snapshot_are_refused_when_planned():
    message = (
        "num_kernels=4 needs snapshots of the steps 0, 1, 5, 30, and train.num_snapshots=2 does not keep 1, 5; take train.num_snapshots=4"
    )
    with pytest.raises(ConfigError, match=message):
        KernelDynamics(train=replace(TRAIN, num_snapshots=2), num_kernels=4)
