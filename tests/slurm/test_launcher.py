"""The launcher on a real cluster: names of any kind, and limits on how many jobs may be queued."""

import json
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.scene import Scene

# what a shell, sbatch or SLURM's file names would act upon, were it not quoted
NASTY = 'a\'; touch x; $(touch y) `touch z` # "q" %j & b'


@pytest.mark.parametrize("pack", ["never", "always"])
def test_names_that_a_shell_would_run_are_names(cluster: Cluster, shared: Path, pack: str) -> None:
    with Scene(cluster=cluster, folder=shared / NASTY) as scene:
        site = {"sbatch": {"comment": NASTY}, "container": ["env", f"WORD={NASTY}"], "python": sys.executable, "pack": pack}
        (scene.folder / "conf/site").mkdir(parents=True)
        (scene.folder / "conf/site/nasty.yaml").write_text(json.dumps(site))
        scene.submit("workload=noop", "name=nasty", "index=range(0,3)", "site=nasty")
        wait_until(lambda: "nasty" in scene.ledger.settled, 60, "the jobs have run, and the one that ticks")
        assert scene.charged("nasty") == {}
        assert f"Comment={NASTY}" in cluster.exec("scontrol", "show", "job", scene.job_id("nasty"))
        assert not [path for path in shared.rglob("*") if path.name in ("x", "y", "z")]


def test_a_sweep_goes_on_by_itself_where_few_jobs_may_be_queued(cluster: Cluster, shared: Path) -> None:
    """The account `tiny` may have 5 jobs queued, of which one ticks."""
    with Scene(cluster=cluster, folder=shared) as scene:
        scene.submit("workload=noop", "name=few", "index=range(0,9)", "launcher.pack=never", "launcher.account=tiny")
        assert [len(one["jobs"]) for one in scene.submissions("few")] == [4]
        wait_until(lambda: "few" in scene.ledger.settled, 120, "all jobs have run, each tick having sent the next")
        sizes = [len(one["jobs"]) for one in scene.submissions("few")]
        assert (sum(sizes), max(sizes), scene.charged("few")) == (9, 4, {})
