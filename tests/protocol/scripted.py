"""A launcher whose jobs begin, run and die when a test says so."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from orchestrator import batches
from orchestrator.launchers.launcher import JobState, Launcher, Submission
from workers import files, taskdir
from workers.execute import Ended, execute
from workers.journal import read_batch
from workers.taskdir import Task


@dataclass(slots=True)
class Job:
    """One run of a scheduler job as the test moves it. `listed`: the scheduler still shows it; `alive`: its process can still act;
    `lost`: the scheduler shows its end, but may yet start it again."""

    root: Path
    token: str
    tasks: list[Task]
    listed: bool = True
    alive: bool = True
    begun: bool = False
    lost: bool = False
    run: int = 0
    running: tuple[Task, str] | None = None
    finished: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """The job's first act: link the receipt of its next run; a job that finds a fence, or another's receipt, exits at once."""
        folder = taskdir.batch_dir(self.root, self.token)
        files.make_dirs(folder)
        while self.run and (folder / batches.receipt_name(self.run)).exists():
            self.run += 1
        body = files.encode({"job": self.token, "host": "h"})
        self.begun = files.publish(folder / batches.receipt_name(self.run), body) and not self._is_fenced(folder)
        self.alive = self.begun
        if self.run:
            files.make_dirs(batches.run_dir(folder, self.run))

    @property
    def may_act(self) -> bool:
        """Whether the scheduler shows that it runs, or that it will, and no fence stands in its way."""
        barred = not self.begun and batches.Batch(self.root, self.token).refresh().is_fenced
        return self.alive and self.listed and not self.lost and not barred

    def _is_fenced(self, folder: Path) -> bool:
        return any("fenced" in files.read(folder / batches.receipt_name(run)) for run in range(self.run))

    def requeue(self) -> "Job":
        """The scheduler starts the job again; the process of this run may live on where the scheduler cannot see it."""
        JOBS[self.token] = Job(self.root, self.token, self.tasks, run=1 if self.begun else 0)
        ZOMBIES.append(self)
        self.listed = False
        return JOBS[self.token]

    def start_next(self) -> bool:
        """Start the next task whose inputs are there and that is not committed."""
        for index, task in enumerate(self.tasks):
            if task.key not in self.finished and not taskdir.is_committed(self.root, task.commit_name):
                attempt = f"{self.token.replace('/', '.')}-{index}-0-{os.urandom(3).hex()}"
                self.running = (task, attempt)
                self._write({"event": "start", "key": task.key, "attempt": attempt, "slot": 0, "time": 0.0})
                return True
        return False

    def commit_running(self) -> Ended:
        """Run and commit the task, but do not say so yet."""
        assert self.running is not None
        task, attempt = self.running
        return execute(self.root, task, attempt=attempt, code="code")

    def record(self, ended: Ended) -> None:
        """Say how the running task ended."""
        assert self.running is not None
        task, attempt = self.running
        self._write({"event": "end", "key": task.key, "attempt": attempt, **ended.record()})
        self.finished.add(task.key)
        self.running = None

    def end(self) -> None:
        """The job has nothing left and leaves."""
        self._write({"event": "over", "reason": "finished"})
        self.alive = self.listed = False

    def _write(self, event: dict[str, Any]) -> None:
        folder = batches.run_dir(taskdir.batch_dir(self.root, self.token), self.run)
        descriptor = os.open(folder / "attempts.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            files.ops.append(descriptor, json.dumps(event).encode() + b"\n")
        finally:
            os.close(descriptor)


JOBS: dict[str, Job] = {}
ZOMBIES: list[Job] = []


def _state(job: Job) -> JobState:
    if job.lost:
        return JobState(state="ended", job_id=job.token, reason="NODE_FAIL", cause="node_failure", doubtful=True)
    return JobState(state="running" if job.begun else "queued", job_id=job.token)


@dataclass(frozen=True, kw_only=True)
class Scripted(Launcher):
    """Keeps the jobs in JOBS; nothing runs by itself."""

    restarts: ClassVar[bool] = True

    def cut(self, tasks: Sequence[Task], slowest: Mapping[str, float], exclude: Sequence[str] = ()) -> list[Submission]:
        """At most three tasks a job, at most two jobs a submission."""
        jobs = [list(tasks[start : start + 3]) for start in range(0, len(tasks), 3)]
        return [Submission(jobs=jobs[start : start + 2]) for start in range(0, len(jobs), 2)]

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """Queue the jobs, after checking that none of their tasks is at work elsewhere or done."""
        for number, _ in enumerate(submission.jobs):
            self._queue(root, token if len(submission.jobs) == 1 else f"{token}/{number}")
        return token

    def _queue(self, root: Path, token: str) -> None:
        _, tasks = read_batch(root, token)
        for task in tasks:
            assert not taskdir.is_committed(root, task.commit_name), f"{task.key} is committed and was sent again"
            for other in JOBS.values():
                at_work = other.may_act and task.key not in other.finished
                assert not (at_work and task.key in {one.key for one in other.tasks}), f"{task.key} is at work and was sent again"
        JOBS[token] = Job(root, token, tasks)

    def states(self, root: Path, tokens: Iterable[str]) -> dict[str, JobState]:
        """What the scheduler shows; a job that it no longer lists is absent."""
        shown = {token: JOBS[token] for token in tokens if token in JOBS and JOBS[token].listed}
        return {token: _state(job) for token, job in shown.items()}

    def cancel(self, root: Path, tokens: Iterable[str]) -> None:
        """Kill the jobs at once."""
        for token in tokens:
            if token in JOBS:
                JOBS[token].alive = JOBS[token].listed = False

    def most_memory_gib(self) -> float:
        """Enough for anything here."""
        return 8.0

    def num_slots(self) -> int:
        """One task at a time."""
        return 1
