"""The launcher of SLURM: what it sends, ends and refuses, and what a plan of it says; SLURM's commands are faked on PATH."""

import json
import os
import time
from pathlib import Path

import pytest
from batches import noop

from orchestrator import cli, show
from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, JobState, SchedulerSilent, Submission, SubmissionRefused
from orchestrator.launchers.slurm import Slurm
from orchestrator.plan import Plan, plan
from orchestrator.slurm import ending, queue, recent
from orchestrator.store import Store
from workers import files, taskdir
from workers.errors import ConfigError
from workers.processes import boot_id
from workers.taskdir import Task

BASE = "w1-0123456789ab"
CODE = Path("/scratch/code/1")
GIB_PARTITIONS = {"cpu": {"default": True, "nodes": 10, "cpus_per_node": 16, "memory_gib": 64, "max_minutes": 1440}}
FORBIDDEN = "sbatch: error: Batch job submission failed: Access/permission denied"


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    recent.forget()
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def cluster(recorded_slurm):
    """The recorded cluster, which takes every job and has an empty queue."""
    recorded_slurm.says("sbatch", "Submitted batch job 4711\n")
    recorded_slurm.says("squeue", "")
    recorded_slurm.says("scancel", "")
    return recorded_slurm


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, object]:
    """A launcher's settings for which the tests' own folders are on a shared file system."""
    return {"shared": (str(tmp_path.parent.parent.parent), "/usr", "/opt"), "python": "/usr/bin/python3"}


def tasks(count: int, **resources: float) -> list[Task]:
    return [noop(n, resources={"nodes": 1, **resources}) for n in range(count)]


def sizes(found: list[Submission]) -> list[int]:
    return [len(one.jobs) for one in found]


# -- cutting ------------------------------------------------------------------------------------------------------------


def test_arrays_are_no_longer_than_the_cluster_takes(cluster):
    cluster.says("scontrol", (cluster.folder / "scontrol-config.out").read_text().replace("10001", "301"), to="config")
    assert sizes(Slurm(pack="never").cut(tasks(700), {})) == [301, 301, 98]


def test_no_more_jobs_are_cut_than_may_be_queued_now(cluster):
    launcher = Slurm(pack="never", account="tiny")
    cluster.says("squeue", "12\n")
    assert sizes(launcher.cut(tasks(9), {})) == [3], "5 are allowed, 1 is queued, and 1 ticks"
    cluster.says("squeue", "12\n13\n14\n15\n16\n")
    assert launcher.cut(tasks(9), {}) == []
    cluster.says("squeue", "12\n13\n14\n15\n")
    assert sizes(launcher.cut(tasks(9), {})) == [1], "better a job without a tick than none"
    assert sizes(launcher.cut_all(tasks(9), {})) == [9]


def test_nothing_is_cut_while_the_cluster_gives_no_answer(cluster):
    cluster.says("scontrol", err="Unable to contact slurm controller", code=1, to="partition")
    with pytest.raises(SchedulerSilent, match="Unable to contact"):
        Slurm().cut(tasks(3), {})


def test_tasks_are_packed_for_the_nodes_of_the_partition(cluster):
    (found,) = Slurm(partition="debug").cut(tasks(100), {})
    assert (found.request["slots"], found.request["cpus"]) == (4, 4)
    recent.forget()
    (found,) = Slurm(partition="small").cut(tasks(100), {})
    assert (found.request["slots"], found.request["memory_gib"]) == (1, pytest.approx(500 / 1024))


def test_what_tasks_are_expected_to_take_decides_how_many_share_a_job(no_cluster):
    shape = taskdir.shape_name("noop", tasks(1)[0].resources)
    launcher = Slurm(partitions=GIB_PARTITIONS)
    assert [sizes(launcher.cut(tasks(800), {shape: seconds})) for seconds in (0.0, 1.0, 55.0)] == [[1], [13], [64]]


# -- submitting ---------------------------------------------------------------------------------------------------------


def submission(num_jobs: int, launcher: Slurm) -> Submission:
    (found,) = launcher.cut_all([noop(n, resources={"nodes": 1}) for n in range(num_jobs)], {})
    return found


def test_one_call_submits_the_jobs_and_one_the_tick(cluster, root: Path):
    folder = taskdir.batch_dir(root, BASE)
    folder.mkdir()
    launcher = Slurm(pack="never", partition="debug")
    found = submission(5, launcher)
    assert launcher.submit(root, BASE, found, CODE) == "4711"
    assert cluster.asked("sbatch") == [str(folder / "submission.sh"), str(folder / "tick.sh")]
    texts = launcher.scripts(root, BASE, found, CODE)
    assert (folder / "submission.sh").read_text() == texts["submission.sh"]
    assert (folder / "tick.sh").read_text() == texts["tick.sh"].replace("JOBID", "4711")
    assert files.read(folder / "tick.json") == {"job_id": "4711"}


