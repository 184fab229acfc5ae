"""Gram and spectrum tasks: their files and rows against what one backward pass per sample and output gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from task_runs import attempt, committed, last, task_of

from workers import taskdir
from workers.data.digits import Digits
from workers.errors import ConfigError
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.optimizers.sgd import Sgd
from workers.spectrum_data import from_rows, observe
from workers.subsets import probe
from workers.workloads.gram import Gram
from workers.workloads.kernel_descent import KernelDescent
from workers.workloads.spectrum import Spectrum
from workers.workloads.train import Train

TRAIN = Train(model=Mlp(width=6, depth=2), num_steps=20, train_size=128, num_snapshots=4)
GRAM = Gram(train=TRAIN, probe_size=5)


def slow_jacobian(train: Train, root: Path, step: int, num_units: int) -> tuple[torch.Tensor, torch.Tensor]:
    """J (N C, P) and the residual of cross entropy (N C,), one backward pass per sample and output in float64."""
    path = taskdir.payload_path(root, committed(root, train), f"snapshot-{step}.safetensors")
    module, images = train.load_snapshot(path).double(), Digits().load()
    rows, residuals = [], []
    for index in probe(len(images.test_targets), num_units):
        outputs_C = module(torch.from_numpy(images.test_inputs[index : index + 1]).double())[0]
        residuals.append(outputs_C.softmax(0).detach() - torch.eye(10, dtype=torch.float64)[images.test_targets[index]])
        for output in range(10):
            gradients = torch.autograd.grad(outputs_C[output], list(module.parameters()), retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows), torch.cat(residuals)


@pytest.mark.parametrize(("snapshot", "step"), [("init", 0), ("final", 20), ("4", 4)])
@pytest.mark.parametrize("model", [TRAIN.model, Cnn(width=2, depth=1)], ids=["mlp", "cnn"])
def test_stored_kernels_are_the_slow_ones(tmp_path, snapshot, step, model):
    gram = replace(GRAM, snapshot=snapshot, train=replace(TRAIN, model=model))
    commit = committed(tmp_path, gram)
    jacobian, _ = slow_jacobian(gram.train, tmp_path, step, 5)
    full = np.load(taskdir.payload_path(tmp_path, commit, "gram-full.npy"))
    traced = np.load(taskdir.payload_path(tmp_path, commit, "gram-traced.npy"))
    np.testing.assert_allclose(full, (jacobian @ jacobian.T).numpy(), rtol=1e-10, atol=1e-10)
    blocks = full.reshape(5, 10, 5, 10)
    np.testing.assert_allclose(traced, sum(blocks[:, c, :, c] for c in range(10)) / 10, rtol=1e-12)
    assert last(commit)["trace"] == pytest.approx(float((jacobian**2).sum()) / 50)


def test_the_traced_kernel_alone_is_the_same(tmp_path):
    alone = committed(tmp_path, replace(GRAM, full=False))
    both = committed(tmp_path, GRAM)
    assert [payload.name for payload in alone.files] == ["gram-traced.npy", "probe.npz"]
    arrays = [np.load(taskdir.payload_path(tmp_path, commit, "gram-traced.npy")) for commit in (alone, both)]
    np.testing.assert_allclose(*arrays, rtol=1e-12)


def test_the_probe_set_depends_on_the_data_alone(tmp_path):
    seeds = [committed(tmp_path, replace(GRAM, train=replace(TRAIN, seed=seed, train_size=size))) for seed, size in ((0, 128), (1, 64))]
    index = [np.load(taskdir.payload_path(tmp_path, commit, "probe.npz"))["index"] for commit in seeds]
    assert np.array_equal(*index)


@pytest.mark.parametrize("kernel", ["full", "traced"])
def test_spectrum_is_that_of_the_slow_kernel_and_its_projections_give_the_gradient(tmp_path, kernel):
    spectrum = Spectrum(gram=GRAM, kernel=kernel)
    commit = committed(tmp_path, spectrum)
    data = from_rows(commit.rows["scalars"], commit.rows["spectra"])
    jacobian, residual = slow_jacobian(TRAIN, tmp_path, 20, 5)
    if kernel == "full":
        slow = jacobian @ jacobian.T
        # ||grad L||^2 of the mean loss, which no kernel enters
        grad_norm = float((jacobian.T @ (residual / 5)).square().sum())
        position = grad_norm / float((residual / 5).square().sum() * jacobian.square().sum())
    else:
        blocks = (jacobian @ jacobian.T).reshape(5, 10, 5, 10)
        slow = sum(blocks[:, c, :, c] for c in range(10)) / 10
        u_NC = residual.reshape(5, 10)
        position = float((u_NC.T @ slow @ u_NC).trace() / u_NC.square().sum() / slow.trace())
    np.testing.assert_allclose(data.eigenvalues_K, torch.linalg.eigvalsh(slow).numpy(), rtol=1e-9, atol=1e-9 * float(slow.trace()))
    assert data.weights_K.sum() == pytest.approx(1.0)
    suffix = "_traced" if kernel == "traced" else ""
    assert observe(data)[f"spectral_position{suffix}"] == pytest.approx(position, rel=1e-9)
    assert observe(data)[f"trace{suffix}"] == pytest.approx(float(jacobian.square().sum()) / 50, rel=1e-9)


def test_the_certificate_of_a_good_solve(tmp_path):
    found = last(committed(tmp_path, Spectrum(gram=GRAM)))
    for name in ("residual_norm", "trace_error", "frobenius_error", "orthogonality"):
        assert found[name] < 1e-12, name
    assert found["psd"] == 1.0
    assert found["asymmetry"] == 0.0
    assert (found["num_rows"], found["num_units"], found["num_outputs"]) == (50, 5, 10)


@pytest.mark.parametrize("full", [True, False])
def test_progress_goes_from_the_first_kernel_to_the_end_of_the_last(tmp_path, full):
    committed(tmp_path, TRAIN)
    told: list[dict] = []
    attempt(tmp_path, replace(GRAM, full=full), report=told.append)
    shares = [done / total for done, total in (message["progress"] for message in told if "progress" in message)]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0
    assert len(shares) >= 1 + full


@pytest.mark.parametrize("kernel", ["full", "traced"])
def test_the_noise_floor_of_a_kernel_in_single_precision_is_its_measured_error(tmp_path, kernel):
    """Weyl's bound, which the rounding of the largest eigenvalue exceeds many times."""
    single, double = (replace(GRAM, probe_size=20, dtype=dtype) for dtype in ("float32", "float64"))
    gram, found = committed(tmp_path, single), committed(tmp_path, Spectrum(gram=single, kernel=kernel))
    value, standard_error = np.load(taskdir.payload_path(tmp_path, gram, "probe.npz"))[f"error-gram-{kernel}.npy"]
    eigenvalues = np.array(found.rows["spectra"]["eigenvalue"])
    assert last(found)["noise_floor"] == pytest.approx(np.sqrt(value**2 + 4 * value * standard_error), rel=1e-12)
    assert last(found)["noise_floor"] < 0.5 * len(eigenvalues) * np.finfo(np.float32).eps * eigenvalues.max()
    exact = np.array(committed(tmp_path, Spectrum(gram=double, kernel=kernel)).rows["spectra"]["eigenvalue"])
    assert np.abs(eigenvalues - exact).max() <= last(found)["noise_floor"]


