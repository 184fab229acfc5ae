"""Jobs that are processes of this machine: what became of them, and how they are ended."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, JobState
from workers import files, taskdir
from workers.errors import Garbled
from workers.processes import Process

# what a job needs beside its tasks' grace, to kill what is left and say so
JOB_GRACE_SECONDS = 2.0
JOB = "eigensweep-job"  # a word of the command line of each job's shell


def write_job(root: Path, token: str, process: Process, **more: float) -> None:
    """Keep the job's id beside the batch."""
    with files.replacing(taskdir.job_path(root, token)) as path:
        path.write_bytes(files.encode({"job_id": str(process), **more}))


def state(root: Path, token: str) -> JobState | None:
    """What became of the job of a batch, by its receipt, its process and its last word; None: no trace of one."""
    folder = taskdir.batch_dir(root, token)
    job = receipt_process(folder)
    if job is None:
        launched = launched_process(root, token)
        if launched is None:
            return None
        alive = launched.alive or not launched.is_here
        return JobState(state=QUEUED if alive else ENDED, job_id=str(launched), reason="starting" if alive else "ended before it began")
    reason = last_word(folder)
    if reason:
        return JobState(state=ENDED, job_id=str(job), reason=reason, exit_code=0)
    if not job.is_here:
        return JobState(state=RUNNING, job_id=str(job), reason=f"on {job.host}, which cannot be asked from here")
    if not job.alive:
        return JobState(state=ENDED, job_id=str(job), reason="killed")
    waits = _document(folder / "heartbeat.json").get("state") == "queued"
    return JobState(state=QUEUED if waits else RUNNING, job_id=str(job), reason="waits for free slots" if waits else "")


def receipt_process(folder: Path) -> Process | None:
    """The process that linked the batch's receipt."""
    job = _document(folder / "receipt.json").get("job")
    return Process.parse(str(job)) if job else None


def launched_process(root: Path, token: str) -> Process | None:
    """The process that was started for the batch: by its job.json, or, where the driver died before it, by its command line."""
    job = _document(taskdir.job_path(root, token)).get("job_id")
    if job:
        return Process.parse(str(job))
    mine = {JOB, token, str(root.absolute())}
    return next((Process.of_pid(pid) for pid, words in _commands() if mine.issubset(words)), None)


def last_word(folder: Path) -> str:
    """The reason in the `over` record that ends the attempts of a job which ended by itself; empty: there is none."""
    try:
        with (folder / "attempts.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            last = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
            event = json.loads(last)
    except (OSError, ValueError):
        return ""
    return str(event["reason"]) if event.get("event") == "over" else ""


def cancel(root: Path, token: str, grace_seconds: float) -> None:
    """SIGTERM, which has tasks checkpoint; in a call after the grace SIGKILL."""
    folder = taskdir.batch_dir(root, token)
    job, launched = receipt_process(folder), launched_process(root, token)
    target = job or launched
    if target is None or not target.is_here or not target.alive:
        return
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    before = _document(folder / "job.json").get("cancelled_at")
    if isinstance(before, float) and now - before > grace_seconds + JOB_GRACE_SECONDS:
        target.signal(signal.SIGKILL, group=job is None)
    if before is None:
        # once: a job takes a second signal for an order to kill its tasks at once
        target.signal(signal.SIGTERM, group=job is None)
        write_job(root, token, launched or target, cancelled_at=now)


def _document(path: Path) -> dict[str, object]:
    try:
        body: dict[str, object] = files.read(path)
    except (FileNotFoundError, Garbled):
        return {}
    return body


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Process ids and words of the command lines of this machine."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace").split("\0")