def test_who_ticks_themselves_get_no_job_for_it(cluster, root: Path):
    taskdir.batch_dir(root, BASE).mkdir()
    launcher = Slurm(tick_job=False)
    launcher.submit(root, BASE, submission(1, launcher), CODE)
    assert len(cluster.asked("sbatch")) == 1
    assert list(launcher.scripts(root, BASE, submission(1, launcher), CODE)) == ["submission.sh"]


def test_jobs_that_are_refused_leave_no_tick(cluster, root: Path):
    taskdir.batch_dir(root, BASE).mkdir()
    cluster.says("sbatch", err=FORBIDDEN, code=1)
    with pytest.raises(SubmissionRefused, match="Access/permission denied"):
        Slurm().submit(root, BASE, submission(1, Slurm()), CODE)
    assert len(cluster.asked("sbatch")) == 1


def test_the_tick_asks_for_no_more_than_its_partition_has(cluster, root: Path):
    text = Slurm(partition="debug", tick_partition="small").scripts(root, BASE, submission(1, Slurm()), CODE)["tick.sh"]
    assert "#SBATCH --partition=small\n" in text
    assert "#SBATCH --mem=500M\n" in text
    assert "#SBATCH --time=1\n" in Slurm(partition="short").scripts(root, BASE, submission(1, Slurm()), CODE)["tick.sh"]


# -- states and ends ----------------------------------------------------------------------------------------------------


def test_states_are_asked_for_by_the_names_of_submissions_and_their_ids(monkeypatch: pytest.MonkeyPatch, root: Path):
    asked: dict[str, object] = {}
    monkeypatch.setattr(queue, "states", lambda names, ids, **more: asked.update(names=names, ids=ids, **more) or {})
    folder = taskdir.batch_dir(root, BASE)
    folder.mkdir()
    (folder / "job.json").write_bytes(files.encode({"job_id": "12"}))
    assert Slurm(use_sacct=False).states(root, [f"{BASE}/0", f"{BASE}/7", "w2-a"]) == {}
    assert asked == {"names": {BASE: [f"{BASE}/0", f"{BASE}/7"], "w2-a": ["w2-a"]}, "ids": {BASE: "12"}, "use_sacct": False}


def jobs(**states: tuple[str, str]) -> dict[str, JobState]:
    """`a0=(RUNNING, "12_0")` is the batch `a/0`."""
    return {f"{name[0]}/{name[1:]}": JobState(state=state, job_id=job_id) for name, (state, job_id) in states.items()}


def orders(root: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(root / "batches")) for path in (root / "batches").rglob("cancel-*.json"))


def test_what_waits_is_cancelled_and_what_runs_is_told_to_end(cluster, root: Path):
    found = jobs(
        a0=(RUNNING, "12_0"), a1=(QUEUED, "12_1"), a2=(QUEUED, "12_2"), a3=(QUEUED, "12_3"), a7=(QUEUED, "12_7"), b1=(ENDED, "13_1")
    )
    ending.cancel(root, found | {"c": JobState(state=QUEUED, job_id="15")}, 60.0)
    assert cluster.asked("scancel") == ["--quiet 15 12_[1-3,7]"]
    assert orders(root) == ["a/0"]
    assert files.read(root / "batches/a/0" / f"cancel-{boot_id()}.json")["keys"] is None


def test_what_still_runs_after_the_grace_is_killed(cluster, root: Path, monkeypatch: pytest.MonkeyPatch):
    found = jobs(a0=(RUNNING, "12_0"))
    ending.cancel(root, found, 60.0)
    ending.cancel(root, found, 60.0)
    assert cluster.asked("scancel") == []
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: now + 91.0)
    ending.cancel(root, found, 60.0)
    assert cluster.asked("scancel") == ["--quiet 12_[0]"]


def test_another_hosts_order_says_nothing_of_our_clock(cluster, root: Path):
    folder = root / "batches/a/0"
    folder.mkdir(parents=True)
    (folder / "cancel-another-boot.json").write_bytes(files.encode({"keys": None, "at": 0.0}))
    ending.cancel(root, jobs(a0=(RUNNING, "12_0")), 60.0)
    assert cluster.asked("scancel") == []
    assert len(list(folder.iterdir())) == 2


def test_many_jobs_are_ended_in_few_words(cluster, root: Path):
    ending.cancel(root, {f"a/{n}": JobState(state=QUEUED, job_id=f"12_{n}") for n in range(10_000) if n % 1000}, 60.0)
    (words,) = cluster.asked("scancel")
    assert words.startswith("--quiet 12_[1-999,1001-1999,")


