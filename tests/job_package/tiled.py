"""A kernel of ones in tiles by Ray, whose engine waits, dies and leaves a file for every tile that it begins, as a test wants."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from workers.context import Context
from workers.sharded.panels import Panels
from workers.workload import Row, Workload, setting


@dataclass(frozen=True, kw_only=True)
class Tiled(Workload):
    """Ten tiles; those that begin after `free` others wait for a file `go`; the first `deaths` that begin the tile (1, 2) die of it."""

    deterministic: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-6

    folder: str = setting("", identity=False, help="where files begun-I-J-N and `go` are")
    address: str | None = setting(None, identity=False)
    ranks: int = setting(2, identity=False)
    free: int = setting(100, identity=False)
    deaths: int = setting(0, identity=False)

    def run(self, context: Context) -> Iterator[Row]:
        """The number of tiles."""
        from workers.sharded.making import Workforce, make_tiles

        workforce = Workforce(ranks_per_node=self.ranks, memory_gib=0.1, ray=True, ray_address=self.address)
        yield Row(name="num_tiles", value=len(make_tiles(context, Panels(8, 2), "float64", workforce).facts))

    @contextlib.contextmanager
    def kernel_tiles(self, context: Context, memory_gib: float) -> Iterator["_Engine"]:
        """As of a true one."""
        yield _Engine(self)


@dataclass(frozen=True)
class _Engine:
    about: Tiled

    def tile(self, row: int, column: int) -> Any:
        """Ones."""
        import torch

        folder = Path(self.about.folder)
        times = len(list(folder.glob(f"begun-{row}-{column}-*")))
        (folder / f"begun-{row}-{column}-{times}").write_text(str(os.getpid()))
        if (row, column) == (1, 2) and times < self.about.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if _number(folder) >= self.about.free:
            while not (folder / "go").exists():
                time.sleep(0.01)
        return torch.ones(2, 2, dtype=torch.float64)


def _number(folder: Path) -> int:
    """How many came here before; no two get the same answer."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            (folder / f"number-{number}").touch(exist_ok=False)
            return number
    raise AssertionError
