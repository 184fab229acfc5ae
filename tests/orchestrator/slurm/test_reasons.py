"""Every reason for which a job of ours may wait is explained with what mends it, and what only takes time is not called wrong."""

import pytest

from orchestrator.slurm import reasons


@pytest.mark.parametrize(
    "reason", ["None", "Priority", "Resources", "JobArrayTaskLimit", "Dependency", "Prolog", "Licenses", "Cleaning", "SchedDefer"]
)
def test_patience_mends_nothing_since_nothing_is_wrong(reason: str) -> None:
    assert reasons.waiting("PENDING", reason, "7") == ""


@pytest.mark.parametrize(
    ("reason", "mends"),
    [
        ("JobHeldUser", "scontrol release 7_3"),
        ("JobHeldAdmin", "scontrol release 7_3"),
        ("JobHoldMaxRequeue", "scontrol release 7_3"),
        ("job requeued in held state", "scontrol release 7_3"),
        ("job requeued in special exit state", "scontrol release 7_3"),
        ("user env retrieval failed requeued held", "scontrol release 7_3"),
        ("launch failed requeued held", "scontrol update nodename=NODE state=resume), then scontrol release 7_3"),
        ("launch failure limit exceeded requeued held", "Duplicate jobid"),
        ("DependencyNeverSatisfied", "scancel 7_3"),
        ("BeginTime", "nothing to mend"),
        ("PartitionTimeLimit", "cancel it (scancel 7_3) and ask for less time"),
        ("PartitionNodeLimit", "ask for fewer nodes"),
        ("PartitionDown", "sinfo -s"),
        ("PartitionInactive", "choose another"),
        ("PartitionConfig", "scontrol show partition"),
        ("ReqNodeNotAvail, UnavailableNodes:n[4-5],m1", "are down, drained or reserved (n[4-5],m1); `sinfo -R`"),
        ("ReqNodeNotAvail", "scontrol update nodename=NODE state=resume"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "sinfo -R"),
        ("BadConstraints", "sinfo -o"),
        ("ReservationDeleted", "submit without the reservation"),
        ("Reservation", "scontrol show reservation"),
        ("InvalidAccount", "sacctmgr show assoc user=$USER"),
        ("AccountNotAllowed", "choose an account"),
        ("InvalidQOS", "choose a QOS"),
        ("QOSNotAllowed", "choose a QOS"),
        ("AssocMaxWallDurationPerJobLimit", "ask for less: AssocMaxWallDurationPerJobLimit"),
        ("QOSMaxCpuPerJobLimit", "ask for less"),
        ("QOSMaxGRESPerNode", "ask for less"),
        ("MaxMemPerLimit", "ask for less"),
        ("QOSMinGRES", "ask for more"),
        ("QOSMaxGRESPerUser", "waits for other jobs of yours or of your account to end"),
        ("QOSMaxJobsPerUserLimit", "waits for other jobs"),
        ("AssocGrpCpuLimit", "waits for other jobs"),
        ("AssocMaxJobsLimit", "waits for other jobs"),
        ("MaxGRESPerAccount", "waits for other jobs"),
        ("AssocGrpCPUMinutesLimit", "used up what it was granted"),
        ("QOSGrpGRESMinutes", "used up what it was granted"),
        ("QOSUsageThreshold", "used up what it was granted"),
        ("BurstBufferOperation", "scontrol show burstbuffer"),
    ],
)
def test_a_reason_comes_with_what_mends_it(reason: str, mends: str) -> None:
    told = reasons.waiting("PENDING", reason, "7_3")
    assert mends in told
    assert "{" not in told, "every place is filled in"


@pytest.mark.parametrize(
    ("word", "mends"),
    [
        ("SUSPENDED", "scontrol resume 7"),
        ("STOPPED", "scancel --signal=CONT 7"),
        ("REQUEUE_HOLD", "scontrol release 7"),
        ("SPECIAL_EXIT", "scontrol release 7"),
        ("RESV_DEL_HOLD", "scontrol release 7"),
        ("REVOKED", "another cluster"),
    ],
)
def test_a_state_comes_with_what_mends_it(word: str, mends: str) -> None:
    assert mends in reasons.waiting(word, "None", "7")


@pytest.mark.parametrize(
    ("word", "reason", "code", "nodes", "told"),
    [
        ("FAILED", "BadConstraints", 1, (), "SLURM refused it"),
        ("FAILED", "JobLaunchFailure", -53, ("n1",), "could not open its log on the node: the nodes must see the store"),
        ("FAILED", "NonZeroExitCode", 127, ("n1",), "a command of its script was not there (exit code 127; see its log)"),
        ("FAILED", "JobLaunchFailure", 0, (), "could not start it on its node; `sinfo -R`"),
        ("FAILED", "JobLaunchFailure", -9, ("n1",), ""),  # SLURM's word also where the script kills itself
        ("BOOT_FAIL", "", None, ("n1",), "could not start it"),
        ("CANCELLED", "DependencyNeverSatisfied", 0, (), "ended otherwise than it asked"),
        ("FAILED", "NonZeroExitCode", 1, ("n1",), ""),
        ("TIMEOUT", "TimeLimit", -15, ("n1",), ""),
    ],
)
def test_an_end_is_explained_where_the_log_cannot(word: str, reason: str, code: int | None, nodes: tuple[str, ...], told: str) -> None:
    found = reasons.ended(word, reason, code, nodes)
    assert told in found and bool(told) == bool(found)
