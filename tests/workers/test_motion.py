"""Motion tasks: their rows against the two kernels that the gram tasks have stored."""

from dataclasses import replace

import numpy as np
import pytest
from task_runs import committed, last, scalars

from workers import taskdir
from workers.data.digits import Digits
from workers.data.npz import Npz
from workers.errors import ConfigError
from workers.models.mlp import Mlp
from workers.observables.cka import cka
from workers.observables.kernel_distance import kernel_distance
from workers.workloads.gram import Gram
from workers.workloads.motion import Motion
from workers.workloads.train import Train

TRAIN = Train(model=Mlp(width=6, depth=2), num_steps=20, train_size=128)
GRAM = Gram(train=TRAIN, probe_size=5)
MOTION = Motion(gram=GRAM, reference=replace(GRAM, snapshot="init"))


def stored(root, gram, name):
    return np.load(taskdir.payload_path(root, committed(root, gram), name))


@pytest.mark.parametrize("kernel", ["full", "traced"])
def test_rows_are_the_observables_of_the_two_stored_kernels(tmp_path, kernel):
    commit = committed(tmp_path, replace(MOTION, kernel=kernel))
    first, second = (stored(tmp_path, gram, f"gram-{kernel}.npy") for gram in (MOTION.reference, MOTION.gram))
    suffix = "_traced" if kernel == "traced" else ""
    found = last(commit)
    assert found[f"relative_kernel_change{suffix}"] == pytest.approx(np.linalg.norm(second - first) / np.linalg.norm(first))
    assert found[f"kernel_distance{suffix}"] == kernel_distance(first, second)
    assert found[f"kernel_velocity{suffix}"] == pytest.approx(kernel_distance(first, second) / 20)
    assert found[f"cka{suffix}"] == cka(first, second)
    assert found[f"trace_ratio{suffix}"] == pytest.approx(np.trace(second) / np.trace(first))
    assert found["num_rows"] == len(first)
    assert {step for _, step in scalars(commit)} == {20}
    assert all(name == "num_rows" or name.endswith("_traced") == (kernel == "traced") for name in found)


def test_a_kernel_beside_itself_is_refused():
    with pytest.raises(ConfigError, match="gram and reference are one kernel, .*; take reference.snapshot=init"):
        replace(MOTION, reference=GRAM)


def test_two_trainings_are_compared_without_a_velocity(tmp_path):
    other = replace(GRAM, train=replace(TRAIN, model=Mlp(width=9, depth=2)), snapshot="init")
    found = last(committed(tmp_path, replace(MOTION, reference=other)))
    assert 0 < found["cka"] < 1
    assert "kernel_velocity" not in found


def test_what_a_training_keeps_makes_it_no_other_training(tmp_path):
    kept = replace(GRAM, train=replace(TRAIN, num_snapshots=4), snapshot="init")
    assert "kernel_velocity" in last(committed(tmp_path, replace(MOTION, reference=kept)))


def test_kernels_on_unlike_probe_sets_are_refused():
    with pytest.raises(ConfigError, match=r"gram.probe_size and reference.probe_size must be equal, .*; got 5 and 6"):
        replace(MOTION, reference=replace(GRAM, probe_size=6))


def test_kernels_on_unlike_data_are_refused(tmp_path):
    other = replace(GRAM, train=replace(TRAIN, data=Npz(path=str(tmp_path / "x.npz"))))
    with pytest.raises(ConfigError, match=r"gram.train.data and reference.train.data must be equal, .*; got Digits\(.*\) and Npz\("):
        replace(MOTION, reference=other)
    assert isinstance(MOTION.gram.train.data, Digits)


def test_the_motion_of_a_kernel_that_is_not_stored_is_refused():
    with pytest.raises(ConfigError, match="kernel=full needs gram.full=true and reference.full=true; or take kernel=traced"):
        replace(MOTION, reference=replace(GRAM, full=False))
    assert replace(MOTION, kernel="traced", reference=replace(GRAM, full=False)).kernel == "traced"
