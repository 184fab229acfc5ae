"""What jobs are said to be, from what SLURM really said of them, and from what it may say."""

import os
import time

import pytest

from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, JobState, SchedulerSilent
from orchestrator.slurm import commands, queue

ARRAY = "array-00000000000b"
ROOT, NOBODY = 0, 65534


def state(name: str, job_ids: dict[str, str] | None = None, *, uid: int = ROOT, use_sacct: bool = True) -> JobState:
    """The state of one token."""
    base = name.partition("/")[0]
    return queue.states({base: [name]}, job_ids or {}, uid=uid, use_sacct=use_sacct)[name]


def absent(name: str, job_ids: dict[str, str] | None = None, *, uid: int = ROOT, use_sacct: bool = True) -> bool:
    return not queue.states({name.partition("/")[0]: [name]}, job_ids or {}, uid=uid, use_sacct=use_sacct)


def row(
    name: str,
    word: str,
    *,
    job_id: int = 7,
    index: object = "N/A",
    restarts: int = 0,
    nodes: str = "",
    reason: str = "None",
    code: str = "0:0",
) -> str:
    """A line of squeue."""
    return f"{name}|{job_id}|{index}|{word}|{code}|1|{restarts}|0:10|1:00:00|N/A|{nodes}|{reason}|\n"


def run(job_id: str, word: str, *, order: int = 1, name: str = "s-1", nodes: str = "n1", code: str = "0:0", derived: str = "0:0") -> str:
    """A line of sacct."""
    return f"{job_id}|{word}|{code}|{derived}|30|60||0|{nodes}|{order}|{name}\n"


def step(job_id: str, word: str, *, peak: str = "", order: int = 1) -> str:
    return f"{job_id}|{word}|0:0||30||{peak}|0|n1|{order}|batch\n"


# -- what a real cluster said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "now", "reason"),
    [
        (f"{ARRAY}/0", RUNNING, "RUNNING"),
        (f"{ARRAY}/3", QUEUED, "JobArrayTaskLimit"),
        ("begin-000000000016", QUEUED, "BeginTime"),
        ("held-000000000011", QUEUED, "JobHeldUser"),
        ("reqheld-000000000013", QUEUED, "job requeued in held state"),
        ("never-000000000018", QUEUED, "DependencyNeverSatisfied"),
        ("toolong-000000000019", QUEUED, "PartitionTimeLimit"),
        ("closed-00000000001a", QUEUED, "PartitionDown"),
        ("suspended-0000001d", RUNNING, "SUSPENDED"),
        ("requeued-000000000012", RUNNING, "RUNNING"),
    ],
)
def test_a_job_that_lives(recorded_slurm, token: str, now: str, reason: str) -> None:
    found = state(token)
    assert (found.state, found.reason, found.cause, found.doubtful) == (now, reason, "", False)


@pytest.mark.parametrize(
    ("token", "reason", "cause", "exit_code"),
    [
        ("done-000000000015", "COMPLETED", "", 0),
        ("fails-00000000000c", "FAILED", "killed", 3),
        ("killed-000000000014", "FAILED", "killed", -9),
        ("missing-0000000000d", "FAILED", "never_started", 127),
        ("nolog-000000000010", "FAILED", "never_started", -53),
        ("oom-00000000000e", "OUT_OF_MEMORY", "host_oom", -125),
        ("sruns-00000000000f", "FAILED", "host_oom", 1),  # only the step was out of memory
        ("timeout-00000000000a", "TIMEOUT", "timeout", -15),
        ("pcancel-000000000020", "PREEMPTED", "preempted", -15),
        ("lostfor-000000000022", "NODE_FAIL", "node_failure", 0),
        (f"{ARRAY}/1", "CANCELLED", "cancelled", -15),
        ("all-00000000001e/2", "CANCELLED", "cancelled", 0),
    ],
)
def test_a_job_that_has_ended(recorded_slurm, token: str, reason: str, cause: str, exit_code: int) -> None:
    found = state(token)
    assert (found.state, found.reason, found.cause, found.exit_code, found.doubtful) == (ENDED, reason, cause, exit_code, False)


