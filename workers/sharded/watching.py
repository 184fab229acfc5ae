"""What the processes of a task publish, looked at while they work: for a kernel's tiles progress, marks of it, and throughput."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from workers import files
from workers.context import Context
from workers.errors import DiskFull
from workers.launch import STILL

LOOK_SECONDS, MARK_SECONDS, LOG_SECONDS = 0.5, 10.0, 60.0
# a folder of many tiles is slow to list on a shared file system: so much of the time at most
MOST_LOOKING = 0.05


@contextlib.contextmanager
def looking(look: Callable[[], None]) -> Iterator[None]:
    """While the block runs, a thread looks every half second, and more rarely where a look takes long."""
    ended = threading.Event()

    def watch() -> None:
        wait = LOOK_SECONDS
        while not ended.wait(wait):
            began = time.monotonic()
            with STILL:
                look()
            wait = max(LOOK_SECONDS, (time.monotonic() - began) / MOST_LOOKING)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def watched(context: Context, names: Sequence[str], total: int) -> Iterator[None]:
    """While the block runs, tell how many of the tiles `names` are published, the last that were missing of `total`."""
    count = _Count(context, frozenset(f"{name}.part.json" for name in names), total)
    try:
        with looking(count.look):
            yield
    finally:
        count.look(is_last=True)


@dataclass(slots=True)
class _Count:
    """What has been told. A mark is an empty checkpoint whose step is the number of tiles: by it a task that is killed has got further."""

    context: Context
    marks: frozenset[str]
    total: int
    began: float = field(default_factory=time.monotonic)
    logged_at: float = field(default_factory=time.monotonic)
    marked_at: float = float("-inf")
    marked: int = 0

    def look(self, *, is_last: bool = False) -> None:
        """Count, and tell what is due."""
        new = len(self.marks.intersection(files.names(self.context.folder)))
        done, now = self.total - len(self.marks) + new, time.monotonic()
        speed = f"{new / (now - self.began):.3g} a second"
        left = f", about {(self.total - done) * (now - self.began) / new:.0f} s left" if new and done < self.total else ""
        self.context.progress(done, self.total, f"{done} of {self.total} tiles, {speed}{left}")
        if new > self.marked and (is_last or now - self.marked_at >= MARK_SECONDS):
            self.marked, self.marked_at = new, now
            with contextlib.suppress(DiskFull):  # whoever publishes tiles says so
                self.context.checkpoint(done, {})
        if is_last or now - self.logged_at >= LOG_SECONDS:
            self.logged_at = now
            self.context.log(f"{done} of {self.total} tiles; {new} in {now - self.began:.1f} s, {speed}")
