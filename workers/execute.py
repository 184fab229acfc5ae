"""Runs one task in this process: inputs, workload, rows, commit; what went wrong becomes a class with its evidence."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import plugins, taskdir
from workers.context import Context
from workers.errors import DiskFull, Diverged, Garbled, Interrupted, ProcessLost
from workers.taskdir import INLINE_BYTES, Columns, Commit, Task
from workers.workload import EARLIER, Workload

MAX_TRACEBACK = 16_000
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_CUDA_TEXTS = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "RESOURCE_EXHAUSTED")
_HOST_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception as it is kept: alike failures share a fingerprint whatever the line numbers and values."""

    type: str
    message: str
    fingerprint: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an attempt ended: one of the classes of DESIGN section 6, and the evidence for it."""

    outcome: str
    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    message: str = ""
    failure: Failure | None = None
    checkpoint: int | None = None
    resumed_at: int | None = None
    difference: str = ""

    @property
    def committed(self) -> bool:
        """Whether a commit of the task stands, this attempt's or another's."""
        return self.outcome in ("completed", "diverged", "superseded")

    def record(self) -> dict[str, Any]:
        """The fields of an end record."""
        failure = self.failure
        return {
            "class": self.outcome,
            "seconds": round(self.seconds, 6),
            "peak_memory_mib": round(self.peak_memory_mib, 1),
            "message": self.message,
            "error": failure and {"type": failure.type, "fingerprint": failure.fingerprint, "traceback": failure.traceback},
            "checkpoint": self.checkpoint,
            "resumed_at": self.resumed_at,
            "difference": self.difference,
        }


class _InputMissing(Exception):
    """An input that is not there, or that this task cannot use."""


class _NeverStarted(Exception):
    """The workload's code cannot be imported here."""


def execute(
    root: Path,
    task: Task,
    *,
    attempt: str,
    code: str,
    device: str = "cpu",
    deadline: float = float("inf"),
    stop: threading.Event | None = None,
    report: Report = lambda message: None,
    nodes: tuple[str, ...] = (),
    reraise: bool = False,
) -> Ended:
    """Run `task` and commit its rows; `deadline` is on this process's monotonic clock, `nodes` are the hosts of the task (none: this one).

    With `reraise` the exceptions of the workload pass through, so that a debugger stops where they were raised.
    """
    stop = stop or threading.Event()
    context = Context(root=root, task=task, attempt=attempt, device=device, deadline=deadline, stop=stop)
    context.nodes = nodes or context.nodes
    context.report = functools.partial(_report, report, context)
    attempted = _Attempt(context, code, time.time(), time.monotonic())
    _reset_peak_memory()
    try:
        return attempted.run()
    except (Exception, SystemExit) as error:
        if reraise:
            raise
        return attempted.failed(error)


def execute_many(
    root: Path,
    tasks: Sequence[Task],
    *,
    attempts: Sequence[str],
    code: str,
    told: Callable[[str, Ended], None],
    device: str = "cpu",
    deadline: float = float("inf"),
    stop: threading.Event | None = None,
    report: Callable[[str, dict[str, Any]], None] = lambda attempt, message: None,
    nodes: tuple[str, ...] = (),
) -> None:
    """Run tasks of one `ensembles.groups.group_of` at once by their workload's `run_many`, and commit each when it is done.

    `told(attempt, ended)` hears of each end as soon as it is known, `report(attempt, message)` what the task of an attempt says.
    """
    stop, began, began_at = stop or threading.Event(), time.monotonic(), time.time()
    attempted = {}
    for number, (task, attempt) in enumerate(zip(tasks, attempts, strict=True)):
        context = Context(root=root, task=task, attempt=attempt, device=device, deadline=deadline, stop=stop)
        context.nodes = nodes or context.nodes
        context.report = functools.partial(_report, functools.partial(report, attempt), context)
        attempted[number] = _Attempt(context, code, began_at, began, num_members=len(tasks))
    _reset_peak_memory()
    try:
        _run_together(attempted, told)
        if attempted:
            raise RuntimeError(f"run_many ended before {len(attempted)} of its members")
    except (Exception, SystemExit) as error:
        for one in attempted.values():
            told(one.context.attempt, one.failed(error))