def test_what_it_used_is_told(recorded_slurm) -> None:
    found = state("timeout-00000000000a")
    assert (found.job_id, found.nodes, found.seconds, found.limit_seconds) == ("73", ("n2",), 75, 60)
    assert found.peak_memory_mib == pytest.approx(392 / 1024)
    assert found.energy_joules is None
    assert state(f"{ARRAY}/0").job_id == "74_0" and state(f"{ARRAY}/0").nodes == ("n2",)


@pytest.mark.parametrize(
    ("token", "earlier"),
    [
        ("prequeue-00000000001f", ("preempted",)),
        ("lost-000000000021", ("node_failure",)),
        ("requeued-000000000012", ("preempted",)),
        ("reqheld-000000000013", ("preempted",)),
        ("done-000000000015", ()),
    ],
)
def test_runs_before_a_requeue_have_their_causes(recorded_slurm, token: str, earlier: tuple[str, ...]) -> None:
    assert state(token).earlier == earlier


def test_who_cancelled_a_job_makes_the_difference(recorded_slurm) -> None:
    by_root, by_self = state("byroot-00000000001b", uid=NOBODY), state("byself-00000000001c", uid=NOBODY)
    assert (by_self.cause, by_self.explanation) == ("cancelled", "")
    assert by_root.cause == "killed"
    assert by_root.explanation == "cancelled by root, not by you: ask an administrator why"


def test_an_element_that_was_cancelled_while_it_waited_is_over_once_nobody_knows_it(recorded_slurm) -> None:
    found = state(f"{ARRAY}/7")
    assert (found.state, found.job_id, found.cause, found.doubtful) == (ENDED, "74_7", "cancelled", True)
    assert "no record" in found.explanation
    # of these, one record tells: `8_[8-9%2]`
    assert (state("a-arrc/8").cause, state("a-arrc/8").job_id, state("a-arrc/8").doubtful) == ("cancelled", "8_8", False)


def test_without_sacct_nothing_is_concluded_from_silence(recorded_slurm) -> None:
    recorded_slurm.says("sacct", err="sacct: error: Problem talking to the database: Connection refused", code=1)
    assert absent(f"{ARRAY}/7")
    assert absent("a-arrc/8")
    for use_sacct in (True, False):
        assert state("oom-00000000000e", use_sacct=use_sacct).cause == "host_oom"
        assert state("timeout-00000000000a", use_sacct=use_sacct).cause == "timeout"
        assert state(f"{ARRAY}/1", use_sacct=use_sacct).cause == "cancelled"
        assert state("nolog-000000000010", use_sacct=use_sacct).cause == "never_started"
        assert state("prequeue-00000000001f", use_sacct=use_sacct).earlier == ()
    assert state("fails-00000000000c").doubtful, "who did it, sacct may yet say"
    assert not state("fails-00000000000c", use_sacct=False).doubtful


# -- how it is asked ----------------------------------------------------------------------------------------------------


def test_one_question_where_all_is_well(recorded_slurm) -> None:
    before = commands.calls.copy()
    queue.states({ARRAY: [f"{ARRAY}/{i}" for i in (0, 2, 3, 4)], "done-000000000015": ["done-000000000015"]}, {}, uid=ROOT)
    assert commands.calls - before == {"squeue": 1}


def test_two_questions_for_everything_at_once(recorded_slurm) -> None:
    before = commands.calls.copy()
    names = {name: [name] for name in ("fails-00000000000c", "oom-00000000000e", "prequeue-00000000001f", "nosuch-1")}
    assert len(queue.states(names, {}, uid=ROOT)) == 3
    assert commands.calls - before == {"squeue": 1, "sacct": 1}
    assert queue.states({}, {}) == {}


