"""A workload whose tasks go together, without a network: they say how many they are, and end as a test wants."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from workers.context import Context
from workers.errors import Diverged, Interrupted
from workers.workload import Row, Workload, setting


@dataclass(frozen=True, kw_only=True)
class Choir(Workload):
    """Yields how many went together, and from which step each went on."""

    ensemble_axes: ClassVar[frozenset[str]] = frozenset({"index"})

    do: str = setting("rows")
    index: int = setting(0)
    ensemble: bool = False
    file: str = setting("", help="what it waits for")

    def run(self, context: Context) -> Iterator[Row]:
        """As a choir of one."""
        yield from (row for _, row in self.run_many([(self, context)]) if isinstance(row, Row))

    @classmethod
    def run_many(cls, members: "Sequence[tuple[Choir, Context]]") -> "Iterator[tuple[int, Row | Diverged | None]]":
        """Do it, then some rows of each."""
        steps = [getattr(context.restore(), "step", -1) for _, context in members]
        getattr(cls, f"_{members[0][0].do}")(members)
        for number, (choir, _) in enumerate(members):
            yield number, Row(name="size", value=len(members))
            yield number, Row(name="resumed", value=steps[number])
            yield number, Diverged("flat") if choir.do == "diverge" and choir.index == 1 else None

    @staticmethod
    def _rows(members: Any) -> None:
        pass

    _diverge = _rows

    @staticmethod
    def _wait(members: Any) -> None:
        choir, first = members[0]
        for _, context in members:
            context.checkpoint(5, {})
            context.progress(5, 10)
        while not os.path.exists(choir.file):
            if first.stopping:
                raise Interrupted("told to stop")
            time.sleep(0.01)

    @staticmethod
    def _die(members: Any) -> None:
        """Once, by the hand that also kills jobs."""
        choir, _ = members[0]
        for _, context in members:
            context.checkpoint(5, {})
        if not os.path.exists(choir.file):
            Path(choir.file).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _grow(members: Any) -> None:
        """More memory than one task asks for, where they are several."""
        room = bytearray(2**29 if len(members) > 1 else 1)
        room[:: 2**12] = b"x" * len(room[:: 2**12])
        time.sleep(0.0 if len(members) == 1 else 5.0)  # the watchdog looks now and then

    @staticmethod
    def _fill(members: Any) -> None:
        if len(members) > 1:
            raise RuntimeError("CUDA out of memory")

    @staticmethod
    def _fail(members: Any) -> None:
        """Through the fault of one."""
        if any(choir.index == 1 for choir, _ in members):
            raise KeyError("no choir")
