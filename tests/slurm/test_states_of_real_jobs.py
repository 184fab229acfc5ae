"""What a real cluster does to jobs, and what is said of them while it happens and afterwards."""

import pwd
import re
import secrets
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, JobState, SchedulerSilent
from orchestrator.slurm import commands, queue, recent
from orchestrator.slurm.check import problems
from orchestrator.slurm.inventory import Cluster as Inventory
from tests.slurm.cluster import Cluster, wait_until

NOBODY = pwd.getpwnam("nobody").pw_uid
HOG = "exec python3 -c 'x = b\"a\" * 300_000_000; import time; time.sleep(5)'"


@dataclass
class Jobs:
    """Jobs of one test by the names that we gave them, and what is said of them."""

    cluster: Cluster
    names: dict[str, list[str]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def submit(self, label: str, script: str, *options: str, elements: int = 0, user: str = "") -> str:
        """The id of a job, or of an array of so many elements."""
        name = f"{label}-{secrets.token_hex(6)}"
        self.names[name] = [f"{name}/{i}" for i in range(elements)] or [name]
        self.labels[label] = name
        array = [f"--array=0-{elements - 1}"] if elements else []
        # the last that is said of an option counts
        given = [*array, "--mem=50", "--output=/dev/null", *options, f"--job-name={name}", "--parsable"]
        self.ids[label] = self.cluster.exec("sbatch", *given, input=f"#!/bin/sh\n{script}\n", user=user).strip()
        return self.ids[label]

    def look(self, *, uid: int | None = None, known: bool = True, use_sacct: bool = True) -> dict[str, JobState]:
        """Label, or label/index -> state; what is absent has no record."""
        job_ids = {self.labels[label]: job_id for label, job_id in self.ids.items()} if known else {}
        found = queue.states(self.names, job_ids, uid=uid, use_sacct=use_sacct)
        label_of = {name: label for label, name in self.labels.items()}
        return {token.replace(base := token.partition("/")[0], label_of[base]): state for token, state in found.items()}

    def wait(self, label: str, state: str, seconds: float = 60, *, uid: int | None = None) -> JobState:
        """Until the job is in that state beyond doubt."""
        found: list[JobState] = []

        def there() -> bool:
            found[:] = [one for key, one in self.look(uid=uid).items() if key == label]
            return bool(found) and found[0].state == state and not found[0].doubtful

        wait_until(there, seconds, f"{label} is {state} (now {found})")
        return found[0]


@pytest.fixture
def jobs(cluster: Cluster) -> Jobs:
    return Jobs(cluster)


@pytest.fixture(autouse=True)
def _forget(cluster: Cluster) -> Iterator[None]:
    recent.forget()
    yield
    recent.forget()


def test_each_end_has_its_cause(jobs: Jobs) -> None:
    jobs.submit("done", "true")
    jobs.submit("fails", "exit 3")
    jobs.submit("missing", "exec /nonexistent/python")
    jobs.submit("killed", "kill -9 $$")
    jobs.submit("nolog", "true", "--output=/nonexistent/log")
    jobs.submit("oom", HOG)
    jobs.submit("step oom", f"srun sh -c {shlex.quote(HOG)}")
    jobs.submit("cancelled", "sleep 100")
    jobs.submit("waiting", "true", "--hold")
    jobs.wait("cancelled", RUNNING)
    for label in ("cancelled", "waiting"):
        jobs.cluster.exec("scancel", jobs.ids[label])
    found = {label: jobs.wait(label, ENDED) for label in jobs.labels}
    assert {label: (one.cause, one.exit_code) for label, one in found.items()} == {
        "done": ("", 0),
        "fails": ("killed", 3),
        "missing": ("never_started", 127),
        "killed": ("killed", -9),
        "nolog": ("never_started", -53),
        "oom": ("host_oom", -125),
        "step oom": ("host_oom", 1),
        "cancelled": ("cancelled", -15),
        "waiting": ("cancelled", 0),
    }
    assert "could not open its log" in found["nolog"].explanation


def test_who_cancels_counts(jobs: Jobs) -> None:
    for label in ("by root", "by its user"):
        jobs.submit(label, "sleep 100", user="nobody")
        jobs.wait(label, RUNNING, uid=NOBODY)
    jobs.cluster.exec("scancel", jobs.ids["by root"])
    jobs.cluster.exec("scancel", jobs.ids["by its user"], user="nobody")
    assert jobs.wait("by its user", ENDED, uid=NOBODY).cause == "cancelled"
    by_root = jobs.wait("by root", ENDED, uid=NOBODY)
    assert (by_root.cause, by_root.explanation[:17]) == ("killed", "cancelled by root")


def test_elements_of_an_array_are_told_apart(jobs: Jobs) -> None:
    job_id = jobs.submit("array", "sleep 100", "--array=0-9%2", elements=10)
    jobs.wait("array/1", RUNNING)
    jobs.cluster.exec("scancel", f"{job_id}_1", f"{job_id}_7")
    jobs.wait("array/1", ENDED)
    wait_until(lambda: jobs.look()["array/2"].state == RUNNING, 20, "the next element runs")
    found = jobs.look()
    assert found["array/1"].cause == "cancelled" and found["array/1"].job_id == f"{job_id}_1"
    assert {index for index in range(10) if found[f"array/{index}"].state == RUNNING} >= {0, 2}
    # of one that was cancelled while it waited, SLURM keeps no trace: that is looked at twice
    assert (found["array/7"].state, found["array/7"].cause, found["array/7"].doubtful) == (ENDED, "cancelled", True)
    jobs.cluster.exec("scancel", job_id)
    wait_until(lambda: {one.state for one in jobs.look().values()} == {ENDED}, 30, "all have ended")
    assert {one.cause for one in jobs.look().values()} == {"cancelled"}
    assert len(jobs.look()) == 10


def test_a_thousand_elements_cost_two_calls_and_a_moment(jobs: Jobs) -> None:
    jobs.submit("array", "true", elements=1000)
    jobs.submit("fails", "exit 1")
    jobs.wait("fails", ENDED)
    before, begin = commands.calls.copy(), time.monotonic()
    found = jobs.look()
    seconds = time.monotonic() - begin
    assert (commands.calls - before).keys() <= {"squeue", "sacct"} and (commands.calls - before).total() <= 2
    assert len(found) == 1001
    assert seconds < 2
    wait_until(lambda: Counter(one.state for one in jobs.look().values()) == {ENDED: 1001}, 240, "all have ended")
    assert Counter(one.cause for one in jobs.look().values()) == {"": 1000, "killed": 1}


def test_a_job_whose_id_was_lost_is_found_by_its_name(jobs: Jobs) -> None:
    jobs.submit("lives", "sleep 100")
    jobs.submit("ended", "exit 3")
    jobs.wait("ended", ENDED)
    found = jobs.look(known=False)
    assert {label: one.job_id for label, one in found.items()} == jobs.ids
    jobs.names["never-submitted"] = ["never-submitted"]
    jobs.labels["never"] = "never-submitted"
    assert "never" not in jobs.look(known=False)


@pytest.mark.parametrize("hold", ["before", "while it runs"])
def test_the_command_in_an_explanation_mends_a_held_job(jobs: Jobs, hold: str) -> None:
    job_id = jobs.submit("held", "sleep 2", *(["--hold"] if hold == "before" else []))
    if hold != "before":
        jobs.wait("held", RUNNING)
        jobs.cluster.exec("scontrol", "requeuehold", job_id)
    state = jobs.wait("held", QUEUED)
    wait_until(lambda: f"scontrol release {job_id}" in jobs.look()["held"].explanation, 20, "it says how to release it")
    command = re.search(r"scontrol release \S+", jobs.look()["held"].explanation)
    assert command, state
    jobs.cluster.exec(*command[0].split())
    assert jobs.wait("held", ENDED, 90).cause == ""


def test_jobs_that_can_never_start_say_why(jobs: Jobs) -> None:
    failed = jobs.submit("fails", "exit 1")
    jobs.submit("dependent", "true", f"--dependency=afterok:{failed}", "--kill-on-invalid-dep=no")
    jobs.submit("too long", "true", "--partition=short", "--time=5")
    jobs.submit("closed", "true", "--partition=closed")
    wait_until(lambda: all(jobs.look()[one].explanation for one in ("dependent", "too long", "closed")), 30, "all are explained")
    found = jobs.look()
    assert f"never starts: scancel {jobs.ids['dependent']}" in found["dependent"].explanation
    assert "ask for less time" in found["too long"].explanation
    assert "its partition is down" in found["closed"].explanation


def test_a_drained_node_is_named_with_what_gives_it_back(jobs: Jobs) -> None:
    jobs.cluster.exec("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    jobs.submit("waits", "true", "--nodelist=n2")
    wait_until(lambda: "n2" in jobs.look()["waits"].explanation, 30, "the node is named")
    assert "scontrol update nodename=NODE state=resume" in jobs.look()["waits"].explanation
    jobs.cluster.exec("scontrol", "update", "nodename=n2", "state=resume")
    assert jobs.wait("waits", ENDED).cause == ""


def _watched(jobs: Jobs, label: str, seconds: float) -> list[JobState]:
    """All that is said of a job until it runs again, after something befell it."""
    seen: list[JobState] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.append(jobs.look()[label])
        if seen[-1].reason == "RUNNING" and seen[-1].earlier:
            return seen
        time.sleep(0.1)
    raise AssertionError(f"{label} did not run again in {seconds} s: {seen[-1]}")


def test_a_preempted_job_that_is_requeued_never_seems_ended(jobs: Jobs) -> None:
    jobs.submit("low", "sleep 100", "--partition=low", "--nodes=4", "--exclusive")
    jobs.wait("low", RUNNING)
    jobs.submit("high", "sleep 2", "--partition=high", "--nodes=4", "--exclusive")
    seen = _watched(jobs, "low", 90)
    assert {one.state for one in seen} == {RUNNING, QUEUED}
    assert seen[-1].earlier == ("preempted",)


def test_a_preempted_job_that_is_cancelled_has_ended_for_good(jobs: Jobs) -> None:
    jobs.submit("low", "sleep 100", "--partition=cancel", "--nodes=4", "--exclusive")
    jobs.wait("low", RUNNING)
    jobs.submit("high", "sleep 2", "--partition=high", "--nodes=4", "--exclusive")
    assert jobs.wait("low", ENDED).cause == "preempted"


def test_a_requeue_by_hand_counts_as_a_preemption(jobs: Jobs) -> None:
    job_id = jobs.submit("job", "sleep 100")
    jobs.wait("job", RUNNING)
    jobs.cluster.exec("scontrol", "requeue", job_id)
    assert _watched(jobs, "job", 60)[-1].earlier == ("preempted",)


@pytest.mark.slow
def test_a_lost_node_ends_only_what_slurm_does_not_requeue(jobs: Jobs) -> None:
    jobs.submit("requeued", "sleep 200", "--nodelist=n4")
    jobs.submit("gang", "sleep 200", "--nodelist=n[3-4]", "--nodes=2")
    jobs.submit("lost", "sleep 200", "--nodelist=n4", "--no-requeue")
    for label in list(jobs.labels):
        jobs.wait(label, RUNNING)
    jobs.cluster.kill_node("n4")
    wait_until(lambda: jobs.look()["lost"].state == ENDED, 60, "the node is missed")
    lost = jobs.look()["lost"]
    assert (lost.cause, lost.nodes, lost.doubtful) == ("node_failure", ("n4",), False)
    jobs.cluster.restore_node("n4")
    for label in ("requeued", "gang"):
        seen = _watched(jobs, label, 90)
        assert ENDED not in {one.state for one in seen} and seen[-1].earlier == ("node_failure",)


@pytest.mark.slow
def test_a_job_out_of_time(jobs: Jobs) -> None:
    jobs.submit("job", "sleep 200", "--partition=short", "--time=1")
    found = jobs.wait("job", ENDED, 150)
    assert (found.cause, found.limit_seconds) == ("timeout", 60)
    assert found.seconds is not None and found.seconds >= 60


def test_without_accounting_the_queue_still_answers(jobs: Jobs) -> None:
    jobs.submit("lives", "sleep 100")
    jobs.submit("oom", HOG)
    jobs.wait("oom", ENDED)
    jobs.cluster.kill_daemon("slurmdbd")
    found = jobs.look()
    assert (found["lives"].state, found["oom"].cause) == (RUNNING, "host_oom")
    jobs.names["gone"], jobs.labels["gone"] = ["gone"], "gone"
    assert "gone" not in jobs.look()


def test_a_dead_controller_is_silence_and_nothing_is_lost(jobs: Jobs) -> None:
    jobs.submit("job", "sleep 15")
    jobs.wait("job", RUNNING)
    # what it has not yet saved it forgets, the job too
    saved, now = jobs.cluster.state_folder / "controller/job_state", time.time()
    wait_until(lambda: saved.exists() and saved.stat().st_mtime > now, 30, "it has saved its state")
    jobs.cluster.kill_daemon("slurmctld")
    with pytest.raises(SchedulerSilent, match="Unable to contact slurm controller"):
        jobs.look()
    jobs.cluster.restore_daemon("slurmctld")
    wait_until(lambda: _is_known(jobs, "job"), 30, "the controller answers")
    assert jobs.wait("job", ENDED, 60).cause == ""


def _is_known(jobs: Jobs, label: str) -> bool:
    try:
        return label in jobs.look()
    except SchedulerSilent:
        return False


def test_places_in_the_queue_are_counted_in_elements(jobs: Jobs) -> None:
    jobs.submit("all", "sleep 60", "--nodes=4", "--exclusive")
    jobs.wait("all", RUNNING)
    jobs.submit("array", "true", "--exclusive", elements=5)
    jobs.submit("after", "true", "--exclusive")
    found = queue.positions(jobs.look())
    assert found["array/2"].position == (3, 6)
    assert found["after"].position == (6, 6)
    assert found["all"].position is None


# -- what the cluster offers --------------------------------------------------------------------------------------------

REQUEST = {"nodes": 1, "cpus": 1, "gpus": 0, "memory_gib": 0.1, "minutes": 1}
# asked for -> whether the real sbatch takes it at once
ASKED = [
    ({}, True),
    ({"partition": "debgu"}, False),
    ({"account": "physic"}, False),
    ({"account": "tiny"}, True),
    ({"qos": "shrt"}, False),
    ({"qos": "short", "minutes": 2}, True),
    ({"qos": "short", "minutes": 5}, False),
    ({"constraint": "rack3"}, False),
    ({"constraint": "rack1&a100"}, True),
    ({"constraint": "rack1&rack2"}, False),
    ({"constraint": "rack1|rack2"}, True),
    ({"constraint": "[rack1*1&rack2*1]", "nodes": 2}, True),
    ({"gpu_type": "h100", "gpus": 1}, False),
    ({"gpu_type": "a100", "gpus": 2}, True),
    ({"gpu_type": "a100", "gpus": 3}, False),
    ({"gpu_type": "v100", "gpus": 1, "constraint": "a100"}, False),
    ({"gpu_type": "a100", "gpus": 1, "nodes": 3}, False),
    ({"gpus": 3}, False),
    ({"memory_gib": 3.9}, True),
    ({"memory_gib": 4}, False),
    ({"cpus": 5}, False),
    ({"nodes": 5}, False),
]


def test_the_real_sbatch_takes_what_the_check_lets_pass(cluster: Cluster) -> None:
    known = Inventory.read()
    taken = {}
    for asked, _ in ASKED:
        request = REQUEST | {name: value for name, value in asked.items() if name in REQUEST}
        chosen = {name: str(value) for name, value in asked.items() if name not in REQUEST}
        options = [f"--{name}={chosen[name]}" for name in ("partition", "account", "qos", "constraint") if name in chosen]
        options += [
            f"--nodes={request['nodes']}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={request['cpus']}",
            f"--time={request['minutes']}",
        ]
        options += [f"--mem={round(1024 * request['memory_gib'])}M"]
        options += [f"--gres=gpu:{chosen.get('gpu_type', '')}:{request['gpus']}".replace("::", ":")] if request["gpus"] else []
        done = subprocess.run(["sbatch", "--test-only", "--wrap=true", *options], capture_output=True, text=True)
        taken[str(asked)] = (done.returncode == 0, problems(known, request, **chosen) == [])
    assert taken == {str(asked): (good, good) for asked, good in ASKED}


def test_headroom_is_what_sbatch_still_takes(jobs: Jobs) -> None:
    known = Inventory.read()
    assert known.max_array_size >= 1001
    assert known.headroom() is None
    assert known.headroom("tiny") == known.most_submitted("tiny") == 5
    jobs.submit("array", "sleep 60", "--account=tiny", elements=3)
    assert known.headroom("tiny") == 2
    with pytest.raises(AssertionError, match="AssocMaxSubmitJobLimit|job submit limit"):
        jobs.submit("more", "true", "--account=tiny", elements=3)
    jobs.submit("last", "true", "--account=tiny", elements=2)
    assert known.headroom("tiny") == 0