def test_sacct_is_asked_for_those_jobs_alone_that_it_can_tell_of(slurm) -> None:
    slurm.says("squeue", row("s-1", "RUNNING") + row("s-2", "FAILED", job_id=8) + row("s-3", "FAILED", job_id=9, index=4))
    slurm.says("sacct")
    queue.states({"s-1": ["s-1"], "s-2": ["s-2"], "s-3": ["s-3/4"]}, {}, uid=ROOT)
    assert slurm.asked("sacct")[-1].split()[-1] == "--jobs=8,9_4"
    # all of the array, since elements that never ran stand in one record
    queue.states({"s-3": ["s-3/4", "s-3/5"]}, {}, uid=ROOT)
    assert slurm.asked("sacct")[-1].split()[-1] == "--jobs=9"
    queue.states({"s-4": ["s-4"]}, {"s-4": "11"}, uid=ROOT)
    assert slurm.asked("sacct")[-1].split()[-1] == "--jobs=11"


def test_a_job_whose_id_was_lost_is_found_by_its_name(slurm) -> None:
    slurm.says("squeue")
    slurm.says("sacct", run("12", "COMPLETED", name="s-9"))
    assert state("s-9").job_id == "12"
    assert slurm.asked("sacct")[-1].split()[-2:] == ["--starttime=now-30days", "--name=s-9"]


def test_a_line_of_command_stays_within_what_a_system_takes(slurm) -> None:
    slurm.says("squeue")
    slurm.says("sacct")
    names = {f"s-{i:040}": [f"s-{i:040}"] for i in range(5000)}
    queue.states(names, dict.fromkeys(names, "123456789012345678901234"), uid=ROOT)
    queue.states(names, {}, uid=ROOT)
    assert max(map(len, slurm.asked("sacct"))) < 128 * 1024


def test_jobs_of_another_user_are_asked_for(slurm) -> None:
    slurm.says("squeue")
    slurm.says("sacct")
    other = os.getuid() + 1
    queue.states({"s-1": ["s-1"]}, {"s-1": "5"}, uid=other)
    assert f"--user={other}" in slurm.asked("squeue")[-1] and "--allusers" in slurm.asked("sacct")[-1]
    queue.states({"s-1": ["s-1"]}, {"s-1": "5"})
    assert f"--user={os.getuid()}" in slurm.asked("squeue")[-1] and "--allusers" not in slurm.asked("sacct")[-1]


def test_silence_of_squeue_is_silence(slurm) -> None:
    slurm.says("squeue", err="slurm_load_jobs error: Socket timed out on send/recv operation", code=1)
    slurm.says("sacct", run("7", "COMPLETED"))
    with pytest.raises(SchedulerSilent, match="Socket timed out"):
        queue.states({"s-1": ["s-1"]}, {"s-1": "7"})


# -- what else may be said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "now"),
    [
        *((word, QUEUED) for word in "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT EXPEDITING".split()),
        *((word, RUNNING) for word in "RUNNING COMPLETING STAGE_OUT SIGNALING RESIZING SUSPENDED STOPPED REVOKED".split()),
        *((word, ENDED) for word in "COMPLETED FAILED TIMEOUT CANCELLED NODE_FAIL BOOT_FAIL PREEMPTED DEADLINE OUT_OF_MEMORY".split()),
        ("SOMETHING_NEW", RUNNING),
        ("?", RUNNING),
    ],
)
def test_every_word_has_its_meaning_and_an_unknown_one_is_alive(slurm, word: str, now: str) -> None:
    slurm.says("squeue", row("s-1", word, nodes="n1"))
    slurm.says("sacct")
    assert state("s-1").state == now