def _run_together(attempted: "dict[int, _Attempt]", told: Callable[[str, Ended], None]) -> None:
    """Take out of `attempted` each that is done, its commit written."""
    workloads = {number: rebuild(one.context.task) for number, one in attempted.items()}
    for number, workload in workloads.items():
        check_inputs(attempted[number].context.root, attempted[number].context.task, workload)
    members = [(workloads[number], one.context) for number, one in attempted.items()]
    for number, found in type(members[0][0]).run_many(members):
        if found is None or isinstance(found, Diverged):
            message = "" if found is None else str(found) or "diverged"
            ended = attempted[number].commit(workloads[number], status="diverged" if message else "ok", message=message)
            told(attempted.pop(number).context.attempt, ended)
        else:
            attempted[number].context.add(found)


def _report(report: Report, context: Context, message: dict[str, Any]) -> None:
    report({**message, "resumed_at": context.resumed_at} if "checkpoint" in message else message)


@dataclass(slots=True)
class _Attempt:
    context: Context
    code: str
    started: float
    begun: float
    num_members: int = 1

    def run(self) -> Ended:
        workload = rebuild(self.context.task)
        check_inputs(self.context.root, self.context.task, workload)
        message = ""
        try:
            for row in workload.run(self.context):
                self.context.add(row)
        except Diverged as error:
            message = str(error) or "diverged"
        return self.commit(workload, status="diverged" if message else "ok", message=message)

    def commit(self, workload: Workload, *, status: str, message: str) -> Ended:
        """Link the commit into place, or find another's there and compare; its seconds are this member's share of the time of all."""
        context, task = self.context, self.context.task
        rows = _inline(context)
        commit = Commit(
            key=task.key,
            generation=task.generation,
            attempt=context.attempt,
            workload=task.workload,
            version=task.version,
            settings=task.settings,
            inputs=task.inputs,
            content=task.content,
            status=status,
            rows=rows,
            files=context.payloads(),
            code=self.code,
            host=os.uname().nodename,
            device=context.device,
            started=self.started,
            seconds=(time.monotonic() - self.begun) / self.num_members,
            peak_memory_mib=peak_memory_mib(),
            message=message,
        )
        outcome, difference = ("completed" if status == "ok" else "diverged"), ""
        if not taskdir.write_commit(context.root, commit):
            outcome, difference = "superseded", _difference(context.root, commit, workload)
        if difference:
            taskdir.write_difference(context.root, commit.name, commit.attempt, difference)
        else:
            taskdir.write_hints(context.root, task.commit_name, task.sweeps, diverged=status == "diverged")
        return self.ended(outcome, message=message, difference=difference)

    def failed(self, error: BaseException) -> Ended:
        progressed = newer(self.context.checkpointed_at, self.context.resumed_at)
        outcome = classify(error, progressed=progressed, told_to_stop=self.context.stopping)
        kept = outcome in ("user_error", "cuda_oom", "host_oom", "disk_full", "never_started")
        return self.ended(outcome, message=_one_line(error), failure=describe(error) if kept else None)

    def ended(self, outcome: str, **evidence: Any) -> Ended:
        return Ended(
            outcome=outcome,
            seconds=time.monotonic() - self.begun,
            peak_memory_mib=peak_memory_mib(),
            checkpoint=self.context.checkpointed_at,
            resumed_at=self.context.resumed_at,
            **evidence,
        )


def newer(checkpoint: int | None, resumed_at: int | None) -> bool:
    """Whether an attempt got further than where it began: progress that makes a requeue worth its time."""
    return checkpoint is not None and (resumed_at is None or checkpoint > resumed_at)


# -- before ---------------------------------------------------------------------------------------------------------


def rebuild(task: Task) -> Workload:
    """The workload of a task from its plain settings, refused where the code here is of another version."""
    try:
        cls: type[Workload] = plugins.load("workloads", task.workload)
    except (ImportError, LookupError, ValueError) as error:
        raise _NeverStarted(f"workload {task.workload!r} cannot be loaded here: {error}") from error
    if cls.version != task.version:
        raise ValueError(
            f"workload {task.workload} has version {cls.version} in this code, the task was planned for version {task.version}; "
            "run `eigensweep plan` to plan it again"
        )
    return cls.from_plain(task.settings)


