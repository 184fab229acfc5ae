"""A batch in the caller's own process, one task after another, with the same records as a job."""

import os
import secrets
import time
from pathlib import Path
from typing import Any

from workers import taskdir
from workers.agenda import Agenda
from workers.execute import Ended, execute
from workers.journal import Journal, read_batch
from workers.taskdir import Task


def run(root: Path, token: str, *, device: str = "cpu", raise_errors: bool = False) -> None:
    """Run the batch `token` unless a job has it; with `raise_errors` a debugger stops where a task fails."""
    journal = Journal(taskdir.batch_dir(root, token))
    if not journal.link_receipt(token):
        return
    body, tasks = read_batch(root, token)
    agenda, reason = Agenda(tasks), "finished"
    while reason == "finished" and (index := agenda.peek()) is not None:
        task = tasks[agenda.pop()]
        if taskdir.is_committed(root, task.commit_name):
            agenda.skipped(index)
            continue
        attempt = f"{token.replace('/', '.')}-{index}-0-{secrets.token_hex(3)}"
        ended = _run_task(journal, root, task, attempt, code=body["code"], device=device, reraise=raise_errors)
        agenda.ended(index, ended.outcome, ended.failure.fingerprint if ended.failure else "")
        reason = "disk_full" if ended.outcome == "disk_full" else "finished"
    journal.record({"event": "over", "reason": reason, "energy_joules": None, "time": time.time()})
    journal.write()
    journal.close()


def _run_task(journal: Journal, root: Path, task: Task, attempt: str, **how: Any) -> Ended:
    ids = {"key": task.key, "attempt": attempt}
    journal.record({"event": "start", **ids, "slot": 0, "host": os.uname().nodename, "log": ["log", 0], "time": time.time()})
    journal.write()
    deadline = time.monotonic() + 60.0 * task.resources.get("walltime_minutes", 60.0)
    ended = execute(root, task, attempt=attempt, deadline=deadline, **how)
    share = {"cpus": task.resources.get("cpus", 1), "gpus": task.resources.get("gpus", 0), "slots": 1}
    journal.record({"event": "end", **ids, **ended.record(), **share, "log_end": 0, "memory_limit_gib": None, "time": time.time()})
    journal.write()
    return ended
