"""An eigensolve by MPI ranks on the nodes of a job."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.slurm.cluster import REPOSITORY, Cluster
from workers.sharded.scalapack import available

SOLVE = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from workers.sharded import scalapack
folder = Path(sys.argv[1])
tiles = SimpleNamespace(num_rows=200, panel_rows=120, dtype="float64", path=lambda i, j: folder / f"{i}-{j}.npy")
found = scalapack.solve(tiles, ranks=4, folder=folder / "solve", vectors=3, block=16, nodes=sys.argv[2:])
(folder / "found").write_text(json.dumps([found.eigenvalues_R.tolist(), str(found.vectors)]))
"""


def test_ranks_on_two_nodes_of_three_find_the_eigenvalues(cluster: Cluster, shared: Path) -> None:
    if reason := available():
        pytest.skip(f"no ScaLAPACK here: {reason}")
    features = np.random.default_rng(0).standard_normal((200, 200))
    kernel, cut = features @ features.T, 120
    for i, j in ((0, 0), (0, 1), (1, 1)):
        np.save(shared / f"{i}-{j}.npy", kernel[i * cut : (i + 1) * cut, j * cut : (j + 1) * cut])
    (shared / "solve.py").write_text(SOLVE)
    script = f"cd {REPOSITORY}; PYTHONPATH=. {sys.executable} {shared}/solve.py {shared} n1 n3"
    job = cluster.sbatch(script, "--nodelist=n[1-3]", "--ntasks-per-node=1", f"--output={shared}/log")
    cluster.wait_for(job, "COMPLETED", "FAILED")
    assert cluster.state(job) == "COMPLETED", (shared / "log").read_text()
    eigenvalues, vectors = json.loads((shared / "found").read_text())
    expected = np.linalg.eigvalsh(kernel)
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-12 * expected[-1])
    largest_RK = np.load(vectors)
    np.testing.assert_allclose(kernel @ largest_RK, largest_RK * expected[-3:], atol=1e-12 * expected[-1])
