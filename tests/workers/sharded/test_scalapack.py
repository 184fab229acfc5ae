"""Eigenvalues by MPI ranks beside NumPy's, what a solve needs and leaves, and how ranks die."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from batches import wait_for

from workers.errors import ConfigError, Diverged, Garbled, Interrupted, ProcessLost
from workers.sharded import scalapack
from workers.sharded.scalapack_band import band_eigenvalues
from workers.sharded.scalapack_library import Grid, Matrix, all_pairs, owned, shape_of, tridiagonal_eigenvalues, tridiagonal_eigenvectors
from workers.sharded.scalapack_node import Node

ALONE = Node(0, 1, [])
NEEDED = bool(os.environ.get("CI") or os.environ.get("EIGENSWEEP_NEED_MPI"))


@pytest.fixture(scope="module")
def possible() -> None:
    """Skips where no MPI or ScaLAPACK is installed; in CI that is a failure."""
    if reason := scalapack.available():
        (pytest.fail if NEEDED else pytest.skip)(f"no ScaLAPACK here: {reason}")


@dataclass
class Tiles:
    """As TileSet has them, in a folder."""

    folder: Path
    num_rows: int
    panel_rows: int
    dtype: str

    def path(self, row: int, column: int) -> Path:
        return self.folder / f"{row}-{column}.npy"

    def rows(self, panel: int) -> slice:
        return slice(panel * self.panel_rows, (panel + 1) * self.panel_rows)


def kernel_of(num_rows: int) -> np.ndarray:
    """Eigenvalues from 1e-12 to 4, of a Wishart matrix with a power law."""
    features = np.random.default_rng(num_rows).standard_normal((num_rows, num_rows))
    return (features * np.arange(1.0, num_rows + 1) ** -0.6) @ features.T / num_rows


def in_tiles(folder: Path, kernel: np.ndarray, panel_rows: int) -> Tiles:
    folder.mkdir()
    tiles = Tiles(folder, len(kernel), panel_rows, str(kernel.dtype))
    num_panels = -(-len(kernel) // panel_rows)
    for i in range(num_panels):
        for j in range(i, num_panels):
            np.save(tiles.path(i, j), kernel[tiles.rows(i), tiles.rows(j)])
    return tiles


def rounding(dtype: str) -> float:
    return {"float64": 1e-13, "float32": 1e-6}[dtype]


# -- numbers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_rows", "panel_rows", "ranks", "block", "dtype"),
    [
        (301, 77, 2, 64, "float64"),  # panels larger than blocks, nothing a multiple of anything
        (301, 13, 1, 64, "float64"),  # smaller
        (203, 50, 4, 16, "float32"),  # a grid of 2 x 2
        (7, 3, 2, 64, "float64"),  # a rank without anything
        (600, 250, 2, 8, "float64"),  # more columns than are multiplied at once, on both ranks
        (1, 1, 1, 64, "float64"),
    ],
)
def test_eigenvalues_are_those_of_the_whole_matrix(possible, tmp_path, num_rows, panel_rows, ranks, block, dtype):
    kernel = kernel_of(num_rows).astype(dtype)
    solved = scalapack.solve(in_tiles(tmp_path / "tiles", kernel, panel_rows), ranks=ranks, folder=tmp_path / "solve", block=block)
    expected = np.linalg.eigvalsh(kernel.astype(np.float64))
    assert solved.eigenvalues_R.dtype == np.float64
    assert np.abs(solved.eigenvalues_R - expected).max() <= rounding(dtype) * expected[-1]
    assert solved.vectors is None
    assert list((tmp_path / "solve").iterdir()) == []


@pytest.mark.parametrize(
    ("vectors", "ranks", "dtype"),
    [(True, 2, "float64"), (100, 2, "float64"), (100, 2, "float32"), (5, 1, "float64"), (1, 4, "float64"), (290, 2, "float32")],
)
def test_eigenvectors_of_the_largest_eigenvalues_are_orthogonal_and_solve(possible, tmp_path, vectors, ranks, dtype):
    kernel = kernel_of(301).astype(dtype)
    solved = scalapack.solve(in_tiles(tmp_path / "tiles", kernel, 77), ranks=ranks, folder=tmp_path / "solve", vectors=vectors, block=32)
    found_RK = np.load(solved.vectors, mmap_mode="r")
    count = 301 if vectors is True else vectors
    assert found_RK.shape == (301, count)
    assert found_RK.dtype == dtype
    vectors_RK, largest_K = np.array(found_RK, np.float64), solved.eigenvalues_R[-count:]
    residual = np.linalg.norm(kernel @ vectors_RK - vectors_RK * largest_K, axis=0)
    assert residual.max() <= 10 * rounding(dtype) * largest_K[-1]
    assert np.abs(vectors_RK.T @ vectors_RK - np.eye(count)).max() <= 100 * rounding(dtype)
    assert [path.name for path in (tmp_path / "solve").iterdir()] == [solved.vectors.name]


@pytest.mark.parametrize("name", ["zeros", "identity", "blocks", "rank one"])
def test_eigenvalues_of_a_kernel_without_anything_to_reflect(possible, tmp_path, name):
    kernel = {
        "zeros": np.zeros((90, 90)),
        "identity": np.eye(90),
        "blocks": np.kron(np.eye(30), np.ones((3, 3))),
        "rank one": np.ones((90, 90)),
    }[name]
    solved = scalapack.solve(in_tiles(tmp_path / "tiles", kernel, 40), ranks=2, folder=tmp_path / "solve", block=16)
    assert np.abs(solved.eigenvalues_R - np.linalg.eigvalsh(kernel)).max() <= 1e-13 * 90


@pytest.mark.parametrize(("num_rows", "ranks", "block"), [(121, 2, 64), (121, 6, 64), (22, 3, 16), (2, 4, 1)])
def test_all_eigenvectors_of_a_kernel_of_few_blocks(possible, tmp_path, num_rows, ranks, block):
    kernel = kernel_of(num_rows)
    solved = scalapack.solve(in_tiles(tmp_path / "tiles", kernel, 30), ranks=ranks, folder=tmp_path / "solve", vectors=True, block=block)
    vectors_RR = np.load(solved.vectors)
    assert np.abs(kernel @ vectors_RR - vectors_RR * solved.eigenvalues_R).max() <= 1e-12


def test_each_element_belongs_to_one_rank_and_only_the_lower_triangle_is_read(possible, tmp_path):
    kernel = kernel_of(150)
    tiles = in_tiles(tmp_path / "tiles", kernel, 40)
    tiles.path(1, 0).write_bytes(b"not a tile: nobody reads below the diagonal")
    assert scalapack.solve(tiles, ranks=2, folder=tmp_path / "solve", block=8).eigenvalues_R.sum() == pytest.approx(kernel.trace())


@pytest.mark.parametrize(("size", "block", "positions"), [(100, 8, 3), (5, 8, 2), (64, 64, 1), (65, 32, 2)])
def test_blocks_are_dealt_out_in_turn(size, block, positions):
    shares = [owned(size, block, position, positions) for position in range(positions)]
    assert sorted(np.concatenate(shares)) == list(range(size))
    assert all((share // block % positions == position).all() for position, share in enumerate(shares))


def test_the_grid_is_as_square_as_the_number_of_ranks_allows():
    assert [shape_of(ranks) for ranks in (1, 2, 3, 4, 6, 12, 16, 7)] == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 4), (4, 4), (1, 7)]


# -- memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "vectors", "dtype"), [(1, False, "float64"), (2, False, "float32"), (2, 60, "float64"), (2, True, "float64")]
)
def test_the_peak_of_memory_is_the_one_foretold(possible, tmp_path, ranks, vectors, dtype):
    size = 1400
    tiles = in_tiles(tmp_path / "tiles", kernel_of(size).astype(dtype), 500)
    solved = scalapack.solve(tiles, ranks=ranks, folder=tmp_path / "solve", vectors=vectors)
    foretold = scalapack.memory_bytes_needed(size, ranks, dtype, vectors)
    assert solved.memory_bytes == pytest.approx(foretold, rel=0.2)


def test_more_ranks_need_less_memory_each_and_vectors_more():
    needed = scalapack.memory_bytes_needed
    assert needed(100_000, 16, "float64") - scalapack.RANK_BYTES == pytest.approx(100_000**2 * 8 / 16, rel=0.15)
    assert needed(20480, 4, "float64", 100) < needed(20480, 4, "float64", 1000) < needed(20480, 4, "float64", True)


# -- what cannot be -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path) -> Tiles:
    return in_tiles(tmp_path / "tiles", kernel_of(100), 30)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_element_that_is_not_finite_is_found_before_the_solve_and_named(possible, tmp_path, small, bad):
    tile = np.load(small.path(1, 2))
    tile[7, 3] = bad
    np.save(small.path(1, 2), tile)
    with pytest.raises(Diverged, match=rf"the kernel has {bad} in row 37, column 63, from the tile .*{small.path(1, 2).name}"):
        scalapack.solve(small, ranks=2, folder=tmp_path / "solve", block=8)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x93NUMPY garbage", "is no tile"),
        (np.zeros((30, 29)), r"holds float64 \(30, 29\), expected float64 \(30, 30\)"),
        (None, "is no tile: .*No such file"),
    ],
)
def test_a_file_that_is_no_tile_is_named(possible, tmp_path, small, body, said):
    path = small.path(0, 1)
    path.unlink()
    if isinstance(body, bytes):
        path.write_bytes(body)
    elif body is not None:
        np.save(path, body)
    with pytest.raises(Garbled, match=f"0-1.npy {said}"):
        scalapack.solve(small, ranks=2, folder=tmp_path / "solve")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ranks": 0}, "ranks must be at least 1, and one a node, got 0 for 1 nodes"),
        ({"ranks": 1, "nodes": ("a", "b")}, "got 1 for 2 nodes"),
        ({"ranks": 1, "block": 0}, "block must be at least 1, got 0"),
        ({"ranks": 1, "vectors": 101}, "a kernel of 100 rows has 0 to 100 eigenvectors, 101 were asked for"),
        ({"ranks": 1, "vectors": -1}, "-1 were asked for"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, small, asked, said):
    with pytest.raises(ConfigError, match=said):
        scalapack.solve(small, folder=tmp_path / "solve", **asked)


def test_a_kernel_in_another_precision_is_refused(tmp_path):
    tiles = in_tiles(tmp_path / "tiles", np.eye(4, dtype=np.float16), 2)
    with pytest.raises(ConfigError, match="ScaLAPACK solves kernels of float64 or float32, these tiles are float16"):
        scalapack.solve(tiles, ranks=1, folder=tmp_path / "solve")


def test_a_part_that_is_too_large_to_count_is_refused_with_the_ranks_that_would_do(tmp_path):
    with pytest.raises(ConfigError, match="4 ranks would hold 2.5e[+]09 elements each, .* take 10 or more"):
        scalapack.solve(Tiles(tmp_path, 100_000, 8192, "float64"), ranks=4, folder=tmp_path / "solve")


@dataclass
class Failing:
    """A library of which every routine ends with this `info`, and a grid that has it."""

    info: int
    shape: tuple[int, int] = (1, 1)
    context: int = 0

    @property
    def library(self) -> "Failing":
        return self

    def has(self, name: str) -> bool:
        return True

    def call(self, name: str, *arguments: object) -> None:
        arguments[-1].value = self.info


def solve_all(failing: Failing) -> None:
    matrix = Matrix(failing, np.zeros((3, 3), order="F"), 64, 64, None)
    all_pairs(matrix, matrix, 3)


@pytest.mark.parametrize(
    ("routine", "said"),
    [
        (solve_all, "pdsytrd did not converge [(]info 5[)]; is the kernel very badly scaled?"),
        (lambda failing: tridiagonal_eigenvalues(failing, np.ones(3), np.ones(2)), "dsterf did not converge [(]info 5[)]"),
        (lambda failing: tridiagonal_eigenvectors(failing, np.ones(3), np.ones(2), 2), "dstemr found 0 of 2 eigenvectors [(]info 5[)]"),
    ],
)
def test_no_convergence_is_a_result_of_the_kernel(routine, said):
    with pytest.raises(Diverged, match=said):
        routine(Failing(5))


@pytest.mark.parametrize(
    ("routine", "said"),
    [
        (solve_all, "pdsytrd refused argument 7 on [(]1, 1[)] ranks in blocks of 64"),
        (lambda failing: Matrix.zeros(Grid(failing, 0, 0, (1, 1), (0, 0), ALONE), (3, 3), "float64", 2), "descinit refused argument 7"),
        (lambda failing: band_eigenvalues(failing, np.zeros((3, 9))), "dsbtrd refused argument 7"),
        (lambda failing: band_eigenvalues(failing, np.zeros((3, 99))), "dsytrd_sb2st refused argument 7"),
    ],
)
def test_an_argument_that_is_refused_is_our_mistake(routine, said):
    with pytest.raises(RuntimeError, match=said):
        routine(Failing(-7))


# a process of its own: the libraries share their symbols with all that it loads
BANDS = """
import sys
import numpy as np
from workers.sharded import scalapack_band
from workers.sharded.scalapack_band import band_eigenvalues
from workers.sharded.scalapack_library import Library