# -- refusing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "resources", "message"),
    [
        ({"partition": "debgu"}, {}, "no partition 'debgu' on this cluster; did you mean 'debug'"),
        ({"tick_partition": "nosuch"}, {}, "launcher.tick_partition: no partition 'nosuch'.*: launcher.tick_partition="),
        ({"account": "nosuch"}, {}, "no account 'nosuch' among yours"),
        ({}, {"memory_gib": 900.0}, "900 GiB on one node is more than a node of partition 'debug' has"),
        ({"shared": ("/nowhere",)}, {}, "the nodes do not see the store: .* is in none of the folders that the nodes see"),
        (
            {"python": "/dev/shm/python"},
            {},
            "the nodes do not see the interpreter: /dev/shm/python is in /dev, of which each node has its own",
        ),
    ],
)
def test_what_the_cluster_does_not_offer_is_refused(cluster, root: Path, shared, given: dict[str, object], resources, message: str):
    launcher = Slurm(**(shared | given))
    with pytest.raises(ConfigError, match=message):
        launcher.check_jobs(root, tasks(1, **resources), submitting=False)
    assert cluster.asked("sbatch") == []


def test_the_cluster_itself_has_the_last_word(cluster, root: Path, shared):
    cluster.says("sbatch", err="allocation failure: Requested reservation is invalid", code=1)
    with pytest.raises(ConfigError, match=r"would not take such a job \(sbatch: allocation failure: Requested reservation is invalid\)"):
        Slurm(reservation="nosuch", **shared).check_jobs(root, tasks(1), submitting=True)
    assert cluster.asked("sbatch") == ["--test-only"]


def test_what_fits_is_taken(cluster, root: Path, shared):
    assert Slurm(**shared).check_jobs(root, tasks(1), submitting=True) == ""


def test_without_a_cluster_a_plan_goes_by_the_sites_own_list_and_says_so(no_cluster, root: Path, shared):
    launcher = Slurm(partitions=GIB_PARTITIONS, **shared)
    assert launcher.check_jobs(root, tasks(1), submitting=False).startswith(
        "not checked against a cluster, only against the site's `partitions:`"
    )
    with pytest.raises(ConfigError, match="100 GiB on one node is more than a node of partition 'cpu' has"):
        launcher.check_jobs(root, tasks(1, memory_gib=100.0), submitting=False)
    assert "no `partitions:` to plan by" in Slurm(**shared).check_jobs(root, tasks(1), submitting=False)


def test_without_a_cluster_nothing_can_be_submitted(no_cluster, root: Path, shared):
    with pytest.raises(ConfigError, match="there is no sbatch on PATH, so nothing can be submitted"):
        Slurm(partitions=GIB_PARTITIONS, **shared).check_jobs(root, tasks(1), submitting=True)


def test_a_plan_works_while_the_cluster_gives_no_answer_and_a_submission_says_that_it_did_nothing(cluster, root: Path, shared):
    cluster.says("scontrol", err="Unable to contact slurm controller", code=1, to="partition")
    assert "not checked against a cluster: scontrol gave no answer" in Slurm(**shared).check_jobs(root, tasks(1), submitting=False)
    with pytest.raises(SchedulerSilent, match="nothing was submitted: run the same `eigensweep submit` again"):
        Slurm(**shared).check_jobs(root, tasks(1), submitting=True)


def test_what_one_task_can_have_is_what_the_largest_node_has(cluster):
    assert Slurm().most_memory_gib() == 4000 / 1024
    assert Slurm(partition="small,debug").most_memory_gib() == 4000 / 1024
    assert Slurm(partition="small").most_memory_gib() == 500 / 1024
    assert Slurm().num_slots() == 16
    assert Slurm(max_jobs=1, slots=2).num_slots() == 2


def test_nothing_is_known_without_a_cluster(no_cluster):
    assert (Slurm().most_memory_gib(), Slurm().num_slots()) == (float("inf"), 512)


# -- planning -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, shared, monkeypatch: pytest.MonkeyPatch) -> str:
    """A site with its own list, chosen by its name."""
    folder = tmp_path / "conf/site"
    folder.mkdir(parents=True)
    (folder / "uni.yaml").write_text(json.dumps({"partitions": GIB_PARTITIONS, "grace_seconds": 60, **shared}))
    monkeypatch.chdir(tmp_path)
    return "site=uni"


def planned(store: Store, *words: str, **options: bool) -> Plan:
    return plan([*words, "name=p1"], store, **options)


