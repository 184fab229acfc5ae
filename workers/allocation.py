"""What SLURM has given to this job, as its environment says: nodes, CPUs, memory, GPUs and time; and how it asks SLURM to run it again."""

import itertools
import os
import re
import subprocess
import time
from dataclasses import dataclass

SCONTROL_SECONDS = 30.0
_NO_GPU = ("NoDevFiles", "-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One run of a SLURM job on its first node. `cpus`, `memory_gib` and `gpus` are of each node; None: SLURM does not say.

    `job_id`: `123`, or `123_4` for an element of a job array. `restarts`: how often SLURM has run the job before. `node`: this one, by
    its name in SLURM. `gpus`: as CUDA_VISIBLE_DEVICES names them (numbers, `GPU-...`, `MIG-...`). `starts`, `ends`: seconds since
    the epoch.
    """

    job_id: str
    restarts: int = 0
    node: str = ""
    nodes: tuple[str, ...] = ()
    cpus: int | None = None
    memory_gib: float | None = None
    gpus: tuple[str, ...] = ()
    starts: float = 0.0
    ends: float | None = None

    @classmethod
    def of_process(cls, token: str) -> "Allocation | None":
        """The run that this process is; None where it is no SLURM job of this batch (which has its name), be it inside another's."""
        environment = os.environ
        if "SLURM_JOB_ID" not in environment or environment.get("SLURM_JOB_NAME") != token.partition("/")[0]:
            return None
        nodes = expand(environment.get("SLURM_JOB_NODELIST", ""))
        cpus = _number("SLURM_CPUS_ON_NODE")
        return cls(
            job_id=_job_id(),
            restarts=int(_number("SLURM_RESTART_COUNT") or 0),
            node=environment.get("SLURMD_NODENAME") or (nodes or (os.uname().nodename,))[0],
            nodes=nodes or (os.uname().nodename,),
            cpus=None if cpus is None else int(cpus),
            memory_gib=_memory_gib(cpus),
            gpus=gpu_tokens(environment.get("CUDA_VISIBLE_DEVICES", "")),
            starts=_number("SLURM_JOB_START_TIME") or time.time(),
            ends=_number("SLURM_JOB_END_TIME"),
        )

    def seconds_left(self, minutes: float) -> float:
        """Until SLURM ends this run; `minutes` is the time limit that was asked for, where SLURM itself does not say."""
        return (self.ends or self.starts + 60.0 * minutes) - time.time()

    def to_plain(self) -> dict[str, object]:
        """What tells this run from others in its receipt."""
        return {"job_id": self.job_id, "restart": self.restarts, "node": self.node}

    def requeue(self) -> str:
        """Have SLURM run this job again; why it does not, empty where it does.

        Only a job that SLURM holds for running: one that the user has just cancelled would be brought back to life.
        """
        shown, why = _scontrol("show", "job", self.job_id)
        state = re.search(r"JobState=(\w+)", shown)
        if state is None or state[1] != "RUNNING":
            return why or f"SLURM says that the job is {state[1] if state else 'unknown'}"
        return _scontrol("requeue", self.job_id)[1]


def expand(nodelist: str) -> tuple[str, ...]:
    """Host names of SLURM's short form: `n[1-2,07],login` -> n1, n2, n07, login."""
    names: list[str] = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        pieces = [_range(piece[1:-1]) if piece[0] == "[" else [piece] for piece in re.findall(r"\[[^\]]*\]|[^\[]+", word)]
        names += ["".join(parts) for parts in itertools.product(*pieces)]
    return tuple(names)


def _range(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return found


def gpu_tokens(visible: str) -> tuple[str, ...]:
    """The devices that a value of CUDA_VISIBLE_DEVICES names, as texts: numbers, `GPU-...` or `MIG-...`."""
    words = [word.strip() for word in visible.split(",")]
    return tuple(word for word in words if word and word not in _NO_GPU)


def _job_id() -> str:
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ["SLURM_JOB_ID"]


def _memory_gib(cpus: float | None) -> float | None:
    """SLURM tells the memory in the terms in which it was asked for, in MiB."""
    if of_node := _number("SLURM_MEM_PER_NODE"):
        return of_node / 1024
    if (of_cpu := _number("SLURM_MEM_PER_CPU")) and cpus:
        return of_cpu * cpus / 1024
    if (of_gpu := _number("SLURM_MEM_PER_GPU")) and (gpus := _number("SLURM_GPUS_ON_NODE")):
        return of_gpu * gpus / 1024
    return None


def _number(name: str) -> float | None:
    try:
        return float(os.environ[name])
    except (KeyError, ValueError):
        return None


def _scontrol(*words: str) -> tuple[str, str]:
    """Output of `scontrol`, and why it failed."""
    try:
        done = subprocess.run(
            ["scontrol", *words], capture_output=True, text=True, timeout=SCONTROL_SECONDS, env={**os.environ, "LC_ALL": "C"}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, "" if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"