class Without:
    def __init__(self, library, *names):
        self.library, self.names = library, names
    def has(self, name):
        return name not in self.names
    def call(self, name, *arguments):
        assert name not in self.names
        return self.library.call(name, *arguments)

new, worst = Library.load(), 0.0
old, chased = Without(new, "dsytrd_sb2st"), Without(new, "dsytrd_sb2st", "dsbtrd")
CASES = [(new, 8192, None), (old, 8192, None), (new, 0, 0.2), (chased, 0, None), (chased, 0, 0.5)]
for library, fewest_chased, memory_gib in CASES:
    scalapack_band.FEWEST_CHASED = fewest_chased
    random = np.random.default_rng(0)
    for size, width in [(1, 0), (2, 1), (9, 2), (30, 64), (130, 31), (131, 1), (257, 64), (333, 64), (700, 16), (1000, 2)]:
        band = random.standard_normal((width + 1, size))
        whole = np.zeros((size, size))
        for below in range(min(width + 1, size)):
            band[below, size - below :] = 0
            whole += np.diag(band[below, : size - below], -below)
        expected = np.linalg.eigvalsh(whole)
        found = band_eigenvalues(library, band.copy(), num_threads=2, memory_gib=memory_gib)
        worst = max(worst, abs(found - expected).max() / abs(expected).max())
    assert ("workers.sharded.bulge_chasing" in sys.modules) == (library is chased)
