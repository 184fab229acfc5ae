"""SLURM: jobs and job arrays of a cluster, submitted by sbatch and asked for by squeue and sacct."""

import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.launchers.launcher import JobState, Launcher, SchedulerSilent, Submission
from orchestrator.slurm import packing, sbatch
from orchestrator.slurm.visibility import unseen
from workers import files, taskdir
from workers.errors import ConfigError, Garbled
from workers.settings import setting
from workers.taskdir import Task
from workers.workload import Resources

if TYPE_CHECKING:
    from orchestrator.slurm.inventory import Cluster, Partition

MOST_JOBS_PER_CALL = 1000
_GPU_TYPE = re.compile(r"[\w.-]+")
_TICK_REQUEST = {"nodes": 1, "cpus": 1, "gpus": 0, "minutes": 1}
# so many shapes at most are shown to sbatch itself before they are submitted
_TRIED = 8


@dataclass(frozen=True, kw_only=True)
class Slurm(Launcher):
    """Jobs of a SLURM cluster; `site=NAME` gives these settings for one (see slurm/README.md)."""

    ticks: ClassVar[bool] = True
    restarts: ClassVar[bool] = True
    detaches: ClassVar[bool] = True
    gangs: ClassVar[bool] = True
    alone_has_all: ClassVar[bool] = False

    partition: str | None = setting(None, help="none: the cluster's default; several with commas leave the choice to SLURM")
    account: str | None = setting(None)
    qos: str | None = setting(None)
    constraint: str | None = setting(None, help="features of nodes, as sbatch takes them: 'icelake&ib'")
    gpu_type: str | None = setting(None, help="as the cluster names it, such as a100")
    larger_gpu_types: tuple[str, ...] = setting((), help="of more memory, smallest first: for tasks that fill a GPU of the other type")
    nodelist: str | None = setting(None)
    exclude: str | None = setting(None, help="nodes to stay away from: 'n3,n[7-9]'")
    reservation: str | None = setting(None)
    sbatch: dict[str, Any] | None = setting(
        None, help="any other option of sbatch by its long name, {mail-type: FAIL}; true: without a value"
    )

    setup: tuple[str, ...] = setting((), help="lines of shell that run before each job, as they are: modules, conda")
    python: str | None = setting(None, help="the interpreter on the nodes; none: the one that submits, in a container python3")
    container: tuple[str, ...] = setting((), help="words before the interpreter: [apptainer, exec, --nv, image.sif]")
    scratch: str | None = setting(None, help="folder on a node's own disk, $VARIABLES of the node replaced")
    stage: bool = setting(False, help="copy data sets to scratch before the first task that reads them")
    shared: tuple[str, ...] = setting((), help="folders that the nodes see; none: all but /tmp and what is in memory")

    pack: str = setting("auto", choices=("auto", "always", "never"), help="whether tasks share jobs; auto: where they are short")
    slots: int | None = setting(None, low=1, help="tasks at once in a packed job; none: up to 8 on CPUs, tasks_per_gpu on a GPU")
    tasks_per_job: int | None = setting(None, low=1, help="none: as many as last job_minutes")
    tasks_per_gpu: int = setting(1, low=1)
    ensemble_size: int | None = setting(
        None, low=1, help="most tasks with ensemble=true that train as one in a slot; 1: each by itself; null: as the workload says"
    )
    job_minutes: float = setting(30.0, above=0, unit="min", help="how long a packed job should last")
    max_jobs: int = setting(64, low=1, help="jobs of a shape that run at once")
    chunk: int | None = setting(None, low=1, help="jobs in one call of sbatch; none: what the cluster allows, up to 1000")
    overhead_minutes: float = setting(5.0, low=0, unit="min", help="added to the tasks' walltime for starting and for the grace")
    memory_overhead_gib: float = setting(0.25, low=0, unit="GiB", help="for the job's own process, beside its tasks")
    limit_memory_by: str = setting("auto", choices=("auto", "cgroup", "watchdog", "none"))
    grace_seconds: float = setting(120.0, low=1, unit="s", help="between the warning of a job and its end")

    poll_seconds: float = setting(15.0, low=0, unit="s", help="between two questions to the scheduler")
    doubt_seconds: float = setting(30.0, low=0, unit="s", help="a job that seems lost is looked at again after this long")
    use_sacct: bool = setting(True, help="false: where the cluster keeps no accounting")
    tick_job: bool = setting(True, help="a small job after each submission goes on with the sweep; false: you tick")
    tick_partition: str | None = setting(None, help="none: that of the jobs")
    partitions: dict[str, Any] | None = setting(None, help="what the cluster offers, to plan where there is no sbatch")

    def check(self) -> None:
        """Refuse what would not stand in a script as it is meant."""
        for name in (*sbatch.SETTINGS, "tick_partition"):
            sbatch.refuse_unfit(name, getattr(self, name))
        for name, types in (("gpu_type", [self.gpu_type] if self.gpu_type else []), ("larger_gpu_types", self.larger_gpu_types)):
            if wrong := [one for one in types if not _GPU_TYPE.fullmatch(one)]:
                raise ConfigError(f"{name} must be names, such as a100, got {wrong[0]!r}; the number comes from resources.gpus")
        sbatch.check_further(self.sbatch or {})
        sbatch.check_setup(self.setup)
        if self.python:
            object.__setattr__(self, "python", os.path.expanduser(self.python))
        if self.partitions:
            from orchestrator.slurm.inventory import Cluster

            Cluster.from_profile(self.partitions)

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def cut(self, tasks: Sequence[Task], expected: Mapping[str, float], exclude: Sequence[str] = ()) -> list[Submission]:
        """As `cut_all`, but no more jobs than may be queued now."""
        cluster = self.cluster()
        room = cluster.headroom(self.account, self.qos, self.partition) if cluster and has_sbatch() else None
        return list(self._within(room, self.cut_all(tasks, expected, exclude)))

    def cut_all(self, tasks: Sequence[Task], expected: Mapping[str, float], exclude: Sequence[str] = ()) -> list[Submission]:
        """As `packing.cut`, on the nodes of the cluster and in calls of the size that it allows."""
        cluster = self._cluster_or_none()
        return packing.cut(
            tasks, self, lambda one, gpu_type: self._node(cluster, one, gpu_type), expected, chunk=self._chunk(cluster), exclude=exclude
        )

    def _within(self, room: int | None, submissions: list[Submission]) -> Iterator[Submission]:
        """Those for which there is room, each with the job that ticks after it."""
        left = sum(len(one.jobs) + 1 for one in submissions) if room is None else room
        for one in submissions:
            jobs = one.jobs[: max(min(left, 1), left - self.tick_job)]
            left -= len(jobs) + self.tick_job
            if jobs:
                yield replace(one, jobs=jobs)

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """One call of sbatch for the jobs, and one for the job that ticks after them."""
        text = sbatch.script(self, root, token, submission.request, len(submission.jobs), code_path)
        job_id = sbatch.submit(taskdir.batch_dir(root, token), "submission.sh", text)
        self.adopt(root, token, job_id, code_path)
        return job_id

    def adopt(self, root: Path, base: str, job_id: str, code_path: Path) -> None:
        """Send the job that ticks after them."""
        if self.tick_job and not (taskdir.batch_dir(root, base) / "tick.json").exists():
            sbatch.submit_tick(root, base, self._tick_script(root, base, job_id, code_path))

    def scripts(self, root: Path, token: str, submission: Submission, code_path: Path) -> dict[str, str]:
        """The texts that `submit` would hand to sbatch."""
        own = sbatch.script(self, root, token, submission.request, len(submission.jobs), code_path)
        tick = {"tick.sh": self._tick_script(root, token, "JOBID", code_path)} if self.tick_job else {}
        return {"submission.sh": own} | tick

    def _tick_script(self, root: Path, token: str, job_id: str, code_path: Path) -> str:
        there = replace(self, partition=self.tick_partition or self.partition)
        return sbatch.tick_script(self, root, token, job_id, code_path, there._node(self._cluster_or_none(), Resources(), ""))

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """By one call of squeue and one of sacct, for all tokens."""
        from orchestrator.slurm import queue

        names: dict[str, list[str]] = defaultdict(list)
        for token in tokens:
            names[token.partition("/")[0]].append(token)
        ids = {base: job_id for base in names if (job_id := _job_id(root, base))}
        return queue.states(names, ids, use_sacct=self.use_sacct)

    def untended(self, root: Path, base: str) -> str:
        """By what became of the job that is to tick."""
        if not self.tick_job:
            return "launcher.tick_job is false"
        try:
            error = files.read(taskdir.batch_dir(root, base) / "tick.json").get("error", "")
        except (FileNotFoundError, Garbled):
            return "the command that submitted was ended before it sent the job that ticks"
        return f"the job that ticks could not be sent ({error})" if error else ""

    def positions(self, waiting: Mapping[str, JobState]) -> dict[str, JobState]:
        """By one more squeue, for the jobs of all users."""
        from orchestrator.slurm import queue

        try:
            return queue.positions(waiting)
        except SchedulerSilent:
            return dict(waiting)

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """Waiting jobs at once; running ones are told to end, and killed in a call after the grace."""
        from orchestrator.slurm import ending

        ending.cancel(root, self.states(root, tokens), self.grace_seconds)

    # -- what the cluster offers ------------------------------------------------------------------------------------------

    def cluster(self) -> "Cluster | None":
        """As it says itself, else as `partitions` says; None: nobody knows. Raises SchedulerSilent."""
        if not has_sbatch() and not self.partitions:
            return None
        from orchestrator.slurm.inventory import Cluster

        return Cluster.read() if has_sbatch() else Cluster.from_profile(self.partitions or {})

    def _cluster_or_none(self) -> "Cluster | None":
        try:
            return self.cluster()
        except SchedulerSilent:
            return None

    def larger_gpus(self) -> Sequence[str]:
        """As given."""
        return self.larger_gpu_types

    def most_memory_gib(self) -> float:
        """Of the largest node of the partition."""
        return max((one.memory_gib for one in self._partitions(self._cluster_or_none()).values()), default=float("inf"))

    def num_slots(self) -> int:
        """Tasks of one CPU, as far as the partition and `max_jobs` have room."""
        allowed = self.max_jobs * (self.slots or packing.MOST_CPU_SLOTS)
        cpus = max((one.nodes * one.cpus_per_node for one in self._partitions(self._cluster_or_none()).values()), default=allowed)
        return max(1, min(allowed, cpus))

    def check_jobs(self, root: Path, tasks: Sequence[Task], *, submitting: bool) -> str:
        """Raise ConfigError where jobs of these tasks could never run; what could not be checked, in words.

        `tasks`: one of each shape is enough. `submitting`: a cluster must be there.
        """
        from orchestrator.slurm.check import check

        cluster, unchecked = self._known_cluster(submitting)
        problems = self._hidden_from_nodes(root)
        if cluster is not None:
            alone = packing.cut(tasks, self, lambda resources, gpu_type: self._node(cluster, resources, gpu_type), {})
            problems += [problem for one in alone for problem in check(cluster, self, one.request)]
            problems += list(self._missing_larger_gpus(cluster, [one.request for one in alone]))
            if self.tick_job and self.tick_partition:
                there = replace(self, partition=self.tick_partition, constraint=None, gpu_type=None)
                found = (
                    problem.replace("launcher.partition=", "launcher.tick_partition=") for problem in check(cluster, there, _TICK_REQUEST)
                )
                problems += [f"launcher.tick_partition: {problem}" for problem in found]
            if not problems and has_sbatch():
                texts = [sbatch.script(self, root, "check", one.request, 1, root) for one in alone[:_TRIED]]
                told = dict.fromkeys(filter(None, map(sbatch.refusal, texts)))
                problems += [
                    f"the cluster would not take such a job ({one}): change the setting of the launcher that it names" for one in told
                ]
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        return unchecked

    def _known_cluster(self, submitting: bool) -> "tuple[Cluster | None, str]":
        """What is known of the cluster, and how far that is a promise."""
        if submitting and not has_sbatch():
            raise ConfigError(
                "there is no sbatch on PATH, so nothing can be submitted to SLURM from here: submit on a login node of the cluster, "
                "or with launcher=local on this machine (`eigensweep plan` works here)"
            )
        try:
            cluster, why = self.cluster(), "there is no sbatch on PATH"
        except SchedulerSilent as error:
            if submitting:
                raise SchedulerSilent(f"{error}; nothing was submitted: run the same `eigensweep submit` again once it answers") from None
            cluster, why = None, str(error)
        if cluster is None:
            return None, f"not checked against a cluster: {why}, and the site has no `partitions:` to plan by"
        return cluster, "" if has_sbatch() else f"not checked against a cluster, only against the site's `partitions:`: {why}"

    def _missing_larger_gpus(self, cluster: "Cluster", requests: Sequence[dict[str, Any]]) -> Iterator[str]:
        """What the cluster does not offer of the GPUs that tasks may come to need."""
        from orchestrator.slurm.check import check

        for gpu_type in self.larger_gpu_types:
            for request in requests:
                for problem in check(cluster, self, request | {"gpu_type": gpu_type}) if request["gpus"] else ():
                    yield f"launcher.larger_gpu_types: {problem.replace('launcher.gpu_type=', 'launcher.larger_gpu_types=')}"

    def _hidden_from_nodes(self, root: Path) -> list[str]:
        """Why the nodes would not see the store or the interpreter."""
        problems = []
        if why := unseen(root, self.shared):
            problems.append(
                f"the nodes do not see the store: {why}; make one on a shared file system (eigensweep init DIR)"
                + ("" if self.shared else ", or, where the nodes do see it, say so: launcher.shared=[DIR]")
            )
        # not by `shared`: each node may have an interpreter of its own in /usr
        python = Path(self.python or sys.executable)
        if not self.container and not any(python.is_relative_to(folder) for folder in self.shared) and (why := unseen(python)):
            problems.append(f"the nodes do not see the interpreter: {why}; name one that they have, launcher.python=...")
        return problems

    def _chunk(self, cluster: "Cluster | None") -> int:
        limits = [MOST_JOBS_PER_CALL, cluster.max_array_size if cluster else None, self.chunk]
        return max(1, min(limit for limit in limits if limit))

    def _node(self, cluster: "Cluster | None", resources: Resources, gpu_type: str) -> packing.Node:
        """The smallest kind of node on which such a task fits."""
        nodes = [
            packing.Node(
                cpus=min(kind.cpus, partition.cpus_per_node),
                memory_gib=min(kind.memory_gib, partition.memory_gib),
                gpus=_gpus(kind.gpus, gpu_type),
                minutes=partition.max_minutes,
            )
            for name, partition in self._partitions(cluster).items()
            for kind in (cluster.kinds if cluster else ())
            if name in kind.partitions
        ]
        return min(
            [node for node in nodes if packing.fits(1, resources, self, node)] or nodes,
            key=lambda node: (node.cpus, node.memory_gib, node.minutes or float("inf")),
            default=packing.Node(),
        )

    def _partitions(self, cluster: "Cluster | None") -> "dict[str, Partition]":
        """Those that the jobs may go to, by name."""
        if cluster is None:
            return {}
        # as sbatch itself does
        names = (self.partition or os.environ.get("SBATCH_PARTITION") or cluster.default_partition).split(",")
        return {name: cluster.partitions[name] for name in names if name in cluster.partitions}


def _gpus(by_type: Mapping[str, int] | None, gpu_type: str) -> int | None:
    """Of a node; without a type all of them."""
    if by_type is None:
        return None
    return by_type.get(gpu_type, 0) if gpu_type else sum(by_type.values())


def has_sbatch() -> bool:
    """Whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None


def _job_id(root: Path, base: str) -> str:
    """The scheduler's id of a submission; empty where its answer was lost."""
    try:
        return str(files.read(taskdir.job_path(root, base))["job_id"])
    except (FileNotFoundError, Garbled):
        return ""
