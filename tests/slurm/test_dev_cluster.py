"""The development cluster behaves as a cluster of several machines does."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import CLUSTER, REPOSITORY, Cluster, wait_until


def test_each_node_has_its_own_name_and_tmp_and_sees_the_shared_folder(cluster: Cluster, shared: Path) -> None:
    script = f"hostname > {shared}/$SLURM_ARRAY_TASK_ID; touch /tmp/is-$(hostname); ls /tmp/is-* >> {shared}/$SLURM_ARRAY_TASK_ID"
    job = cluster.sbatch(script, "--array=1-4", "--cpus-per-task=4")
    cluster.wait_for(job, "COMPLETED")
    seen = {tuple((shared / str(element)).read_text().split()) for element in range(1, 5)}
    assert seen == {(f"n{node}", f"/tmp/is-n{node}") for node in range(1, 5)}


def test_commands_on_path_reach_the_cluster_and_keep_directory_and_input(cluster: Cluster, shared: Path) -> None:
    submitted = subprocess.run(
        ["sbatch", "--parsable", "--output=out"], input="#!/bin/sh\npwd\n", cwd=shared, text=True, capture_output=True
    )
    cluster.wait_for(submitted.stdout.strip(), "COMPLETED")
    assert (shared / "out").read_text().strip() == str(shared)


def test_a_job_on_a_node_finds_the_real_commands(cluster: Cluster, shared: Path) -> None:
    job = cluster.sbatch(f"command -v sbatch > {shared}/which; squeue --noheader --format=%j > {shared}/queue", "--job-name=me")
    cluster.wait_for(job, "COMPLETED")
    assert (shared / "which").read_text().strip() == "/usr/bin/sbatch"
    assert (shared / "queue").read_text().strip() == "me"


def test_sacct_knows_exit_codes_of_jobs_and_array_elements(cluster: Cluster) -> None:
    job = cluster.sbatch("exit $SLURM_ARRAY_TASK_ID", "--array=0-2")
    expected = {"0": "COMPLETED|0:0", "1": "FAILED|1:0", "2": "FAILED|2:0"}

    def accounted() -> dict[str, str]:
        lines = cluster.exec("sacct", "-nPX", "--jobs", job, "--format=JobID,State,ExitCode").splitlines()
        return {line.split("|")[0].partition("_")[2]: line.partition("|")[2] for line in lines}

    wait_until(lambda: accounted() == expected, 30, f"sacct knows {expected}")


def test_a_job_opens_only_the_gpus_that_it_asked_for(cluster: Cluster, shared: Path) -> None:
    device = cluster.state_folder / "dev/nvidia"
    script = f"echo $CUDA_VISIBLE_DEVICES; hostname; for gpu in 0 1; do cat {device}$gpu; done; true"
    job = cluster.sbatch(script, "--gres=gpu:v100:1", f"--output={shared}/out")
    cluster.wait_for(job, "COMPLETED")
    visible, node, *messages = (shared / "out").read_text().splitlines()
    assert visible == "0" and node in ("n3", "n4")
    # without a device behind it, an allowed file opens to "No such device"
    assert sorted("not permitted" in message for message in messages) == [False, True]


def test_a_job_over_its_memory_is_killed(cluster: Cluster) -> None:
    job = cluster.sbatch("exec python3 -c 'bytearray(300 << 20)'", "--mem=50M")
    wait_until(lambda: cluster.accounted(job) == ["OUT_OF_MEMORY"], 30, "sacct says OUT_OF_MEMORY")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--account=unknown"], "Invalid account"),
        (["--qos=unknown"], "Invalid qos"),
        (["--partition=unknown"], "invalid partition"),
        (["--constraint=unknown"], "Invalid feature"),
        (["--gres=gpu:h100:1"], "node configuration is not available"),
        (["--gres=gpu:3"], "node configuration is not available"),
        (["--mem=1T"], "node configuration is not available"),
        (["--qos=short", "--time=5"], "Job violates accounting/QOS policy"),
        (["--account=tiny", "--array=0-5"], "Job violates accounting/QOS policy"),
        (["--array=0-1001"], "Invalid job array specification"),
    ],
)
def test_what_the_cluster_does_not_offer_is_refused(cluster: Cluster, options: list[str], message: str) -> None:
    printed = cluster.exec("sbatch", "--wrap=true", *options, check=False)
    assert message in printed
    assert "Submitted" not in printed


def test_a_user_without_privileges_submits(cluster: Cluster, shared: Path) -> None:
    shared.chmod(0o777)
    job = cluster.exec("sbatch", "--parsable", "--wrap=id -u > uid", cwd=shared, user="nobody").strip()
    cluster.wait_for(job, "COMPLETED")
    assert (shared / "uid").read_text().strip() == "65534"


def test_a_preempted_job_runs_again_or_is_over_as_its_partition_says(cluster: Cluster) -> None:
    low = cluster.sbatch("sleep 600", "--partition=low", "--exclusive", "--nodelist=n1")
    cancel = cluster.sbatch("sleep 600", "--partition=cancel", "--exclusive", "--nodelist=n2")
    for job in (low, cancel):
        cluster.wait_for(job, "RUNNING")
    high = cluster.sbatch("sleep 3", "--partition=high", "--exclusive", "--nodes=2", "--nodelist=n1,n2")
    cluster.wait_for(cancel, "PREEMPTED")
    cluster.wait_for(high, "COMPLETED")
    cluster.wait_for(low, "RUNNING")
    wait_until(lambda: cluster.accounted(low, all_runs=True) == ["PREEMPTED", "RUNNING"], 30, "sacct has both runs")


def test_the_grace_partition_warns_before_it_preempts(cluster: Cluster, shared: Path) -> None:
    job = cluster.sbatch(
        f"trap 'touch {shared}/warned; exit 0' USR1; sleep 600 & wait", "--partition=grace", "--exclusive", "--signal=B:USR1@30"
    )
    cluster.wait_for(job, "RUNNING")
    cluster.sbatch("true", "--partition=high", "--exclusive", "--nodes=4")
    wait_until((shared / "warned").exists, 30, "the job got its signal")
    cluster.wait_for(job, "COMPLETED")


def test_the_jobs_of_a_lost_node_run_again(cluster: Cluster, shared: Path) -> None:
    """After a power cut elsewhere; after a network cut too, while the first run lives on."""
    script = f"while true; do date +%s%N > {shared}/$SLURM_JOB_NAME-$(hostname); sleep 0.2; done"
    dead, zombie = (cluster.sbatch(script, f"--job-name={name}", "--cpus-per-task=4", "--requeue") for name in ("dead", "zombie"))
    for job in (dead, zombie):
        cluster.wait_for(job, "RUNNING")
    dead_node, zombie_node = (cluster.exec("squeue", "--noheader", "--format=%N", "--jobs", job).strip() for job in (dead, zombie))
    cluster.kill_node(dead_node)
    cluster.cut_node(zombie_node)
    for job in (dead, zombie):
        wait_until(lambda job=job: cluster.accounted(job, all_runs=True) == ["NODE_FAIL", "RUNNING"], 90, f"{job} runs again")
    beats = shared / f"zombie-{zombie_node}"
    before = beats.read_text()
    wait_until(lambda: beats.read_text() != before, 10, "the first run on the cut node goes on")


def test_slurmd_that_is_killed_leaves_its_job_alone(cluster: Cluster) -> None:
    job = cluster.sbatch("sleep 3", "--nodelist=n3")
    cluster.wait_for(job, "RUNNING")
    cluster.kill_slurmd("n3")
    cluster.restore_node("n3")
    cluster.wait_for(job, "COMPLETED")


@pytest.mark.parametrize("verb", ["kill_daemon", "stop_daemon"])
def test_slurmctld_started_again_knows_the_running_jobs(cluster: Cluster, verb: str) -> None:
    job = cluster.sbatch("sleep 9")
    cluster.wait_for(job, "RUNNING")
    # it saves its state every few seconds, and forgets what it took since when it is killed
    running = time.time()
    wait_until(lambda: (cluster.state_folder / "controller/job_state").stat().st_mtime > running, 15, "the state is saved")
    getattr(cluster, verb)("slurmctld")
    refused = cluster.exec("squeue", check=False)
    assert "error" in refused
    cluster.restore_daemon("slurmctld")
    cluster.wait_for(job, "COMPLETED")
    wait_until(lambda: cluster.accounted(job, all_runs=True) == ["COMPLETED"], 30, "sacct knows that it ran once")


def test_accounting_catches_up_when_slurmdbd_comes_back(cluster: Cluster) -> None:
    cluster.kill_daemon("slurmdbd")
    job = cluster.sbatch("true")
    cluster.wait_for(job, "COMPLETED")
    assert "error" in cluster.exec("sacct", check=False)
    cluster.restore_daemon("slurmdbd")
    wait_until(lambda: cluster.accounted(job) == ["COMPLETED"], 60, "sacct has the job")


def test_clusters_side_by_side_do_not_see_each_other(cluster: Cluster, another_cluster: Callable[..., Cluster]) -> None:
    other = another_cluster(1, "--set=MaxArraySize=2001", "--set=MinJobAge=2", "--gpus=0")
    job = other.sbatch("sleep 600", "--job-name=theirs", "--array=2000")
    other.wait_for(job, "RUNNING")
    assert cluster.exec("squeue", "--noheader") == ""
    other.exec("scancel", job)
    wait_until(lambda: other.state(job) == "", 90, "the ended job is purged")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kill-node", "n9"], "no node 'n9'; there are n1, n2, n3, n4"),
        (["kill-daemon", "sshd"], "no daemon 'sshd' to stop or start; there are slurmctld, slurmdbd"),
        (["up", "3"], "is up with 4 nodes; add --fresh, or `down` first"),
        (["up", "0"], "a cluster has 1 to 200 nodes, got 0"),
        (["up", "4", "--set", "MinJobAge"], "--set wants KEY=VALUE, got 'MinJobAge'"),
        (["exec"], "which command?"),
        (["--name", "a/b", "status"], "a cluster's name is up to 32 of"),
        (["--name", "nowhere", "status"], "no cluster 'nowhere'; slurm/dev/cluster --name nowhere up 4"),
    ],
)
def test_what_cannot_be_done_is_said(cluster: Cluster, words: list[str], message: str) -> None:
    done = subprocess.run([CLUSTER, "--name", cluster.name, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr


def test_status_tells_a_host_that_is_off(cluster: Cluster) -> None:
    cluster.kill_node("n4")
    printed = subprocess.run([CLUSTER, "--name", cluster.name, "status"], capture_output=True, text=True, check=True).stdout
    assert "n4    off" in printed and "n1    up" in printed


@pytest.fixture
def without_slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing that a cluster needs from /usr/bin is found."""
    (tmp_path / "python3").symlink_to(sys.executable)
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "EIGENSWEEP_NEED_SLURM")}
    return environment | {"PATH": str(tmp_path)}


def test_a_machine_without_slurm_is_told_how_to_get_it(without_slurm: dict[str, str]) -> None:
    checked = subprocess.run([sys.executable, CLUSTER, "check"], env=without_slurm, capture_output=True, text=True)
    assert checked.returncode == 1
    assert checked.stderr == "cluster: not installed: mariadb-install-db, sbatch, nsenter, unshare, setpriv; slurm/dev/cluster install\n"


@pytest.mark.parametrize(("need", "outcome"), [({}, "1 skipped"), ({"CI": "1"}, "1 error"), ({"EIGENSWEEP_NEED_SLURM": "1"}, "1 error")])
def test_without_a_cluster_tests_are_skipped_but_in_ci_they_fail(without_slurm: dict[str, str], need: dict[str, str], outcome: str) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_status_tells_a_host_that_is_off"]
    run = subprocess.run(words, env=without_slurm | need, cwd=REPOSITORY, capture_output=True, text=True)
    assert outcome in run.stdout
    assert "no SLURM cluster here: cluster: not installed" in run.stdout
