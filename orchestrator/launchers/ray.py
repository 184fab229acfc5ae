"""Ray: jobs on a Ray cluster that is there, or on one of our own on this machine for the time of a job."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.launchers import _processes
from orchestrator.launchers.launcher import (
    ENDED,
    QUEUED,
    RUNNING,
    JobState,
    Launcher,
    SchedulerSilent,
    Submission,
    SubmissionRefused,
    SubmissionUnknown,
)
from workers import files, taskdir
from workers.errors import ConfigError, Garbled
from workers.extras import ray_missing
from workers.processes import Process, boot_id
from workers.settings import setting
from workers.taskdir import Task

_ORDERS = "workers.sharded.ray_jobs"  # Ray itself is loaded there, in a process of its own
_ANSWER = "answer: "
_USUAL = 1.0  # seconds of a task of which nothing is known
_ROOM = "change launcher.slots, launcher.gpus_per_job or the tasks' resources, or add nodes"


@dataclass(frozen=True, kw_only=True)
class Ray(Launcher):
    """Jobs are detached actors that run the batch in a process, so they need no dashboard and outlive whoever submits.

    Without an address each submission has a Ray of its own on this machine, gone with its job.
    """

    ticks: ClassVar[bool] = True
    alone_has_all: ClassVar[bool] = False

    address: str | None = setting(None, help="auto, or host:port of a Ray whose nodes see the store; none: one of our own, on this machine")
    slots: int | None = setting(None, low=1, help="tasks at once in a job; none: one, in a Ray of our own as many as CPUs allow")
    cpus_per_slot: int = setting(1, low=1)
    gpus_per_job: int = setting(0, low=0, help="at least as many as one of its tasks asks for")
    tasks_per_gpu: int = setting(1, low=1)
    ensemble_size: int | None = setting(
        None, low=1, help="most tasks with ensemble=true that train as one in a slot; 1: each by itself; null: as the workload says"
    )
    max_jobs: int = setting(8, low=1, help="jobs at most, each on one node; one where Ray is our own")
    memory_overhead_gib: float = setting(0.25, low=0, unit="GiB", help="for the job's own process, beside its tasks")
    grace_seconds: float = setting(10.0, low=0, unit="s", help="between the warning of a task and its end")
    python: str | None = setting(None, help="the interpreter on the nodes; none: the one that submits")
    answer_seconds: float = setting(60.0, above=0, unit="s", help="so long may Ray take to answer")
    poll_seconds: float = setting(5.0, low=0, unit="s", help="between two questions to Ray")
    limit_memory_by: str = setting("auto", choices=("auto", "cgroup", "watchdog", "none"))

    def cut(self, tasks: Sequence[Task], expected: Mapping[str, float], exclude: Sequence[str] = ()) -> list[Submission]:
        """Tasks that stand on one another go together; those that ask for the same make at most `max_jobs` jobs of about equal length."""
        order = {task.key: number for number, task in enumerate(tasks)}
        seconds = {task.key: expected.get(taskdir.shape_name(task.workload, task.resources), _USUAL) for task in tasks}
        alike: dict[str, list[list[Task]]] = {}
        for family in _families(tasks):
            alike.setdefault(json.dumps(self._request(family)) if self.address else "", []).append(family)
        submissions = []
        for families in alike.values():
            jobs = _balanced(families, seconds, self.max_jobs if self.address else 1)
            request = self._request([task for job in jobs for task in job])
            submissions.append(Submission(jobs=[sorted(job, key=lambda task: order[task.key]) for job in jobs], request=request))
        return submissions

    def _request(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """What a job asks Ray for: slots for its largest task at least."""
        cpus = max(self._slots * self.cpus_per_slot, *(task.resources.get("cpus", 1) for task in tasks))
        memory = max(task.resources.get("memory_gib", 1.0) for task in tasks)
        slots = -(-cpus // self.cpus_per_slot)
        return {
            "slots": slots,
            "cpus_per_slot": self.cpus_per_slot,
            "memory_gib": self._slots * memory,
            "gpus": max(self.gpus_per_job, *(task.resources.get("gpus", 0) for task in tasks)),
        }

    def check_jobs(self, root: Path, tasks: Sequence[Task], *, submitting: bool) -> str:
        """Ray must be installed, and for a submission it must answer, with a node that has room for each shape of job."""
        if not tasks:
            return ""
        if missing := ray_missing():
            raise ConfigError(f"launcher=ray cannot be used: {missing}")
        if self.address is None:
            return ""
        if not submitting:
            return f"whether the Ray at {self.address} answers and has room is found out by submit"
        shares = [self._share(self._request([task])) for task in tasks]
        try:
            found = self._ask("room", shares=shares)
        except SchedulerSilent as error:
            raise ConfigError(f"{error}; nothing was submitted") from error
        if problems := list(dict.fromkeys(filter(None, found))):
            raise ConfigError("\n".join(f"{problem}: {_ROOM}" for problem in problems))
        return ""

    def _share(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a job is given, as Ray counts it."""
        return {
            "CPU": request["slots"] * request["cpus_per_slot"],
            "GPU": request["gpus"],
            "memory": int((request["memory_gib"] + self.memory_overhead_gib) * 2**30),
        }

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """Queue the job, or start it with a Ray of its own."""
        share = self._share(submission.request)
        if self.address is None:
            return self._start(root, token, {"share": share, "job": self._job(root, token, code_path)})
        count = len(submission.jobs)
        names = [token] if count == 1 else [f"{token}/{number}" for number in range(count)]
        jobs = {_name(root, name): self._job(root, name, code_path) for name in names}
        try:
            problem = self._ask("submit", share=share, jobs=jobs)
        except ConfigError as error:
            raise SubmissionRefused(str(error)) from error
        except SchedulerSilent as error:
            raise SubmissionUnknown(str(error)) from error
        if problem:
            raise SubmissionRefused(f"{problem}: {_ROOM}")
        _note(root, token, job_id=token)
        return token

    def _job(self, root: Path, token: str, code_path: Path) -> dict[str, Any]:
        """The command of a job, then a tick, with the source that was frozen."""
        python, place = os.path.expanduser(self.python or sys.executable), str(root.absolute())
        path = os.pathsep.join(filter(None, (str(code_path), os.environ.get("PYTHONPATH"))))
        own = {name: value for name, value in os.environ.items() if name.startswith("EIGENSWEEP_")}
        return {
            "commands": [[python, "-P", "-m", "workers", place, token], [python, "-P", "-m", "orchestrator", "tick", "--root", place]],
            "environment": {**own, "PYTHONPATH": path},
            "folder": place,
            "log": str(taskdir.batch_dir(root, token).absolute() / "log"),
        }

    def _start(self, root: Path, token: str, order: dict[str, Any]) -> str:
        """A detached process that holds the Ray; with the words by which it is found where nobody came to note it."""
        words = [sys.executable, "-P", "-m", _ORDERS, "alone", _processes.JOB, str(root.absolute()), token]
        with open(taskdir.batch_dir(root, token) / "log", "ab", opener=files.opener) as log:
            holder = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, umask=files.UMASK
            )
        assert holder.stdin is not None
        holder.stdin.write(json.dumps(order).encode() + b"\n")
        holder.stdin.close()
        process = Process.of_pid(holder.pid)
        holder.returncode = 0  # it outlives this process on purpose
        _processes.write_job(root, token, process)
        return str(process)

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """By the batch's own files; of jobs that have not said their last word Ray says whether they are there."""
        if self.address is None:
            found = {token: _processes.state(root, token) for token in tokens}
            return {token: state for token, state in found.items() if state is not None}
        over = {token: reason for token in tokens if (reason := _processes.last_word(taskdir.batch_dir(root, token)))}
        states = {token: JobState(state=ENDED, job_id=token, reason=reason, exit_code=0) for token, reason in over.items()}
        open_ones = [token for token in tokens if token not in over]
        present = set(self._ask("present", names=[_name(root, token) for token in open_ones])) if open_ones else set()
        for token in open_ones:
            state = _state(root, token, present=_name(root, token) in present)
            if state is not None:
                states[token] = state
        return states

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """SIGTERM to jobs that run, in a call after the grace an end to their actors; those that wait are ended at once."""
        if self.address is None:
            for token in tokens:
                _processes.cancel(root, token, self.grace_seconds)
            return
        begun = {token: _processes.receipt_process(taskdir.batch_dir(root, token)) is not None for token in tokens}
        told = {token: _told(root, token) for token in tokens}
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        warn = [token for token in tokens if begun[token] and told[token] is None]
        late = [
            token
            for token in tokens
            if begun[token] and (then := told[token]) and now - then > self.grace_seconds + _processes.JOB_GRACE_SECONDS
        ]
        if warn:
            self._ask("tell", names=[_name(root, token) for token in warn], number=int(signal.SIGTERM))
            for token in warn:
                _note(root, token, job_id=token, cancelled_at=now, boot=boot_id())
        if ended := [token for token in tokens if not begun[token]] + late:
            self._ask("end", names=[_name(root, token) for token in ended])

    def _ask(self, do: str, **order: Any) -> Any:
        """Ray's answer to an order. Raises ConfigError where it cannot be used at all, SchedulerSilent where it says nothing."""
        command = [sys.executable, "-P", "-m", _ORDERS, str(self.address)]
        line = json.dumps({"do": do, **order}) + "\n"
        path = os.pathsep.join(filter(None, (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH"))))
        try:
            done = subprocess.run(
                command,
                input=line,
                capture_output=True,
                text=True,
                timeout=self.answer_seconds,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise SchedulerSilent(f"the Ray at {self.address} gives no answer within {self.answer_seconds:.0f} s") from None
        answers = [json.loads(one.removeprefix(_ANSWER)) for one in done.stdout.splitlines() if one.startswith(_ANSWER)]
        if not answers:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise SchedulerSilent(f"the Ray at {self.address} gives no answer ({last})")
        if "error" not in answers[0]:
            return answers[0]["value"]
        if do in ("submit", "room"):
            raise ConfigError(answers[0]["error"])
        raise SchedulerSilent(answers[0]["error"])

    def num_slots(self) -> int:
        """In all jobs together."""
        return self.max_jobs * self._slots if self.address else self._slots

    @property
    def _slots(self) -> int:
        return self.slots or (1 if self.address else max(1, len(os.sched_getaffinity(0)) // self.cpus_per_slot))


def _balanced(families: Sequence[list[Task]], seconds: Mapping[str, float], most: int) -> list[list[Task]]:
    """The longest families first, each to the job with least to do; as many jobs as there are families, `most` at most."""
    jobs: list[list[Task]] = [[] for _ in range(min(most, len(families)))]
    loads = [(0.0, 0)] * len(jobs)
    for family in sorted(families, key=lambda one: -sum(seconds[task.key] for task in one)):
        least = loads.index(min(loads))
        jobs[least] += family
        loads[least] = (loads[least][0] + sum(seconds[task.key] for task in family), len(jobs[least]))
    return jobs


def _families(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks that are connected by inputs."""
    root_of = {task.commit_name: task.commit_name for task in tasks}

    def find(key: str) -> str:
        while root_of[key] != key:
            root_of[key] = root_of[root_of[key]]
            key = root_of[key]
        return key

    for task in tasks:
        for name in task.inputs.values():
            if name in root_of:
                root_of[find(task.commit_name)] = find(name)
    families: dict[str, list[Task]] = {}
    for task in tasks:
        families.setdefault(find(task.commit_name), []).append(task)
    return list(families.values())


def _name(root: Path, token: str) -> str:
    """Of the actor: a Ray may have the jobs of several stores."""
    return f"{root.absolute()} {token}"


def _state(root: Path, token: str, *, present: bool) -> JobState | None:
    folder = taskdir.batch_dir(root, token)
    job = _processes.receipt_process(folder)
    if present:
        return JobState(
            state=RUNNING if job else QUEUED, job_id=token, reason="" if job else "waits for room in Ray", nodes=(job.host,) if job else ()
        )
    if job is not None:
        # it may have ended between the two looks
        reason = _processes.last_word(folder)
        return JobState(state=ENDED, job_id=token, reason=reason or "killed", exit_code=0 if reason else None, nodes=(job.host,))
    return (
        JobState(state=ENDED, job_id=token, reason="ended before it began")
        if taskdir.job_path(root, token.partition("/")[0]).exists()
        else None
    )


def _note(root: Path, token: str, **body: Any) -> None:
    with files.replacing(taskdir.job_path(root, token)) as path:
        path.write_bytes(files.encode(body))


def _told(root: Path, token: str) -> float | None:
    """When the job was told to end, by this machine's clock; one that another machine has told is told so now."""
    try:
        body = files.read(taskdir.job_path(root, token))
    except (FileNotFoundError, Garbled):
        return None
    if "cancelled_at" not in body:
        return None
    if body["boot"] != boot_id():
        body = {**body, "cancelled_at": time.clock_gettime(time.CLOCK_BOOTTIME), "boot": boot_id()}
        _note(root, token, **body)
    return float(body["cancelled_at"])
