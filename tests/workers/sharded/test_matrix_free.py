"""Spectra of kernels that are never formed: against the whole kernel's, through kills, and refused with a reason."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import wait_for
from task_runs import committed, last, rows, task_of

from orchestrator import show
from orchestrator.gather import observed
from orchestrator.plan import plan
from orchestrator.store import Store
from tests.workers.sharded.test_tiled_gram import TILED, TRAIN, make_not_finite
from workers import entk, files, taskdir
from workers.errors import ConfigError
from workers.execute import Ended, execute
from workers.models.cnn import Cnn
from workers.sharded.matrix_free import Share, products_error
from workers.sharded.memory import lanczos_vectors_held
from workers.snapshots import probe_batch
from workers.taskdir import Commit
from workers.workload import Workload
from workers.workloads.gram import Gram
from workers.workloads.matrix_free_spectrum import MatrixFreeSpectrum
from workers.workloads.spectrum import Spectrum
from workers.workloads.tiled_spectrum import TiledSpectrum

TRAINS = {"mlp": TRAIN, "cnn": dataclasses.replace(TRAIN, model=Cnn(width=2))}
FREE = MatrixFreeSpectrum(train=TRAIN, probe_size=20, dtype="float64", num_eigenvalues=8, num_eigenvectors=8, checkpoint_every_seconds=0)
# about a second of products after its first checkpoint
LONG = dataclasses.replace(FREE, train=TRAINS["cnn"], probe_size=150, num_eigenvalues=100)
TILED_LANCZOS = TiledSpectrum(
    gram=dataclasses.replace(TILED, probe_size=20), num_eigenvalues=8, num_eigenvectors=8, engine="lanczos", checkpoint_every_seconds=0
)
# of the first rank's changes of the file system: in a checkpoint of Lanczos, of the probes, and while the answer is published
KILL_POINTS = ("10", "40+", "76", "90+")
# products that show whether the kernel is symmetric, at the beginning of each attempt
ASYMMETRY = 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    for train in TRAINS.values():
        committed(root, train)
    return root


@pytest.fixture
def root(trained, tmp_path):
    """A store of its own with the trained networks in it."""
    return Path(shutil.copytree(trained, tmp_path / "store"))


def attempt(root: Path, workload: Workload, name: str = "first", *, cpus: int = 1, memory_gib: float = 8.0, **options) -> Ended:
    task = dataclasses.replace(task_of(workload), resources={"cpus": cpus, "memory_gib": memory_gib})
    return execute(root, task, attempt=name, code="test", **options)


def commit_of(root: Path, workload: Workload) -> Commit:
    return taskdir.read_commit(root, task_of(workload).commit_name)


def folder_of(root: Path, workload: Workload, name: str = "first") -> Path:
    return taskdir.attempt_dir(root, task_of(workload).commit_name, name)


def exact(root: Path, workload: MatrixFreeSpectrum) -> Commit:
    """The whole spectrum of the kernel, by LAPACK."""
    return committed(root, Spectrum(gram=Gram(train=workload.train, probe_size=workload.probe_size), kernel=workload.outputs))


def assert_right(root: Path, workload: MatrixFreeSpectrum, commit: Commit) -> None:
    """Eigenvalues, weights, certificate and entropy are those of the whole kernel."""
    expected = exact(root, workload)
    values, all_values = (np.array(one.rows["spectra"]["eigenvalue"]) for one in (commit, expected))
    np.testing.assert_allclose(values, all_values[-len(values) :], rtol=0, atol=1e-10 * all_values[-1])
    weights, all_weights = (np.array(one.rows["spectra"]["weight"]) for one in (commit, expected))
    np.testing.assert_allclose(weights, all_weights[-len(weights) :], rtol=1e-6, atol=1e-9)
    assert list(commit.rows["spectra"]["index"]) == list(range(len(all_values) - len(values), len(all_values)))
    found, told = last(commit), last(expected)
    assert found["residual_norm"] < 1e-9 and found["orthogonality"] < 1e-10 and found["psd"] == 1
    assert [found[name] for name in ("num_rows", "num_units", "num_outputs")] == [
        told[name] for name in ("num_rows", "num_units", "num_outputs")
    ]
    p = all_values[all_values > 0] / all_values.sum()
    assert abs(found["entropy_estimate"] + (p * np.log(p)).sum()) <= 5 * found["entropy_standard_error"] + 1e-6
    assert abs(found["trace_estimate"] - all_values.mean()) <= 5 * found["trace_standard_error"] + 1e-9 * all_values.mean()


@pytest.mark.parametrize("outputs", ["full", "traced"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_what_is_found_is_that_of_the_whole_kernel(root, model, outputs):
    workload = dataclasses.replace(FREE, train=TRAINS[model], outputs=outputs)
    attempt(root, workload, reraise=True)
    assert_right(root, workload, commit_of(root, workload))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize(("outputs", "num_ranks"), [("full", 2), ("traced", 3), ("full", 3)])
def test_ranks_that_share_the_images_find_the_same(root, model, outputs, num_ranks):
    workload = dataclasses.replace(FREE, train=TRAINS[model], outputs=outputs, probe_size=19)
    attempt(root, workload, cpus=num_ranks, reraise=True)
    assert_right(root, workload, commit_of(root, workload))


@pytest.mark.slow
def test_ranks_without_an_image_stand_aside(root):
    workload = dataclasses.replace(FREE, probe_size=2, num_eigenvalues=5)  # of further ones there are several copies
    attempt(root, workload, cpus=4, memory_gib=12.0, reraise=True)
    assert_right(root, workload, commit_of(root, workload))


def test_observables_of_all_eigenvalues_are_those_of_the_whole_kernel(root):
    # traced: the full kernel has no single eigenvectors where the sum over outputs is zero
    workload = dataclasses.replace(FREE, outputs="traced", probe_size=12, num_eigenvalues=12, num_eigenvectors=12)
    attempt(root, workload, reraise=True)
    found, expected = (_observables(root, commit) for commit in (commit_of(root, workload), exact(root, workload)))
    assert set(found) == set(expected) and {"entropy_traced", "effective_rank_traced", "trace_traced"} < set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


def _observables(root: Path, commit: Commit) -> dict[str, float]:
    tables = rows(root, commit)
    columns = observed(commit.key, tables["scalars"], tables["spectra"])
    return dict(zip(columns["name"], columns["value"]))


# -- single precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["full", "traced"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_in_single_precision_eigenvalues_are_off_by_no_more_than_the_noise_floor(root, model, outputs):
    workload = dataclasses.replace(FREE, train=TRAINS[model], outputs=outputs, dtype="float32")
    attempt(root, workload, reraise=True)
    commit = commit_of(root, workload)
    found, expected = last(commit), np.array(exact(root, workload).rows["spectra"]["eigenvalue"])
    error, spread = found["kernel_error"], found["kernel_error_standard_error"]
    assert found["noise_floor"] == pytest.approx((error**2 + 4 * error * spread) ** 0.5, rel=1e-12)
    off = np.abs(np.array(commit.rows["spectra"]["eigenvalue"]) - expected[-8:]).max()
    assert 0 < off <= found["noise_floor"] < 1e-5 * expected[-1]
    assert "products-error.npy" in [payload.name for payload in commit.files]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_error_of_products_is_the_norm_of_what_they_are_off_by(model):
    module = TRAINS[model].model.build((1, 8, 8), 10, 0)
    inputs_N, *_ = probe_batch(TRAINS[model], 20, "cpu", torch.float32)
    found = products_error(module, inputs_N, "full", Share(0, 1, 20), 1.0)
    assert found is not None
    single = entk.KernelOperator(module, inputs_N) @ torch.eye(200)
    double = entk.KernelOperator(module.double(), inputs_N.double()) @ torch.eye(200, dtype=torch.float64)
    # of single vectors, which round a little otherwise than sums of them
    norm = float((single.double() - double).norm())
    assert norm / 3 < found.value < 3 * norm and found.standard_error < found.value / 3


# -- kills --------------------------------------------------------------------------------------------------------------------


def products_told(text: str) -> tuple[int, int]:
    """Products with a vector that earlier attempts have made, and those of the last one."""
    counts = (re.findall(rf"{words} ([\d,]+) products", text) for words in ("goes on after", "took"))
    before, own = (int(count[-1].replace(",", "")) if count else 0 for count in counts)
    return before, own


@pytest.fixture
def without_a_kill(root, capfd):
    """Eigenvalues of a workload and the products that they take, in one attempt."""

    def found(workload: Workload) -> tuple[np.ndarray, int]:
        attempt(root, workload, "whole", reraise=True)
        values = np.array(commit_of(root, workload).rows["spectra"]["eigenvalue"])
        shutil.rmtree(folder_of(root, workload, "whole").parent)
        taskdir.commit_path(root, task_of(workload).commit_name).unlink()
        return values, products_told(capfd.readouterr().out)[1]

    return found


def assert_goes_on(root: Path, workload: Workload, ended: Ended, whole: tuple[np.ndarray, int], capfd, cpus: int = 1) -> None:
    """A second attempt begins where the first one has left a checkpoint, and finds the same."""
    capfd.readouterr()
    assert ended.checkpoint is not None
    again = attempt(root, workload, "second", cpus=cpus, reraise=True)
    assert again.outcome == "completed"
    before, own = products_told(capfd.readouterr().out)
    if files.names(folder_of(root, workload)).count("answer.npz.part.json"):
        assert own == 0
    else:  # once the eigenpairs are there, nothing is asked of the symmetry
        assert before == ended.checkpoint and before + own in (whole[1], whole[1] + ASYMMETRY)
    values = np.array(commit_of(root, workload).rows["spectra"]["eigenvalue"])
    allowed = 1e-10 if ("float64" in str(workload)) else 1e-6
    np.testing.assert_allclose(values, whole[0], rtol=0, atol=allowed * values[-1])


def test_a_warned_task_goes_on_from_its_checkpoint(root, capfd, without_a_kill):
    whole, stop = without_a_kill(FREE), threading.Event()
    stop.set()
    ended = attempt(root, FREE, stop=stop)
    assert ended.outcome == "interrupted" and ended.checkpoint == ASYMMETRY + 16
    assert_goes_on(root, FREE, ended, whole, capfd)


def test_a_killed_rank_costs_the_products_since_the_last_checkpoint(root, monkeypatch, capfd, without_a_kill):
    whole = without_a_kill(FREE)
    with monkeypatch.context() as dying:
        dying.setenv("EIGENSWEEP_FAULT", "20")
        ended = attempt(root, FREE, cpus=2)
    assert ended.outcome == "killed" and "the ranks of the eigensolve ended with status -9" in ended.message
    assert_goes_on(root, FREE, ended, whole, capfd)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", KILL_POINTS)
@pytest.mark.parametrize("workload", [FREE, TILED_LANCZOS], ids=["matrix-free", "tiled"])
def test_a_rank_can_be_killed_at_any_change_of_the_file_system(root, monkeypatch, capfd, without_a_kill, workload, point):
    for input in workload.inputs().values():
        committed(root, input)
    whole = without_a_kill(workload)
    with monkeypatch.context() as dying:
        dying.setenv("EIGENSWEEP_FAULT", point)
        ended = attempt(root, workload, cpus=2)
    assert ended.outcome == "killed"
    assert_goes_on(root, workload, ended, whole, capfd, cpus=2)


@pytest.mark.slow
@pytest.mark.parametrize("workload", [LONG, dataclasses.replace(LONG, dtype="float32")], ids=["double", "single"])
def test_the_death_of_another_rank_is_that_of_the_attempt(root, capfd, without_a_kill, workload):
    whole = without_a_kill(workload)
    killer = _at_the_first_checkpoint(root, workload, lambda: os.kill(_rank(1), signal.SIGKILL))
    ended = attempt(root, workload, cpus=2)
    killer.join()
    assert ended.outcome == "killed" and "the ranks of the eigensolve ended with status" in ended.message
    assert_goes_on(root, workload, ended, whole, capfd, cpus=2)


@pytest.mark.slow
def test_warned_ranks_leave_a_checkpoint(root, capfd, without_a_kill):
    whole, stop = without_a_kill(LONG), threading.Event()
    warner = _at_the_first_checkpoint(root, LONG, stop.set)
    ended = attempt(root, LONG, cpus=2, stop=stop)
    warner.join()
    assert ended.outcome == "interrupted" and re.search(r"stopped at step \d+ after a checkpoint", ended.message)
    assert_goes_on(root, LONG, ended, whole, capfd, cpus=3)


def _at_the_first_checkpoint(root: Path, workload: Workload, act: Callable[[], None]) -> threading.Thread:
    folder = folder_of(root, workload)

    def watch() -> None:
        wait_for(lambda: any(name.startswith("checkpoint-") for name in files.names(folder)), "a checkpoint", seconds=240)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _rank(number: int) -> int:
    """The id of a rank that this process has started."""
    children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
    (found,) = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == f"rank {number}"]
    return found


# -- what cannot be -----------------------------------------------------------------------------------------------------------


def test_a_network_that_is_not_finite_ends_with_the_name_of_the_weight(root):
    name = make_not_finite(root)
    attempt(root, FREE)
    commit = commit_of(root, FREE)
    assert commit.status == "diverged" and "1 entries that are not finite" in commit.message and name in commit.message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_eigenvalues": 201}, "num_eigenvalues must be at most 200, the rows of the kernel, got 201"),
        ({"outputs": "traced", "num_eigenvalues": 21}, "num_eigenvalues must be at most 20, the rows of the kernel, got 21"),
        ({"probe_size": 360}, "probe_size must be at most 359, the test samples of this data set, got 360"),
        ({"snapshot": "7"}, "snapshot must be one of init, final, got '7'"),
        ({"outputs": "half"}, "outputs must be one of full, traced, got 'half'"),
        ({"num_probes": 3}, "num_probes must be at least 4, got 3"),
        ({"checkpoint_every_seconds": -1.0}, "checkpoint_every_seconds must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(FREE, **settings)


def test_too_little_memory_is_said_before_a_rank_starts(root):
    ended = attempt(root, FREE, cpus=4, memory_gib=1.5)
    said = r"resources.memory_gib must be at least \d.\d\d for 4 ranks of a node and a basis of 200 rows, got 1.5; any of these would do: "
    assert re.search(said + r"resources.memory_gib=\d.\d+, resources.cpus=\d \(on resources.nodes=2 as many ranks as now\)", ended.message)


# -- plans --------------------------------------------------------------------------------------------------------------------

WORDS = ("workload=matrix_free_spectrum", "name=k1", "launcher=local", "probe_size=200", "resources.cpus=2")


def test_a_plan_shows_what_it_takes(tmp_path):
    found = plan(WORDS, Store.init(tmp_path / "store"))
    assert found.large is not None
    (demand,) = found.large.rows
    assert (demand.what, demand.cpus) == ("the 20 largest of 2,000 eigenvalues without the kernel", 2)
    assert 0.8 < demand.memory_gib < demand.asked_gib < 3
    assert demand.flops is not None and demand.hours is not None
    assert demand.disk_bytes == 8 * 2000 * (20 + 2 * 148)
    assert "matrix_free_spectrum: the 20 largest of 2,000 eigenvalues" in show.plan(found, color=False)


def test_a_plan_with_too_little_memory_is_refused(tmp_path):
    store = Store.init(tmp_path / "store")
    message = r"matrix_free_spectrum cannot run: resources.memory_gib must be at least \d.\d\d for 2 ranks .*, got 1; any of these would do"
    with pytest.raises(ConfigError, match=message):
        plan([*WORDS, "resources.matrix_free_spectrum.memory_gib=1"], store)


# -- memory -------------------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
import torch
from pathlib import Path
from workers.context import Context
from workers.execute import peak_memory_mib
from workers.sharded.engines import Question
from workers.sharded.products import ShardedKernel
from workers.sharded.resumable import find_largest
from workers.taskdir import Task

num_rows, count, num_probes = map(int, sys.argv[2:])

class Share:
    num_rows, dtype, device = num_rows, torch.float64, torch.device("cpu")

    def __matmul__(self, vectors):
        return torch.arange(1, num_rows + 1).double().reciprocal()[:, None] * vectors

torch.set_num_threads(1)
context = Context(root=Path(sys.argv[1]), task=Task(key="k" * 26, workload="noop", version=1, settings={}, inputs={}), attempt="a")
kernel = ShardedKernel(Share(), 1)
kernel @ torch.zeros(num_rows, 1)
before = peak_memory_mib()
find_largest(context, kernel, Question(num_eigenvalues=count, num_vectors=count, num_probes=num_probes), every_seconds=0)
print((peak_memory_mib() - before) * 2**20 / 8 / num_rows)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("num_rows", "count", "num_probes"), [(30000, 20, 32), (20000, 100, 16), (16000, 200, 4)])
def test_the_first_rank_holds_as_many_vectors_as_are_counted(tmp_path, num_rows, count, num_probes):
    words = [sys.executable, "-c", MEMORY, str(tmp_path), *map(str, (num_rows, count, num_probes))]
    held = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert 0.75 < held / lanczos_vectors_held(num_rows, count, num_probes) < 1.05
