"""Spectra of tiled kernels: against the whole kernel's, with damaged tiles mended, by the engine that fits."""

import dataclasses
import re

import numpy as np
import pytest
from task_runs import committed, last, task_of

from tests.workers.sharded.test_tiled_gram import TILED, TRAIN
from workers import taskdir
from workers.errors import ConfigError
from workers.execute import execute
from workers.sharded import scalapack
from workers.sharded.engines import Machine, Question, choose
from workers.sharded.memory import BASE_GIB
from workers.sharded.scalapack import available
from workers.sharded.solving import _Limits
from workers.sharded.tiles import TileSet
from workers.workload import Resources
from workers.workloads.gram import Gram
from workers.workloads.spectrum import Spectrum
from workers.workloads.tiled_spectrum import TiledSpectrum

RESOURCES = {"cpus": 2, "memory_gib": 4.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store with a kernel in ten tiles."""
    root = tmp_path_factory.mktemp("tiled")
    committed(root, TRAIN)
    execute(root, dataclasses.replace(task_of(TILED), resources=RESOURCES), attempt="first", code="test", reraise=True)
    return root


def commit_of(root, workload, name="first"):
    task = dataclasses.replace(task_of(workload), resources=RESOURCES)
    execute(root, task, attempt=name, code="test", reraise=True)
    return taskdir.read_commit(root, task.commit_name)


@pytest.mark.parametrize(
    ("engine", "count"),
    [("whole", None), ("lanczos", 5), pytest.param("scalapack", None, marks=pytest.mark.skipif(bool(available()), reason=available()))],
)
def test_eigenvalues_and_weights_are_those_of_the_whole_kernel(root, engine, count):
    found = commit_of(root, TiledSpectrum(gram=TILED, num_eigenvalues=count, num_eigenvectors=5, engine=engine))
    exact = committed(root, Spectrum(gram=Gram(train=TRAIN, probe_size=7)))
    first = 70 - (count or 70)
    values, expected = (np.array(commit.rows["spectra"]["eigenvalue"]) for commit in (found, exact))
    np.testing.assert_allclose(values, expected[first:], rtol=1e-9, atol=1e-12 * expected[-1])
    assert list(found.rows["spectra"]["index"]) == list(range(first, 70))
    weights, expected_weights = (np.array(commit.rows["spectra"]["weight"]) for commit in (found, exact))
    np.testing.assert_allclose(weights[-3:], expected_weights[-3:], rtol=1e-6)
    assert np.isnan(weights[:-5]).all() and np.isfinite(weights[-5:]).all()
    numbers = last(found)
    assert numbers["residual_norm"] < 1e-9 and numbers["orthogonality"] < 1e-10 and numbers["psd"] == 1
    if count is None:
        assert numbers["trace_error"] < 1e-12 and numbers["frobenius_error"] < 1e-12
    else:
        p = expected / expected.sum()
        entropy = float(-(p[p > 0] * np.log(p[p > 0])).sum())
        assert abs(numbers["entropy_estimate"] - entropy) <= 5 * numbers["entropy_standard_error"] + 1e-6


@pytest.mark.parametrize("engine", ["whole", pytest.param("scalapack", marks=pytest.mark.skipif(bool(available()), reason=available()))])
def test_a_few_vectors_of_a_whole_spectrum_are_those_of_lanczos(tmp_path, engine):
    committed(tmp_path, TRAIN)
    gram = dataclasses.replace(TILED, probe_size=110, panel_rows=300)
    execute(tmp_path, dataclasses.replace(task_of(gram), resources=RESOURCES), attempt="first", code="test", reraise=True)
    workload = TiledSpectrum(gram=gram, num_eigenvalues=None, num_eigenvectors=5, engine=engine)
    found = commit_of(tmp_path, workload)
    tiles = TileSet.load(taskdir.payload_path(tmp_path, taskdir.read_commit(tmp_path, task_of(gram).commit_name), "tiles.json"))
    values, expected = np.array(found.rows["spectra"]["eigenvalue"]), np.linalg.eigvalsh(tiles.whole())
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12 * expected[-1])
    vectors = np.load(taskdir.payload_path(tmp_path, found, "eigenvectors.npy"))
    assert np.abs(tiles.whole() @ vectors - vectors * values[-5:]).max() < 1e-9 * expected[-1]
    assert np.isnan(found.rows["spectra"]["weight"][:-5]).all() and np.isfinite(found.rows["spectra"]["weight"][-5:]).all()
    assert last(found)["trace_error"] < 1e-12 and last(found)["residual_norm"] < 1e-9 and last(found)["psd"] == 1


def test_a_flipped_bit_is_found_and_the_tile_computed_again(root):
    path = taskdir.payload_path(root, taskdir.read_commit(root, task_of(TILED).commit_name), "tile-00000-00002.npy")
    intact = path.read_bytes()
    body = bytearray(intact)
    body[-3] ^= 16
    path.write_bytes(body)
    try:
        workload = TiledSpectrum(gram=TILED, num_eigenvalues=4, engine="lanczos")
        found = commit_of(root, workload)
    finally:
        path.write_bytes(intact)
    assert last(found)["num_tiles_mended"] == 1
    exact = committed(root, Spectrum(gram=Gram(train=TRAIN, probe_size=7))).rows["spectra"]["eigenvalue"]
    np.testing.assert_allclose(found.rows["spectra"]["eigenvalue"], exact[-4:], rtol=1e-9)


@pytest.mark.parametrize(
    ("count", "rows", "machine", "engine", "chosen"),
    [
        (None, 1000, Machine(1, 4.0, 4.0), "auto", "whole"),
        (100, 20480, Machine(1, 4.0, 4.0), "auto", "lanczos"),
        (100, 1000, Machine(1, 4.0, 4.0), "auto", "whole"),
        (None, 20480, Machine(4, 1.5, 6.0), "auto", "scalapack"),
        (None, 20480, Machine(4, 1.5, 20.0, "no mpirun"), "auto", "whole"),
        (None, 20480, Machine(4, 1.5, 20.0), "whole", "whole"),
        (9000, 20480, Machine(4, 0.1, 0.4), "auto", "lanczos"),
        (10, 1000, Machine(1, 4.0, 4.0), "lanczos", "lanczos"),
    ],
)
def test_the_engine_fits_the_question_and_the_machine(count, rows, machine, engine, chosen):
    choice = choose(Question(num_eigenvalues=count, num_vectors=10), rows, "float64", machine, engine)
    assert choice.engine == chosen and f"{rows:,}" in choice.reason


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            "auto",
            r"of 20,480 rows. whole: one process needs 12.5 GiB, resources.memory_gib leaves 4.0; scalapack: no mpirun; lanczos: it finds",
        ),
        ("lanczos", "lanczos: it finds the largest eigenvalues, and all are asked for. num_eigenvalues= asks for the largest alone"),
    ],
)
def test_what_no_engine_can_answer_is_refused(engine, message):
    with pytest.raises(ConfigError, match=message):
        choose(Question(num_eigenvalues=None, num_vectors=10), 20480, "float64", Machine(1, 4.0, 4.0, "no mpirun"), engine)


def test_ranks_with_too_little_memory_for_scalapack_are_told_so():
    with pytest.raises(ConfigError, match=r"scalapack: each of 4 ranks needs 0.9 GiB, and 0.5 are there; more nodes need less each"):
        choose(Question(num_eigenvalues=None, num_vectors=10), 20480, "float64", Machine(4, 0.5, 2.0), "auto")


def test_it_is_told_what_an_eigensolve_is_at(root):
    told = []
    task = dataclasses.replace(task_of(TiledSpectrum(gram=TILED, num_eigenvalues=9, engine="lanczos")), resources=RESOURCES)
    execute(root, task, attempt="first", code="test", reraise=True, report=told.append)
    words = [message["words"] for message in told if "progress" in message]
    assert words[:2] == ["0 of 10 tiles checked", "1 of 10 tiles checked"] and words[9] == "9 of 10 tiles checked"
    assert words[10] == "eigenvalues by block Lanczos"


def test_no_more_eigenvalues_than_rows():
    with pytest.raises(ConfigError, match="num_eigenvalues must be at most 70, the rows of the kernel, got 71"):
        TiledSpectrum(gram=TILED, num_eigenvalues=71)


@pytest.mark.parametrize("engine", ["whole", pytest.param("scalapack", marks=pytest.mark.skipif(bool(available()), reason=available()))])
def test_in_single_precision_the_noise_floor_is_the_measured_error_and_the_solvers(tmp_path, engine):
    gram = dataclasses.replace(TILED, dtype="float32")
    committed(tmp_path, TRAIN)
    execute(tmp_path, task_of(gram), attempt="first", code="test", reraise=True)
    error = last(taskdir.read_commit(tmp_path, task_of(gram).commit_name))["kernel_error"]
    commit = commit_of(tmp_path, TiledSpectrum(gram=gram, num_eigenvalues=None, engine=engine))
    exact = committed(tmp_path, Spectrum(gram=Gram(train=TRAIN, probe_size=7))).rows["spectra"]["eigenvalue"]
    assert 0 < error < 1e-6 * exact[-1]
    floor = last(commit)["noise_floor"]
    assert error <= floor < 70 * 1.2e-7 * exact[-1]
    assert engine == "whole" or floor >= 70**0.5 * 1.19e-7 * exact[-1]
    assert np.abs(np.array(commit.rows["spectra"]["eigenvalue"]) - exact).max() <= floor


def test_without_scalapack_another_engine_is_chosen_and_the_reason_says_so():
    choice = choose(Question(num_eigenvalues=None, num_vectors=10), 20480, "float64", Machine(4, 1.5, 20.0, "no mpirun on PATH"), "auto")
    assert (choice.engine, choice.reason) == ("whole", "all of 20,480 eigenvalues; not scalapack: no mpirun on PATH")


def test_where_scalapack_is_asked_for_and_absent_it_is_said_what_to_install(root, monkeypatch, tmp_path):
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        ended = outcome_of(root, TiledSpectrum(gram=TILED, num_eigenvalues=None, num_eigenvectors=8, engine="scalapack"), "first")
    assert ended.outcome == "user_error"
    assert "scalapack: no mpirun on PATH; on Debian: apt-get install openmpi-bin libscalapack-openmpi2.2" in ended.message


@pytest.mark.parametrize("engine", ["lanczos", "scalapack"])
def test_the_limits_of_all_ranks_of_the_first_node_and_its_task_are_the_memory_that_there_is(root, engine):
    tiles = TileSet.load(taskdir.payload_path(root, taskdir.read_commit(root, task_of(TILED).commit_name), "tiles.json"))
    resources = Resources(cpus=4, memory_gib=9.0)
    limits = _Limits.of(engine, Question(num_eigenvalues=5, num_vectors=5), tiles, resources)
    assert BASE_GIB + limits.first_gib + 3 * limits.rank_gib == pytest.approx(9.0)
    assert limits.first_gib > limits.rank_gib
    assert BASE_GIB + 4 * limits.mpi_gib == pytest.approx(9.0)


# -- ranks that die -----------------------------------------------------------------------------------------------------


def outcome_of(root, workload, name):
    return execute(root, dataclasses.replace(task_of(workload), resources=RESOURCES), attempt=name, code="test")


@pytest.mark.skipif(bool(available()), reason=available())
def test_a_dead_rank_of_scalapack_is_a_death_of_the_task_which_a_second_attempt_makes_good(root, monkeypatch):
    workload = TiledSpectrum(gram=TILED, num_eigenvalues=None, num_eigenvectors=6, engine="scalapack")
    with monkeypatch.context() as dying:
        dying.setattr(scalapack, "_RANK", ("-c", "import os; os.kill(os.getpid(), 9)"))
        ended = outcome_of(root, workload, "first")
    assert ended.outcome == "killed"
    assert re.search(r"was killed by signal 9; each rank needs 0.0\d GiB, more ranks or nodes need less each", ended.message)
    commit = commit_of(root, workload, "second")
    assert len(commit.rows["spectra"]["eigenvalue"]) == 70 and last(commit)["trace_error"] < 1e-12


@pytest.mark.parametrize(("engine", "count"), [("lanczos", 6), ("scalapack", None)])
def test_a_rank_that_finds_no_memory_is_a_want_of_the_task_which_a_second_attempt_with_more_makes_good(root, monkeypatch, engine, count):
    if engine == "scalapack" and available():
        pytest.skip(available())
    workload = TiledSpectrum(gram=TILED, num_eigenvalues=count, num_eigenvectors=7, engine=engine)
    with monkeypatch.context() as poor:
        poor.setattr("workers.sharded.answers.answer", _hungry)
        ended = outcome_of(root, workload, "first")
    assert ended.outcome == "host_oom"
    assert re.match(r"rank 0 of 2 on \S+ found no memory above its share, \d\.\d\d GiB; give more resources.memory_gib", ended.message)
    assert last(commit_of(root, workload, "second"))["residual_norm"] < 1e-9


def _hungry(context, order, rank, num_ranks):
    """As a rank that needs more than it may have: 8 GiB."""
    if rank == 0:
        np.ones(2**30)
