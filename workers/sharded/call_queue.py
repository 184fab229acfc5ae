"""Which worker takes which call next: calls of one affinity stay together, and a free worker takes the longest of the others."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class CallQueue:
    """The calls that wait, by affinity, in their order; None is no affinity: anybody may take such a call.

    `helps_from`: where all affinities have a worker, another one takes calls from the end of the longest if at least so many wait there.
    """

    affinities: Sequence[int | None]
    helps_from: int | None = None
    waiting: dict[int | None, deque[int]] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, affinity in enumerate(self.affinities):
            self.waiting.setdefault(affinity, deque()).append(index)

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def take(self, worker: int) -> int | None:
        """The next call for a worker; None: there is none that it may take."""
        own = [affinity for affinity, owner in self.owners.items() if owner == worker and self.waiting[affinity]]
        if own:
            return self.waiting[own[0]].popleft()
        free = [affinity for affinity, calls in self.waiting.items() if calls and affinity not in self.owners]
        if free:
            longest = max(free, key=lambda affinity: len(self.waiting[affinity]))
            if longest is not None:
                self.owners[longest] = worker
            return self.waiting[longest].popleft()
        return self._help()

    def _help(self) -> int | None:
        longest = max(self.waiting.values(), key=len, default=deque[int]())
        return longest.pop() if self.helps_from is not None and len(longest) >= max(1, self.helps_from) else None

    def put_back(self, index: int) -> None:
        """A call that was taken and not done; it comes before those after it."""
        calls = self.waiting[self.affinities[index]]
        calls.append(index)
        self.waiting[self.affinities[index]] = deque(sorted(calls))

    def release(self, worker: int) -> None:
        """Leave a dead worker's affinities to others."""
        self.owners = {affinity: owner for affinity, owner in self.owners.items() if owner != worker}