@pytest.mark.parametrize(("code", "exit_code"), [("3:0", 3), ("0:9", -9), ("768", 3), ("9", -9), ("253", -125), ("", None)])
def test_exit_codes_of_old_and_new_versions(slurm, code: str, exit_code: int | None) -> None:
    slurm.says("squeue", row("s-1", "FAILED", nodes="n1", code=code))
    assert state("s-1", use_sacct=False).exit_code == exit_code


def test_a_job_that_ended_without_a_node_never_started(slurm) -> None:
    # sbatch refused it, but its record is there
    slurm.says("squeue", row("s-1", "FAILED", reason="BadConstraints", code="1:0"))
    slurm.says("sacct", run("7", "FAILED", nodes="None assigned", code="1:0"))
    found = state("s-1")
    assert (found.cause, found.doubtful) == ("never_started", False)
    assert "SLURM refused it" in found.explanation


def test_while_sacct_lags_a_failure_is_doubtful(slurm) -> None:
    slurm.says("squeue", row("s-1", "FAILED", nodes="n1", code="1:0") + row("s-2", "CANCELLED", job_id=8, nodes="n1"))
    slurm.says("sacct", run("7", "RUNNING"))
    assert state("s-1").doubtful and state("s-2").doubtful
    slurm.says("sacct", run("7", "FAILED", code="1:0", derived="0:125") + run("8", "CANCELLED by 1000", order=2, name="s-2"))
    assert (state("s-1").cause, state("s-1").doubtful) == ("host_oom", False)
    assert (state("s-2").cause, state("s-2").explanation) == ("killed", "cancelled by uid 1000, not by you: ask an administrator why")


@pytest.mark.parametrize("word", ["NODE_FAIL", "PREEMPTED", "REQUEUED"])
def test_in_sacct_alone_an_end_before_a_requeue_is_doubtful(slurm, word: str) -> None:
    slurm.says("squeue")
    slurm.says("sacct", run("7", word))
    assert (state("s-1").state, state("s-1").doubtful) == (ENDED, True)


def test_what_sacct_alone_has_running_or_waiting_has_no_record(slurm) -> None:
    slurm.says("squeue")
    slurm.says("sacct", run("7", "RUNNING") + run("8_[0-3]", "PENDING", name="s-2", nodes="None assigned"))
    assert absent("s-1") and queue.states({"s-2": ["s-2/1"]}, {}, uid=ROOT)["s-2/1"].doubtful is True


def test_the_latest_run_is_the_state_and_the_others_came_before_it(slurm) -> None:
    runs = run("7", "NODE_FAIL", order=3) + step("7.batch", "CANCELLED") + run("7", "OUT_OF_MEMORY", order=9, code="0:125")
    runs += step("7.batch", "OUT_OF_MEMORY", peak="2G") + step("7.0", "OUT_OF_MEMORY", peak="512M") + run("7", "PREEMPTED", order=5)
    slurm.says("squeue")
    slurm.says("sacct", runs)
    found = state("s-1")
    assert (found.cause, found.earlier, found.peak_memory_mib) == ("host_oom", ("node_failure", "preempted"), 2048)
    # squeue counts the restarts: with a run more than recorded, nothing is said of any
    slurm.says("squeue", row("s-1", "RUNNING", restarts=4, nodes="n1"))
    assert state("s-1").earlier == ()
    slurm.says("squeue", row("s-1", "RUNNING", restarts=2, nodes="n1"))
    assert state("s-1").earlier == ("node_failure", "preempted")


def test_a_job_id_that_was_given_before_is_another_job(slurm) -> None:
    slurm.says("squeue")
    slurm.says(
        "sacct", run("7", "COMPLETED", name="other") + step("7.batch", "COMPLETED", peak="9G") + run("7", "FAILED", order=2, code="2:0")
    )
    assert (state("s-1", {"s-1": "7"}).exit_code, state("s-1").peak_memory_mib) == (2, None)