print(worst)
"""


def test_eigenvalues_of_bands_of_any_width(possible):
    ended = subprocess.run([sys.executable, "-c", BANDS], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 1e-13


# -- what is absent -----------------------------------------------------------------------------------------------------


def test_without_mpirun_it_says_what_to_install(tmp_path, small, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no ScaLAPACK: no mpirun on PATH; on Debian: apt-get install openmpi-bin"):
        scalapack.solve(small, ranks=1, folder=tmp_path / "solve")


def test_another_mpi_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "mpirun").write_text("#!/bin/sh\necho HYDRA build details:\n")
    (tmp_path / "mpirun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "the mpirun on PATH is not Open MPI's but 'HYDRA build details:'" in scalapack.available()


def test_a_library_that_does_not_load_is_named(possible, tmp_path, monkeypatch):
    monkeypatch.setenv("EIGENSWEEP_SCALAPACK", str(tmp_path / "libmine.so"))
    assert re.search(
        "no library .*libmine.so .*apt-get install .* or name a ScaLAPACK for OpenMPI in EIGENSWEEP_SCALAPACK", scalapack.available()
    )


def test_a_folder_without_mkl_is_named(possible, tmp_path, monkeypatch):
    monkeypatch.setenv("EIGENSWEEP_SCALAPACK", str(tmp_path))
    assert scalapack.available().startswith(f"EIGENSWEEP_SCALAPACK={tmp_path} has no libmkl_core.so")


def test_a_library_of_mkl_that_does_not_load_is_named(possible, tmp_path, monkeypatch):
    (tmp_path / "libmkl_core.so.2").write_text("no library")
    monkeypatch.setenv("EIGENSWEEP_SCALAPACK", str(tmp_path))
    assert re.search("libmkl_core.so.2 does not load: .*", scalapack.available())


# -- ranks that die -----------------------------------------------------------------------------------------------------


@pytest.fixture
def endless(tmp_path) -> Tiles:
    """Tiles of which a rank waits for the first as long as the test lasts."""
    tiles = in_tiles(tmp_path / "tiles", kernel_of(100), 30)
    tiles.path(0, 0).unlink()
    os.mkfifo(tiles.path(0, 0))
    return tiles


def ranks_of(folder: Path) -> list[int]:
    """Process ids of the ranks of a solve."""
    mine = "\0".join([sys.executable, "-P", "-m", "workers.sharded.scalapack_rank", str(folder / scalapack.JOB), ""]).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] * (path.read_bytes() == mine)
    return found


def test_a_rank_that_is_killed_ends_the_others_and_is_named(possible, tmp_path, endless):
    folder = tmp_path / "solve"
    caught: list[BaseException] = []

    def solve() -> None:
        try:
            scalapack.solve(endless, ranks=2, folder=folder)
        except ProcessLost as error:
            caught.append(error)

    thread = threading.Thread(target=solve, daemon=True)
    thread.start()
    wait_for(lambda: len(ranks_of(folder)) == 2, "two ranks")
    os.kill(max(ranks_of(folder)), signal.SIGKILL)
    thread.join(30)
    assert re.search(r"rank \d of 2 was killed by signal 9; each rank needs 0.0\d GiB, more ranks or nodes need less each", str(caught[0]))
    assert ranks_of(folder) == []


def test_an_error_in_a_rank_is_shown_with_the_end_of_its_log(possible, tmp_path, small, monkeypatch):
    monkeypatch.setattr(scalapack, "_RANK", ("-c", "import sys; sys.exit('something of its own')"))
    with pytest.raises(ProcessLost, match="(?s)the eigensolve failed: mpirun ended with status 1. The end of .*something of its own"):
        scalapack.solve(small, ranks=2, folder=tmp_path / "solve")


def test_a_rank_that_finds_no_memory_above_its_share_says_so_and_ends_the_others(possible, tmp_path):
    tiles = in_tiles(tmp_path / "tiles", np.eye(4000), 2000)
    with pytest.raises(
        MemoryError, match=r"MPI rank \d on \S+ found no memory above its share, 0\.05 GiB; give more resources\.memory_gib"
    ):
        scalapack.solve(tiles, ranks=2, folder=tmp_path / "solve", rank_gib=0.05)
    wait_for(lambda: ranks_of(tmp_path / "solve") == [], "the end of the ranks")


def test_a_node_with_another_source_is_refused_by_name(possible, tmp_path, small, monkeypatch):
    here = scalapack.versions()
    monkeypatch.setattr(scalapack, "versions", lambda: {**here, "host": "login1", "code": "0123"})
    said = r"node \S+ has code \w+, not 0123 as login1: all nodes must have the same environment and source; the tiles stay"
    with pytest.raises(ConfigError, match=said):
        scalapack.solve(small, ranks=2, folder=tmp_path / "solve")
    wait_for(lambda: ranks_of(tmp_path / "solve") == [], "the end of the ranks")


def test_a_share_of_the_memory_that_is_foretold_is_enough(possible, tmp_path):
    tiles = in_tiles(tmp_path / "tiles", kernel_of(1000), 500)
    for vectors in (0, 20):
        share = scalapack.memory_bytes_needed(1000, 2, "float64", vectors) / 2**30
        found = scalapack.solve(tiles, ranks=2, folder=tmp_path / "solve", vectors=vectors, rank_gib=share)
        np.testing.assert_allclose(found.eigenvalues_R[-1], np.linalg.norm(kernel_of(1000), 2), rtol=1e-12)


def test_a_solve_that_is_stopped_leaves_no_rank(possible, tmp_path, endless):
    folder = tmp_path / "solve"
    with pytest.raises(Interrupted, match="the eigensolve was stopped; it begins anew, from the tiles"):
        scalapack.solve(endless, ranks=2, folder=folder, stopping=lambda: len(ranks_of(folder)) == 2)
    wait_for(lambda: ranks_of(folder) == [], "the end of the ranks")


def test_ranks_die_with_a_solver_that_is_killed(possible, tmp_path, endless):
    folder = tmp_path / "solve"
    code = (
        "import sys; from pathlib import Path; from workers.sharded import scalapack; from types import SimpleNamespace\n"
        "tiles = SimpleNamespace(num_rows=100, panel_rows=30, dtype='float64', path=lambda i, j: Path(sys.argv[1]) / f'{i}-{j}.npy')\n"
        "scalapack.solve(tiles, ranks=2, folder=Path(sys.argv[2]))"
    )
    solver = subprocess.Popen([sys.executable, "-c", code, endless.folder, folder], cwd=Path(scalapack.__file__).parents[2])
    wait_for(lambda: len(ranks_of(folder)) == 2, "two ranks")
    solver.kill()
    solver.wait()
    wait_for(lambda: ranks_of(folder) == [], "the end of the ranks")


def test_what_a_killed_solve_has_left_is_not_taken_for_a_result(possible, tmp_path, small, monkeypatch):
    folder = tmp_path / "solve"
    folder.mkdir()
    np.save(folder / "eigenvalues.npy", np.zeros(100))
    (folder / "rank-00000.json").write_text("{}")
    monkeypatch.setattr(scalapack, "_RANK", ("-c", ""))
    with pytest.raises(RuntimeError, match="mpirun ended with status 0"):
        scalapack.solve(small, ranks=1, folder=folder)


# -- nodes --------------------------------------------------------------------------------------------------------------


def test_across_nodes_mpirun_is_told_the_nodes_and_how_its_step_shares_them(tmp_path, small, monkeypatch):
    monkeypatch.setattr(scalapack, "available", lambda: "")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    asked = {}

    def run(command, log, environment, stopping):
        asked.update(command=command, environment=environment)
        raise Interrupted

    monkeypatch.setattr(scalapack, "_run", run)
    with pytest.raises(Interrupted):
        scalapack.solve(small, ranks=3, folder=tmp_path / "solve", nodes=("n1", "n2"))
    words = asked["command"]
    assert words[: words.index("-n") + 2] == ["mpirun", "-n", "3"]
    assert words[words.index("--host") + 1] == "n1:2,n2:2"
    assert words[words.index("plm_slurm_args") + 1] == "--overlap --overcommit --cpu-bind=none --cpus-per-task=3"
    assert asked["environment"]["SLURM_CPUS_PER_TASK"] == "3"
    with pytest.raises(Interrupted):
        scalapack.solve(small, ranks=3, folder=tmp_path / "solve")
    assert "SLURM_CPUS_PER_TASK" not in asked["environment"]
    assert asked["environment"]["OPENBLAS_NUM_THREADS"] == "1"
