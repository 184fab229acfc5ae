"""What squeue lists: the jobs that SLURM's controller knows, also those that ended in the last minutes (MinJobAge)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.slurm import reasons
from orchestrator.slurm.brackets import indices
from orchestrator.slurm.commands import call


class Row(NamedTuple):
    """A job, or an element of an array, as squeue prints it."""

    name: str
    array_id: str
    element: str
    word: str
    exit_code: str
    requeue: str
    restart_count: str
    used: str
    limit: str
    start: str
    nodes: str
    reason: str

    @property
    def job_id(self) -> str:
        """`123`, or `123_4` for an element of an array."""
        return f"{self.array_id}_{self.element}" if self.element.isdecimal() else self.array_id

    @property
    def token(self) -> str:
        """Of the batch that this job runs."""
        return f"{self.name}/{self.element}" if self.element.isdecimal() else self.name

    @property
    def restarts(self) -> int:
        """How often it was requeued."""
        return int(self.restart_count) if self.restart_count.isdecimal() else 0

    @property
    def start_estimate(self) -> str:
        """When it began or is to begin, in the cluster's local time; empty: not known."""
        return "" if self.start in ("N/A", "Unknown", "") else self.start

    @property
    def is_alive(self) -> bool:
        """Whether it may yet run or does; a word that is not known here counts as alive."""
        return self.word not in reasons.CAUSES


# a width of none prints a field in full; the reason is free text, so it comes last
_FIELDS = "Name ArrayJobID ArrayTaskID State exit_code Requeue RestartCnt TimeUsed TimeLimit StartTime NodeList Reason".split()
_SQUEUE = ["squeue", "--noheader", "--array", "--all", "--states=all", f"--Format={','.join(f'{name}:|' for name in _FIELDS)}"]


@dataclass(slots=True)
class Listing:
    """The jobs of interest by batch token, the id of each submission, and jobs that share their token with another that lives."""

    rows: dict[str, Row] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)


def jobs(names: Collection[str], uid: int, timeout_seconds: float) -> Listing:
    """All jobs of a user that have one of these names. Raises SchedulerSilent."""
    found = Listing()
    for line in call([*_SQUEUE, f"--user={uid}"], timeout_seconds).splitlines():
        parts = line.split("|", 11)
        if parts[0] not in names or len(parts) < 12:
            continue
        parts[11] = parts[11].removesuffix("|")
        row = Row._make(parts)
        found.ids[row.name] = row.array_id
        token = row.token
        other = found.rows.setdefault(token, row)
        if other is not row:
            _settle(found, token, row, other)
    return found


def _settle(found: Listing, token: str, row: Row, other: Row) -> None:
    """Of two jobs of one name, which must not be, the one that runs counts; a sibling of a federation shows as revoked."""
    first, second = sorted((row, other), key=_rank, reverse=True)
    found.rows[token], found.ids[first.name] = first, first.array_id
    if second.is_alive and second.word != "REVOKED":
        found.twins[token] = second.job_id


def _rank(row: Row) -> tuple[int, int]:
    place = 0 if not row.is_alive or row.word == "REVOKED" else 1 if row.word in reasons.WAITING else 2
    return place, int(row.array_id) if row.array_id.isdecimal() else 0


# -- the queue ----------------------------------------------------------------------------------------------------------

_QUEUE = ["squeue", "--noheader", "--states=PENDING", "--Format=ArrayJobID:|,ArrayTaskID:|,Partition:|,PriorityLong:|"]


def places(job_ids: Collection[str], timeout_seconds: float) -> dict[str, tuple[int, int]]:
    """Place of waiting jobs among all that wait in their partition, and how many those are; held jobs have none. Raises SchedulerSilent."""
    wanted = {job_id.partition("_")[0] for job_id in job_ids}
    queues: dict[str, list[tuple[int, int, str]]] = {}
    for line in call(_QUEUE, timeout_seconds).splitlines():
        parts = line.split("|")
        if len(parts) >= 4 and parts[0].isdecimal() and parts[3].isdecimal() and int(parts[3]) > 0:
            queues.setdefault(parts[2].partition(",")[0], []).append((-int(parts[3]), int(parts[0]), parts[1]))
    found: dict[str, tuple[int, int]] = {}
    for queue in queues.values():
        found |= _places_in(sorted(queue), wanted)
    return {job_id: place for job_id, place in found.items() if job_id in job_ids}


def _places_in(queue: Sequence[tuple[int, int, str]], wanted: Collection[str]) -> Mapping[str, tuple[int, int]]:
    found: dict[str, int] = {}
    place = 0
    for _, number, expression in queue:
        elements = [index for one in indices(expression) for index in one]
        if str(number) in wanted:
            found |= {f"{number}_{index}": place + i for i, index in enumerate(elements, 1)} if elements else {str(number): place + 1}
        place += len(elements) or 1
    return {job_id: (one, place) for job_id, one in found.items()}
