"""How an attempt ended, from what its child said, what it died of, and what its job had told it."""

import signal
import time
from pathlib import Path
from typing import Any

from workers import taskdir
from workers.errors import Garbled
from workers.seat import Order, Seat

_BY_WARNING = {"stop": "interrupted", "cancel": "cancelled", "cancel_all": "cancelled"}


def of_stopped(order: Order, *, out_of_time: bool) -> str:
    """The class of an attempt that ended because it was warned, or because somebody else had told its child to stop.

    Where the job is `out_of_time` and the task had all of it without getting anywhere, more of the same would not help. One that
    began later is not charged for that.
    """
    if order.warned == "walltime":
        return "timeout_progress" if order.progressed else "timeout"
    if order.warned == "stop" and out_of_time and order.first and not order.progressed:
        return "timeout"
    return _BY_WARNING.get(order.warned, "interrupted")


def of_dead(root: Path, folder: Path, seat: Seat, order: Order, *, out_of_time: bool) -> dict[str, Any]:
    """The end record of a task whose child is dead."""
    outcome, how = _cause(root, seat, order, out_of_time=out_of_time)
    return {
        "class": outcome,
        "seconds": 0.0 if order.started is None else time.monotonic() - order.started,
        "peak_memory_mib": round(seat.observed_mib(), 1),
        "message": how,
        "error": None,
        "checkpoint": order.checkpoint,
        "resumed_at": order.resumed_at,
        "difference": "",
        "log_end": _size(folder / seat.log),
    }


def _cause(root: Path, seat: Seat, order: Order, *, out_of_time: bool) -> tuple[str, str]:
    status = seat.exit_status or 0
    how = f"the child was killed by {signal.Signals(-status).name}" if status < 0 else f"the child exited with {status}"
    if committed := _own_commit(root, order):
        return committed, f"committed; {how} right after"
    if seat.evicted:
        return "interrupted", "killed by the kernel because the job's memory was full, through a neighbour's fault"
    if seat.killed_by_kernel:
        return "host_oom", f"killed by the kernel: the job's memory was full; its own limit is {order.limit_gib:.3g} GiB"
    if seat.out_of_memory():
        return "host_oom", f"killed above its memory limit of {order.limit_gib:.3g} GiB"
    if seat.killed_for == "walltime":
        return of_stopped(order, out_of_time=out_of_time), f"killed at its time limit of {order.seconds:.6g} s"
    if seat.killed_for in _BY_WARNING:
        outcome = of_stopped(order, out_of_time=out_of_time) if order.warned else _BY_WARNING[seat.killed_for]
        return outcome, f"killed, it had not ended {seat.grace_seconds:.6g} s after the warning"
    if order.started is None:
        return "never_started", seat.unmet or f"{how} before the task began; see {seat.log}"
    return "killed", how


def _own_commit(root: Path, order: Order) -> str:
    """The class of an attempt whose child died between its commit and its last word; empty: it has not committed."""
    try:
        commit = taskdir.read_commit(root, order.task.commit_name)
    except (FileNotFoundError, Garbled):
        return ""
    if commit.attempt != order.attempt:
        return ""
    return "completed" if commit.status == "ok" else "diverged"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