def check_inputs(root: Path, task: Task, workload: Workload) -> None:
    """Raise where an input is not committed, cannot be trusted, or diverged and the workload does not accept that.

    What a training goes on from may have diverged: then so does the training, with the rows that there are.
    """
    for name, commit_name in task.inputs.items():
        try:
            commit = taskdir.read_commit(root, commit_name)
        except FileNotFoundError:
            raise _InputMissing(f"input {name} ({commit_name}) is not committed; run `eigensweep resume` to compute it") from None
        except Garbled as error:
            raise _InputMissing(f"input {name}: {error}") from error
        if commit.status == "diverged" and not workload.accepts_diverged and name != EARLIER:
            raise _InputMissing(f"input {name} ({commit_name}) diverged and {task.workload} does not accept that")


# -- rows -----------------------------------------------------------------------------------------------------------


def _inline(context: Context) -> dict[str, Columns]:
    """The rows for the commit itself; the largest tables go to payloads until the rest fits."""
    rows = dict(context.rows)
    sizes = {table: len(json.dumps(columns)) for table, columns in rows.items()}
    for table in sorted(sizes, key=lambda name: -sizes[name]):
        if sum(sizes[name] for name in rows) <= INLINE_BYTES:
            break
        _save_table(context, table, rows.pop(table))
    return rows


def _save_table(context: Context, table: str, columns: Mapping[str, list[Any]]) -> None:
    import numpy as np

    arrays = {name: np.asarray(values) for name, values in columns.items()}
    bad = [name for name, array in arrays.items() if array.dtype.kind not in "biufUS"]
    if bad:
        raise ValueError(f"rows of {table}: columns {', '.join(bad)} must be numbers or texts of one type each")
    with context.file(f"rows-{table}.npz") as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _difference(root: Path, ours: Commit, workload: Workload) -> str:
    try:
        other = taskdir.read_commit(root, ours.name)
        return taskdir.compare(root, ours, other, workload.permitted_difference())
    except (Garbled, OSError) as error:
        return f"the commit that stands cannot be read: {error}"


# -- failures -------------------------------------------------------------------------------------------------------


def classify(error: BaseException, *, progressed: bool, told_to_stop: bool) -> str:
    """The class of an attempt that ended in `error`. A workload that stopped untold did so because its time was over."""
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if isinstance(error, Interrupted):
        return "interrupted" if told_to_stop else "timeout_progress" if progressed else "timeout"
    if isinstance(error, _InputMissing):
        return "input_missing"
    if isinstance(error, _NeverStarted):
        return "never_started"
    if isinstance(error, ProcessLost):
        return "killed"
    if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return "disk_full"
    if "OutOfMemoryError" in names or any(part in text for part in _CUDA_TEXTS):
        return "cuda_oom"
    if isinstance(error, MemoryError) or any(part in text for part in _HOST_TEXTS):
        return "host_oom"
    return "user_error"


def describe(error: BaseException) -> Failure:
    """Type, message, traceback and fingerprint of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{os.path.basename(frame.filename)}:{frame.name}:{frame.line or ''}" for frame in frames[-3:]]
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    fingerprint = hashlib.blake2b("\n".join([name, *places]).encode(), digest_size=6).hexdigest()
    text = "".join(traceback.format_exception(error))
    return Failure(type=name, message=_one_line(error), fingerprint=fingerprint, traceback=text[-MAX_TRACEBACK:])


def _one_line(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first[:1000]


# -- memory ---------------------------------------------------------------------------------------------------------


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(descriptor, b"5")
        finally:
            os.close(descriptor)


def peak_memory_mib() -> float:
    """Highest resident memory of this process since its last reset, else since it began."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        descriptor = os.open("/proc/self/status", os.O_RDONLY)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
        return int(text[text.index(b"VmHWM:") + 6 :].split(None, 1)[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def flushed_output() -> Iterator[None]:
    """What the task printed stands in its log before the attempt is said to have ended."""
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
