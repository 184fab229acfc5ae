"""What looked like the end of a job and is to be looked at again: noted on this host, by its own clock, for this host alone."""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from workers.processes import boot_id, host_dir


@dataclass(slots=True)
class Doubts:
    """Token -> (mark, when this host first saw it so, on the clock of its boot). A mark says what was seen; another one begins anew."""

    path: Path
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, root: Path) -> "Doubts":
        """Those that earlier processes of this host and boot have noted about a store."""
        name = hashlib.blake2b(f"{root.resolve()} {boot_id()}".encode(), digest_size=8).hexdigest()
        doubts = cls(host_dir() / f"doubts-{name}.json")
        with contextlib.suppress(OSError, ValueError, TypeError):
            doubts.seen = {token: (str(mark), float(since)) for token, (mark, since) in json.loads(doubts.path.read_text()).items()}
        return doubts

    def is_confirmed(self, token: str, mark: str, seconds: float) -> bool:
        """Whether the same was seen of the batch at least `seconds` ago, with nothing else in between; noted for the next look if not."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        before = self.seen.get(token)
        if before is None or before[0] != mark:
            before = self.seen[token] = (mark, now)
        self.unsettled.discard(token)
        if now - before[1] >= seconds:
            return True
        self.unsettled.add(token)
        return False

    def forget(self, token: str) -> None:
        """It is alive, or closed."""
        self.seen.pop(token, None)
        self.unsettled.discard(token)

    def save(self) -> None:
        """For the next process of this host; what is lost here only costs time."""
        if not self.seen and not self.path.exists():
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(self.seen))
            os.replace(temporary, self.path)
