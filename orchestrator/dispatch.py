"""What a submission would send to a scheduler: its jobs by shape, the hours they may cost, and the exact scripts. Sends nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.launchers.launcher import Launcher, Submission
from workers.taskdir import Task

# stands for the digits that are drawn when a submission is made
UNKNOWN_DIGITS = "x" * 12

Hours = tuple[float, float]


@dataclass(slots=True, kw_only=True)
class Jobs:
    """The jobs of one shape. `request`: what each asks for. `calls`: of sbatch. `after_others`: their inputs come from other jobs.

    `node_hours`, `cpu_hours`, `gpu_hours`: (low, high) of the tasks whose time is known, which `unknown` are not; `most`: the three
    if every job used its whole time. `scripts`: of each call, by file.
    """

    request: dict[str, Any]
    jobs: int
    calls: int
    tasks: dict[str, int]
    after_others: bool
    unknown: int
    node_hours: Hours
    cpu_hours: Hours
    gpu_hours: Hours
    most: tuple[float, float, float]
    scripts: list[dict[str, str]] = field(default_factory=list)


def jobs_of(
    launcher: Launcher, tasks: Sequence[Task], seconds: Mapping[str, Hours | None], expected: Mapping[str, float], exclude: Sequence[str]
) -> list[tuple[Jobs, list[Submission]]]:
    """Jobs by shape and wave, each with its submissions; `seconds`: (low, high) of each task by its key, None: not known."""
    found = []
    for wave, submissions in enumerate(_waves(launcher, tasks, expected, exclude)):
        shapes: dict[str, list[Submission]] = {}
        for one in submissions:
            shapes.setdefault(str(one.request), []).append(one)
        found += [(_summed(own, seconds, after_others=wave > 0), own) for own in shapes.values()]
    return found


def _waves(launcher: Launcher, tasks: Sequence[Task], expected: Mapping[str, float], exclude: Sequence[str]) -> Iterator[list[Submission]]:
    """What is sent at once, then what can be sent when all of that is committed, and so on."""
    left = list(tasks)
    while left and (submissions := launcher.cut_all(left, expected, exclude)):
        yield submissions
        sent = {task.key for one in submissions for job in one.jobs for task in job}
        left = [task for task in left if task.key not in sent]


def _summed(submissions: list[Submission], seconds: Mapping[str, Hours | None], *, after_others: bool) -> Jobs:
    request = submissions[0].request
    tasks = [task for one in submissions for job in one.jobs for task in job]
    jobs = sum(len(one.jobs) for one in submissions)
    known = [hours for task in tasks if (hours := seconds[task.key]) is not None]
    low, high = (sum(one[i] for one in known) / 3600 / request["slots"] * request["nodes"] for i in (0, 1))
    most = jobs * request["minutes"] / 60 * request["nodes"]
    return Jobs(
        request=request,
        jobs=jobs,
        calls=len(submissions),
        tasks=dict(Counter(task.workload for task in tasks)),
        after_others=after_others,
        unknown=len(tasks) - len(known),
        node_hours=(low, high),
        cpu_hours=(low * request["cpus"], high * request["cpus"]),
        gpu_hours=(low * request["gpus"], high * request["gpus"]),
        most=(most, most * request["cpus"], most * request["gpus"]),
    )


def add_scripts(
    launcher: Launcher, root: Path, name: str, code_path: Path, found: Sequence[tuple[Jobs, list[Submission]]], *, every: bool
) -> None:
    """The scripts of the first submission of each shape, or of `every` one."""
    for jobs, submissions in found:
        for one in submissions if every else submissions[:1]:
            jobs.scripts.append(launcher.scripts(root, f"{name}-{UNKNOWN_DIGITS}", one, code_path))
