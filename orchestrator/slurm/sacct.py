"""What sacct has recorded: every run of a job, with its exit code, peak memory and who cancelled it. It lags some seconds."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.slurm import reasons
from orchestrator.slurm.brackets import hosts, indices
from orchestrator.slurm.commands import call

# the name is free text, so it comes last
_FIELDS = "JobID State ExitCode DerivedExitCode ElapsedRaw TimelimitRaw MaxRSS ConsumedEnergyRaw NodeList DBIndex JobName".split()
_SACCT = ["sacct", "--noheader", "--duplicates", "--parsable2", f"--format={','.join(_FIELDS)}"]
# how far to look back for jobs whose id is not known, and how long a list of those to ask for may be (a word has at most 128 KiB)
_DAYS = 30
_MOST_BYTES = 100_000
# of more elements of an array than these, all are asked for
_MOST_ELEMENTS = 200

_UNITS = {"K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}
# SLURM counts out of memory as this signal
_OUT_OF_MEMORY = -125
# a meter that failed says something near 2^64
_MOST_JOULES = 1e15


@dataclass(slots=True)
class Run:
    """One run of a job: from its start to its end, or to the next requeue."""

    job_id: str
    word: str
    cancelled_by: int | None
    exit_code: int | None
    out_of_memory: bool
    seconds: float | None
    limit_seconds: float | None
    energy_joules: float | None
    nodes: tuple[str, ...]
    order: int
    peak_memory_mib: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether this record will not change."""
        return self.word in reasons.CAUSES or self.word == "REQUEUED"

    def cause(self, uid: int) -> str:
        """What it did to the tasks that it left unended; `uid`: whose job it was."""
        if self.word == "CANCELLED":
            return "cancelled" if self.cancelled_by == uid else "killed"
        if self.out_of_memory:
            return "host_oom"
        if self.word != "COMPLETED" and (not self.nodes or self.exit_code in reasons.NOT_BEGUN):
            return "never_started"
        # requeued by hand: like a preemption, it goes on from where it was
        return "preempted" if self.word == "REQUEUED" else reasons.CAUSES.get(self.word, "")


@dataclass(slots=True)
class Records:
    """The runs of each batch token, oldest first, and the ids of the submissions of which anything is recorded."""

    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    ids: dict[str, str] = field(default_factory=dict)


def records(
    tokens: Mapping[str, Collection[str]], job_ids: Mapping[str, str], whole: Collection[str], *, own: bool, timeout_seconds: float
) -> Records:
    """What is recorded of the tokens of each name, by one call. Raises SchedulerSilent.

    `job_ids`: ids of the submissions by name, as far as known. `whole`: names to ask for as a whole, not by element: elements that
    were cancelled while they waited have no record of their own. `own`: the jobs are this user's.
    """
    found = Records()
    current: list[Run] = []
    options = [*_selection(tokens, job_ids, whole), *([] if own else ["--allusers"])]
    for line in call([*_SACCT, *options], timeout_seconds).splitlines():
        parts = line.split("|", len(_FIELDS) - 1)
        if len(parts) < len(_FIELDS):
            continue
        job_id, _, step = parts[0].partition(".")
        if step:
            _add_step(current, job_id, parts)
        else:
            current = _filed(found, job_id, parts, tokens.get(parts[-1]))
    for runs in found.runs.values():
        runs.sort(key=lambda run: run.order)
    return found


def _selection(tokens: Mapping[str, Collection[str]], job_ids: Mapping[str, str], whole: Collection[str]) -> list[str]:
    """Options that choose these jobs, and perhaps others."""
    if all(name in job_ids for name in tokens):
        ids = ",".join(one for name, own in tokens.items() for one in _ids(job_ids[name], own, name in whole))
        if len(ids) <= _MOST_BYTES:
            return [f"--jobs={ids}"]
    names = ",".join(tokens)
    return [f"--starttime=now-{_DAYS}days", *([f"--name={names}"] if len(names) <= _MOST_BYTES else [])]


def _ids(job_id: str, tokens: Collection[str], whole: bool) -> Sequence[str]:
    elements = [token.partition("/")[2] for token in tokens]
    return [job_id] if whole or not all(elements) or len(elements) > _MOST_ELEMENTS else [f"{job_id}_{index}" for index in elements]


def _filed(found: Records, job_id: str, parts: Sequence[str], tokens: Collection[str] | None) -> list[Run]:
    """The runs that a line tells of, now among those found; none where the job is not of interest."""
    if tokens is None:
        return []
    name = parts[-1]
    base, _, index = job_id.partition("_")
    found.ids[name] = base
    run = _run(job_id, parts)
    if index.startswith("["):  # elements that never began share one record
        ranges = indices(index)
        own = [f"{name}/{i}" for one in ranges for i in one] if run.has_ended else []
        runs = {token: replace(run, job_id=f"{base}_{token.rpartition('/')[2]}") for token in own if token in tokens}
    else:
        runs = {token: run for token in [f"{name}/{index}" if index else name] if token in tokens}
    for token, one in runs.items():
        found.runs[token].append(one)
    return list(runs.values())


def _run(job_id: str, parts: Sequence[str]) -> Run:
    _, state, code, derived, seconds, minutes, _, energy, nodes, order, _ = parts
    word, _, by = state.partition(" by ")
    exit_code = status(code)
    joules = _number(energy)
    minutes_allowed = _number(minutes)
    return Run(
        job_id=job_id,
        word=_whole_word(word),
        cancelled_by=int(by) if by.isdecimal() else None,
        exit_code=exit_code,
        out_of_memory=word.startswith("OUT_OF_ME") or _OUT_OF_MEMORY in (exit_code, status(derived)),
        seconds=_number(seconds),
        limit_seconds=None if minutes_allowed is None else 60 * minutes_allowed,
        energy_joules=joules if joules and joules < _MOST_JOULES else None,
        nodes=hosts(nodes),
        order=int(order) if order.isdecimal() else 0,
    )


def _whole_word(word: str) -> str:
    """A state that was cut short (`OUT_OF_ME+`) in full."""
    cut = word.removesuffix("+")
    return next((one for one in reasons.CAUSES if one.startswith(cut)), word) if cut != word else word


def _add_step(runs: Sequence[Run], job_id: str, parts: Sequence[str]) -> None:
    """What a step of a run adds: the job itself has neither peak memory nor, with srun, the word that it was too much."""
    for run in runs:
        if run.job_id == job_id:
            peak = _mib(parts[6])
            if peak is not None:
                run.peak_memory_mib = max(peak, run.peak_memory_mib or 0.0)
            run.out_of_memory |= parts[1].startswith("OUT_OF_ME")


def status(text: str) -> int | None:
    """An exit code such as `3:0`, where squeue before SLURM 23.02 has the raw 768; below zero: the signal."""
    code, colon, number = text.partition(":")
    if colon and code.isdecimal() and number.isdecimal():
        return -int(number) or int(code)
    if code.isdecimal():
        return -(int(code) & 0x7F) or int(code) >> 8 & 0xFF
    return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _mib(text: str) -> float | None:
    """Memory with its unit; 0 says that the job ended before it was first looked at."""
    number = _number(text.rstrip("KMGT"))
    return None if not number else number * _UNITS.get(text[-1], 2.0**-20)