def test_a_plan_counts_jobs_calls_and_hours(no_cluster, store: Store, site: str):
    found = planned(store, "workload=noop", "index=range(0,2500)", "seconds=3600", "launcher.overhead_minutes=0", "resources.cpus=2", site)
    (jobs,) = found.jobs
    assert (found.num_jobs, jobs.jobs, jobs.calls, jobs.tasks, jobs.unknown) == (2500, 2500, 3, {"noop": 2500}, 0)
    assert (jobs.node_hours, jobs.cpu_hours, jobs.gpu_hours) == ((1250.0, 5000.0), (2500.0, 10_000.0), (0.0, 0.0))
    assert jobs.most == (5000.0, 10_000.0, 0.0)
    assert len(jobs.scripts) == 1
    assert "#SBATCH --array=0-999%21\n" in jobs.scripts[0]["submission.sh"]


def test_a_plan_counts_what_is_sent_when_its_inputs_are_there(no_cluster, store: Store, site: str):
    found = planned(store, "sweep=digits", "model.width=8,16", "seed=0,1", site)
    assert [(one.tasks, one.after_others) for one in found.jobs] == [({"train": 4}, False), ({"gram": 4}, True), ({"spectrum": 4}, True)]
    text = show.plan(found, color=False)
    assert "12 in all" in text
    assert "+: sent when the inputs, which jobs above compute, are there" in text


def test_a_plan_says_what_it_does_not_know(no_cluster, store: Store, site: str):
    found = planned(store, "workload=grid_package.modes", "study.seed=1,2", site)
    assert sum(one.unknown for one in found.jobs) == found.unknown_cost == 4
    assert "?: without 4 tasks whose time is not known yet" in show.plan(found, color=False)


def test_a_plan_writes_nothing(no_cluster, store: Store, site: str):
    before = sorted(path for path in store.root.rglob("*"))
    planned(store, "workload=noop", "index=1,2", site)
    assert sorted(path for path in store.root.rglob("*")) == before


def test_a_dry_run_prints_every_script_and_a_plan_the_first_of_each_shape(
    no_cluster, root: Path, site: str, capsys: pytest.CaptureFixture[str]
):
    words = ["workload=noop", "name=p1", "index=range(0,5)", "launcher.pack=never", "launcher.chunk=2", site, f"root={root}"]
    assert cli.main(["plan", *words]) == 0
    text = capsys.readouterr().out
    assert text.count("submission.sh ---") == 1
    assert "2 further calls have scripts of the same shapes: `eigensweep submit --dry-run`" in text
    assert "not checked against a cluster, only against the site's `partitions:`: there is no sbatch on PATH" in text
    assert cli.main(["submit", *words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.count("submission.sh ---") == text.count("tick.sh ---") == 3
    assert text.count("#SBATCH --array=0-1%2\n") == 2
    assert "#SBATCH --job-name=p1-xxxxxxxxxxxx\n" in text
    assert "further calls" not in text


def test_the_printed_script_is_the_one_that_is_submitted(cluster, store: Store, site: str, capsys: pytest.CaptureFixture[str]):
    words = ["workload=noop", "name=p1", "index=range(0,5)", "launcher.pack=never", site, f"root={store.root}"]
    assert cli.main(["submit", *words, "--dry-run", "--json"]) == 0
    (jobs,) = json.loads(capsys.readouterr().out)["jobs"]
    assert cli.main(["submit", *words, "--detach", "--quiet"]) == 0
    (folder,) = (store.root / "batches").iterdir()
    for name, text in jobs["scripts"][0].items():
        shown = text.replace("p1-xxxxxxxxxxxx", folder.name).replace("JOBID", "4711")
        assert (folder / name).read_text() == shown
    assert len([words for words in cluster.asked("sbatch") if words != "--test-only"]) == 2


@pytest.mark.parametrize("verb", ["plan", "submit"])
def test_what_cannot_be_is_an_error_with_exit_code_2_and_nothing_is_written(cluster, root: Path, site: str, verb: str, capsys):
    before = sorted(root.rglob("*"))
    assert cli.main([verb, "workload=noop", "name=p1", "launcher.partition=debgu", site, f"root={root}"]) == 2
    assert "error: no partition 'debgu' on this cluster; did you mean 'debug'?" in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before
    assert cluster.asked("sbatch") == []


def test_a_submission_without_sbatch_is_an_error_with_exit_code_2(no_cluster, root: Path, site: str, capsys):
    assert cli.main(["submit", "workload=noop", "name=p1", site, f"root={root}"]) == 2
    assert "there is no sbatch on PATH" in capsys.readouterr().err
    assert os.listdir(root / "batches") == []


def test_a_local_sweep_has_no_jobs_of_a_scheduler(store: Store):
    found = planned(store, "workload=noop", "index=1,2", "launcher=local")
    assert (found.jobs, found.num_jobs, found.unchecked) == ([], 1, "")
