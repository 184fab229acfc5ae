"""The words of SLURM: what a state means for a job, and why it waits or ended, in plain words with the command that mends it."""

import functools
import re
from collections.abc import Sequence

# state of a job that has ended -> what it did to the tasks that it left unended
CAUSES = {
    "COMPLETED": "",
    "FAILED": "killed",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "host_oom",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "never_started",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
}
# states of jobs that have not begun, or not begun again; every other word is one of a job that runs
WAITING = frozenset("PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT EXPEDITING".split())
# SLURM says that a signal of this number ended the job where it cannot open its output
UNWRITABLE = 53
# exit codes of a script whose last command, the job's own, is not there or cannot run
_MISSING = (126, 127)
# with these exit codes the job's own command never ran
NOT_BEGUN = (-UNWRITABLE, *_MISSING)

_RELEASE = "scontrol release {job}"
_DROP = "cancel it (scancel {job}) and "
_NEVER = f"it will never start: {_DROP}"
_SPECIAL = f"it ended with an exit code for which this cluster holds jobs back: see its log, then {_RELEASE}"
_LIMIT = "{reason}; `sacctmgr show qos` and `sacctmgr show assoc user=$USER` list the limits"

_STATES = {
    "SUSPENDED": "it is suspended and keeps its nodes: an administrator lets it go on (scontrol resume {job})",
    "STOPPED": "it is stopped and keeps its nodes: scancel --signal=CONT {job}",
    "REVOKED": "another cluster of the federation has started it",
    "RESV_DEL_HOLD": f"its reservation was deleted, and it is held: {_RELEASE}",
    "REQUEUE_HOLD": f"it was requeued and is held: {_RELEASE}",
    "SPECIAL_EXIT": _SPECIAL,
}

# beginning of the reason of a job that waits -> what is wrong; the first that matches counts. With other reasons nothing is wrong.
_REASONS = (
    ("JobHeldUser", f"you hold it: {_RELEASE}"),
    ("JobHeldAdmin", f"an administrator holds it: ask them for `{_RELEASE}`, or cancel it (scancel {{job}})"),
    ("JobHoldMaxRequeue", f"it was requeued too often (MaxBatchRequeue) and is held: {_RELEASE}"),
    (
        r"launch fail(ed|ure).*held",
        "SLURM could not start it on a node and holds it. Where that node's log says `Duplicate jobid`, an earlier run is still there and "
        "the node is drained; `sinfo -R` names it, an administrator mends it (scontrol update nodename=NODE state=resume), "
        f"then {_RELEASE}",
    ),
    ("user env retrieval failed.*held", f"SLURM could not read your environment on a node and holds it: {_RELEASE}"),
    ("job requeued in special exit", _SPECIAL),
    ("job requeued in held", f"it was requeued and is held: {_RELEASE}"),
    ("DependencyNeverSatisfied", "the job that it waits for ended otherwise than it asks, so it never starts: scancel {job}"),
    ("BeginTime", "it waits for its begin time, as after a requeue for up to two minutes; there is nothing to mend"),
    ("PartitionTimeLimit", f"{_NEVER}ask for less time than its partition allows (MaxTime in `scontrol show partition`)"),
    ("PartitionNodeLimit", f"{_NEVER}ask for fewer nodes, or another partition (`sinfo -s` lists them)"),
    ("PartitionDown", f"its partition is down and starts no jobs: wait until it is opened (`sinfo -s`), or {_DROP}choose another"),
    ("PartitionInactive", f"its partition is inactive: {_DROP}choose another (`sinfo -s` lists them)"),
    ("PartitionConfig", f"{_NEVER}ask for what its partition allows (`scontrol show partition`)"),
    (
        "ReqNodeNotAvail|Nodes required for job are DOWN|NodeDown",
        "nodes that it needs are down, drained or reserved{nodes}; `sinfo -R` says why. It starts when they are back; a drained node that "
        "is well is given back by an administrator: scontrol update nodename=NODE state=resume",
    ),
    ("BadConstraints", f"{_NEVER}ask for nodes that there are (`sinfo -o '%P %c %m %G %f'` lists them)"),
    ("ReservationDeleted|Reservation .*(ended|deleted)", f"{_NEVER}submit without the reservation, which is over"),
    ("Reservation", "it waits for its reservation; `scontrol show reservation` says when that begins"),
    ("InvalidAccount|AccountNotAllowed", f"{_NEVER}choose an account that its partition takes (`sacctmgr show assoc user=$USER`)"),
    ("InvalidQOS|QOSNotAllowed", f"{_NEVER}choose a QOS that you may use (`sacctmgr show assoc user=$USER format=account,qos`)"),
    (r"(Assoc|QOS)Max\w*(PerJob|PerNode)|MaxMemPerLimit|AssociationTimeLimit|QOSTimeLimit", f"{_NEVER}ask for less: {_LIMIT}"),
    ("QOSMin", f"{_NEVER}ask for more, of which its QOS wants at least some: {_LIMIT}"),
    (r"(Assoc|QOS)Grp\w*Minutes|QOSUsageThreshold", f"its account has used up what it was granted: {_LIMIT}"),
    (r"Assoc|QOS|Max\w+PerAccount|AccountingPolicy", f"it waits for other jobs of yours or of your account to end: {_LIMIT}"),
    ("BurstBufferOperation", f"its burst buffer failed (`scontrol show burstbuffer`): {_DROP}submit again"),
    ("JobLaunchFailure|SystemFailure", f"SLURM could not start it: {_DROP}submit again, and tell an administrator"),
)


def waiting(state: str, reason: str, job_id: str) -> str:
    """What is wrong with a job that has not ended; empty where nothing is."""
    return _waiting(state, reason).replace("{job}", job_id)


@functools.lru_cache(maxsize=1000)
def _waiting(state: str, reason: str) -> str:
    if state in _STATES:
        return _STATES[state]
    text = next((text for pattern, text in _REASONS if re.match(pattern, reason)), "")
    nodes = re.search(r"UnavailableNodes:(\S+)", reason)
    return text.replace("{reason}", reason).replace("{nodes}", f" ({nodes[1]})" if nodes else "")


def ended(state: str, reason: str, exit_code: int | None, nodes: Sequence[str]) -> str:
    """What a user should know of a job that has ended; empty where its log says more."""
    if reason.startswith("BadConstraints"):
        return "SLURM refused it: it asks for nodes that there are not (`sinfo -o '%P %c %m %G %f'` lists them)"
    if reason.startswith("DependencyNeverSatisfied"):
        return "SLURM cancelled it: the job that it waited for ended otherwise than it asked"
    if exit_code == -UNWRITABLE:
        return "SLURM could not open its log on the node: the nodes must see the store, and you must be able to write there"
    if state == "FAILED" and exit_code in _MISSING:
        return f"a command of its script was not there (exit code {exit_code}; see its log): nodes must see the interpreter"
    if state == "BOOT_FAIL" or (reason.startswith("JobLaunchFailure") and not nodes):
        return "SLURM could not start it on its node; `sinfo -R` names nodes in trouble"
    return ""


def cancelled_by(uid: int) -> str:
    """Of a job that somebody else cancelled."""
    return f"cancelled by {'root' if uid == 0 else f'uid {uid}'}, not by you: ask an administrator why"