def test_the_noise_floor_of_a_kernel_in_double_precision_is_its_rounding(tmp_path):
    found = committed(tmp_path, Spectrum(gram=GRAM))
    assert last(found)["noise_floor"] == pytest.approx(50 * 2.0**-52 * max(found.rows["spectra"]["eigenvalue"]), rel=1e-12)


def test_a_cut_spectrum_holds_the_largest_and_leaves_what_needs_all_as_nan(tmp_path):
    whole, cut = (committed(tmp_path, Spectrum(gram=GRAM, num_eigenvalues=num)) for num in (None, 7))
    assert cut.rows["spectra"]["eigenvalue"] == whole.rows["spectra"]["eigenvalue"][-7:]
    assert cut.rows["spectra"]["index"] == list(range(43, 50))
    observed = observe(from_rows(cut.rows["scalars"], cut.rows["spectra"]))
    assert all(np.isnan(value) for value in observed.values())


@pytest.mark.parametrize("snapshot", ["0", "20", "last", "3"])
def test_a_snapshot_that_is_not_kept_is_refused_when_planned(snapshot):
    with pytest.raises(ConfigError, match=f"snapshot must be one of init, final, 1, 4, got '{snapshot}'"):
        KernelDescent(train=TRAIN, snapshot=snapshot)


def test_a_snapshot_that_an_earlier_run_did_not_keep_is_named(tmp_path):
    """The training was committed with fewer snapshots, which do not enter its key."""
    descent = KernelDescent(train=TRAIN, snapshot="4")
    few = committed(tmp_path, replace(TRAIN, num_snapshots=2))
    plain = {**vars_of(few), "key": task_of(TRAIN).key}
    taskdir.write_commit(tmp_path, taskdir.Commit(**plain))
    ended = attempt(tmp_path, descent)
    assert ended.outcome == "user_error"
    assert "kept no snapshot-4.safetensors; it has snapshot-0.safetensors, snapshot-20.safetensors" in ended.message


def vars_of(commit: taskdir.Commit) -> dict:
    return {name: getattr(commit, name) for name in commit.__slots__}


def test_too_large_a_probe_is_refused_at_once_or_where_that_is_not_known_on_the_node(tmp_path, monkeypatch):
    message = "probe_size must be at most 359, the test samples of this data set, got 400"
    with pytest.raises(ConfigError, match=message):
        replace(GRAM, probe_size=400)
    monkeypatch.setattr(type(TRAIN.data), "shapes", lambda data: None)
    committed(tmp_path, TRAIN)
    assert message in attempt(tmp_path, replace(GRAM, probe_size=400)).message


def test_the_full_spectrum_of_a_kernel_that_is_not_stored_is_refused():
    with pytest.raises(ConfigError, match="kernel=full needs gram.full=true, got false; or take kernel=traced"):
        Spectrum(gram=replace(GRAM, full=False))


def test_a_diverged_network_blocks_its_kernel(tmp_path):
    bad = replace(TRAIN, model=Mlp(width=6), optimizer=Sgd(learning_rate=1e30))
    assert attempt(tmp_path, bad).outcome == "diverged"
    assert attempt(tmp_path, replace(GRAM, train=bad)).outcome == "input_missing"