def test_of_two_jobs_of_a_name_the_one_that_runs_counts(slurm) -> None:
    slurm.says(
        "squeue",
        row("s-1", "COMPLETED", job_id=7, nodes="n1") + row("s-1", "RUNNING", job_id=9, nodes="n2") + row("s-1", "PENDING", job_id=11),
    )
    slurm.says("sacct")
    found = state("s-1")
    assert (found.state, found.job_id) == (RUNNING, "9")
    assert found.explanation == "SLURM has two jobs of the name s-1, 9 and 11, where there must be one: scancel 11"
    slurm.says("squeue", row("s-1", "REVOKED", job_id=7) + row("s-1", "PENDING", job_id=9))
    assert (state("s-1").job_id, state("s-1").explanation) == ("9", "")


def test_foreign_and_broken_lines_are_passed_over(slurm) -> None:
    lines = (
        "CLUSTER: one\n\ns-1|half\na|b|c|d\n" + row("my|job", "RUNNING") + row("s-1", "PENDING", reason="a|b, c") + row("other", "RUNNING")
    )
    slurm.says("squeue", lines)
    assert state("s-1").reason == "a|b, c"


def test_cut_words_of_sacct_are_read(slurm) -> None:
    slurm.says("squeue")
    slurm.says("sacct", run("7", "OUT_OF_ME+", code="0:125"))
    assert (state("s-1").reason, state("s-1").cause) == ("OUT_OF_MEMORY", "host_oom")


def test_a_waiting_job_has_its_place_among_all(recorded_slurm) -> None:
    recorded_slurm.says(
        "squeue",
        "5|N/A|debug|900|\n74|3-6,8-9%2|debug|500|\n85|N/A|debug|100|\n80|N/A|debug|0|\n88|N/A|short|7|\n9|N/A|debug,low|500|\n",
        to="--states=PENDING",
    )
    names = {
        ARRAY: [f"{ARRAY}/{i}" for i in (0, 3, 9)],
        "begin-000000000016": ["begin-000000000016"],
        "held-000000000011": ["held-000000000011"],
    }
    found = queue.positions(queue.states(names, {}, uid=ROOT))
    assert {token: one.position for token, one in found.items()} == {
        f"{ARRAY}/0": None,
        f"{ARRAY}/3": (3, 9),
        f"{ARRAY}/9": (8, 9),
        "begin-000000000016": (9, 9),
        "held-000000000011": None,
    }
    assert found["begin-000000000016"].start_estimate == "2026-11-22T22:39:18"


def test_nobody_is_asked_for_places_where_nothing_waits(recorded_slurm) -> None:
    before = commands.calls.copy()
    queue.positions({"a": JobState(state=RUNNING, job_id="7")})
    assert commands.calls == before


# -- size ---------------------------------------------------------------------------------------------------------------


def _seconds(names: dict[str, list[str]]) -> float:
    """The fastest of some times: what it costs, not what else the machine does."""
    times = []
    for _ in range(5):
        begin = time.process_time()
        assert len(queue.states(names, {"s-1": "7"}, uid=ROOT)) == 10_000
        times.append(time.process_time() - begin)
    return min(times)


def test_ten_thousand_elements_that_wait_are_read_in_a_moment(slurm) -> None:
    names = {"s-1": [f"s-1/{i}" for i in range(10_000)]}
    slurm.says("squeue", "".join(row("s-1", "PENDING", index=i, reason="Priority") for i in range(10_000)))
    assert _seconds(names) < 0.3


def test_ten_thousand_elements_that_sacct_alone_knows_are_read_in_a_moment(slurm) -> None:
    names = {"s-1": [f"s-1/{i}" for i in range(10_000)]}
    slurm.says("squeue")
    lines = (run(f"7_{i}", "TIMEOUT", order=i) + step(f"7_{i}.batch", "CANCELLED", peak="1024K", order=i) for i in range(10_000))
    slurm.says("sacct", "".join(lines))
    assert _seconds(names) < 0.6
