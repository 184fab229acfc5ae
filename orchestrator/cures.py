"""Each cause of failure has its own cure and its own budget: what becomes of a task after the attempts that it had."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.launchers.launcher import Launcher
from workers.workload import Resources

Outcome = dict[str, Any]

# class -> attempts that may end so before the task counts as failed; absent: unlimited
BUDGETS = {
    "user_error": 0,
    "host_oom": 3,
    "cuda_oom": 3,
    "timeout": 1,
    "killed": 3,
    "never_started": 3,
    "node_failure": 5,
    # an input that is garbled stays so; one that was taken back meanwhile comes again
    "input_missing": 3,
}
MEMORY_FACTOR = 1.3
REMEDIES = {
    "user_error": "fix the code, then `eigensweep resume {sweep}`: only what failed runs again",
    "host_oom": "give it more memory (resources.memory_gib=...) or a smaller setting, then resume",
    "cuda_oom": "give it fewer neighbours on the GPU or a smaller setting, then resume",
    "timeout": "it made no progress in twice its time: see the stack dump in its log, or raise resources.walltime_minutes, then resume",
    "killed": "its process was killed four times and left no cause: look at its log and at the kernel's (dmesg), then resume",
    "never_started": "its process could not be started: see the job's log in batches/, then resume",
    "node_failure": "its nodes failed again and again: ask the site, then resume",
    "input_missing": "its input cannot be read: `eigensweep scrub` names the file and the cure; then resume",
}


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to cure with: `most_memory_gib()` for one task, `alone_has_all`: at no cost where it is alone; types of larger GPUs."""

    most_memory_gib: Callable[[], float]
    alone_has_all: bool = True
    larger_gpu_types: Sequence[str] = ()

    @classmethod
    def of(cls, launcher: Launcher) -> "Means":
        """Those of a launcher, which is asked only where somebody needs more."""
        return cls(launcher.most_memory_gib, launcher.alone_has_all, launcher.larger_gpus())


@dataclass(frozen=True, slots=True)
class Prospect:
    """What comes next for a task that is not committed: it may run (in `resources`, perhaps `alone`, its micro-batch halved `halvings`
    times, on a GPU of type `gpu_type` rather than on that which the launcher names), or has `failed` for a reason."""

    resources: Resources
    alone: bool = False
    halvings: int = 0
    gpu_type: str = ""
    failed: str = ""


def prospect(outcomes: Sequence[Outcome], resources: Resources, code: str, means: Means, *, can_halve: bool = False) -> Prospect:
    """Decide from the outcomes since the budget was last renewed.

    `code` is the fingerprint that would run now: a user error under other code does not count. `can_halve`: the workload's
    micro-batch may be halved.
    """
    if not outcomes:
        return Prospect(resources)
    counted = [one for one in outcomes if one["class"] in BUDGETS and not (one["class"] == "user_error" and one["code"] != code)]
    causes = Counter(one["class"] for one in counted)
    for cause, number in causes.items():
        if number > BUDGETS[cause]:
            return Prospect(resources, failed=cause)
    need = _after_cuda_oom(causes["cuda_oom"], means.larger_gpu_types, can_halve=can_halve)
    if need is None:
        return Prospect(resources, failed="cuda_oom")
    shape, alone = _after_host_oom(counted, resources, means)
    if alone is None:
        return Prospect(resources, failed="host_oom")
    if causes["timeout"]:
        shape = replace(shape, walltime_minutes=2 * shape.walltime_minutes)
    # what was beside a task whose nodes fail may be a victim of it, or it one of theirs
    alone = alone or causes["cuda_oom"] > 0 or causes["node_failure"] > 1
    halvings, gpu_type = need
    return Prospect(shape, alone=alone, halvings=halvings, gpu_type=gpu_type)


def _after_cuda_oom(number: int, larger: Sequence[str], *, can_halve: bool) -> tuple[int, str] | None:
    """Halvings of the micro-batch and type of the GPU, after one alone on its GPU; None: there is nothing that would help.

    Alone it had the whole GPU, so a further attempt must need less or have more. The last one has the largest GPU that there is.
    """
    further = max(0, number - 1)
    is_last = number == BUDGETS["cuda_oom"]
    halvings = min(further, BUDGETS["cuda_oom"] - 1 - bool(larger)) if can_halve else 0
    step = further - halvings
    if step > len(larger):
        return None
    return halvings, (larger[-1] if is_last else larger[step - 1]) if step else ""


def _after_host_oom(outcomes: Sequence[Outcome], resources: Resources, means: Means) -> tuple[Resources, bool | None]:
    """First alone, with all the memory where that costs nobody anything, so that its own peak is known; None: even all was not enough."""
    failures = [one for one in outcomes if one["class"] == "host_oom"]
    if not failures:
        return resources, False
    most = means.most_memory_gib()
    if any(one.get("memory_limit_gib", 0.0) >= 0.99 * most for one in failures):
        return resources, None
    if len(failures) == 1 and means.alone_has_all:
        return replace(resources, memory_gib=most), True
    peak = max(one.get("peak_memory_mib", 0.0) / 1024 for one in failures)
    had = resources.memory_gib * 2 ** (len(failures) - (2 if means.alone_has_all else 1))
    return replace(resources, memory_gib=min(most, max(MEMORY_FACTOR * peak, 2 * had))), True


def broken_workloads(outcomes: Sequence[Outcome], num_completed: dict[str, int]) -> dict[str, str]:
    """Workloads whose submissions stop: at least 3 user errors alike, and at least half of what ended; with the error."""
    ended = Counter(num_completed)
    alike: Counter[tuple[str, str]] = Counter()
    example = {}
    for one in outcomes:
        if one["class"] not in BUDGETS:
            continue
        ended[one["workload"]] += 1
        if one["class"] == "user_error":
            cause = (one["workload"], (one.get("error") or {}).get("fingerprint", ""))
            alike[cause] += 1
            example[cause] = one["message"]
    return {cause[0]: example[cause] for cause, number in alike.items() if number >= 3 and 2 * number >= ended[cause[0]]}
