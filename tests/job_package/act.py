"""A workload that behaves as a test wants: it waits for files, spawns, prints, and ends in every way."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from workers.context import Context
from workers.errors import Interrupted
from workers.workload import Row, Rows, Workload, setting


@dataclass(frozen=True, kw_only=True)
class Act(Workload):
    """What it does is its setting."""

    tolerance: ClassVar[float] = 1e-6
    deterministic: ClassVar[bool] = False

    do: str = setting("rows")
    index: int = setting(0)
    file: str = setting("", help="a file that it reads or waits for")

    def run(self, context: Context) -> Iterator[Row | Rows]:
        """Do it, then one row."""
        print(f"act {self.do} {self.index}", flush=True)
        yield from getattr(self, f"_{self.do}")(context) or ()
        yield Row(name="index", value=float(self.index))

    def _rows(self, context: Context) -> None:
        pass

    def _many(self, context: Context) -> Iterator[Rows]:
        yield Rows(table="act.curve", columns={"step": list(range(10_000)), "value": [1 / 3] * 10_000, "name": ["curve"] * 10_000})

    def _read(self, context: Context) -> Iterator[Row]:
        yield Row(name="read", value=float(Path(self.file).read_text()))

    def _wait(self, context: Context) -> None:
        while not os.path.exists(self.file):
            time.sleep(0.01)

    def _obey(self, context: Context) -> None:
        context.stop.wait(60)
        raise Interrupted("told to stop")

    def _fail(self, context: Context) -> None:
        raise KeyError(f"index {self.index}")

    def _exit(self, context: Context) -> None:
        sys.exit(3)

    def _full(self, context: Context) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _no_memory(self, context: Context) -> None:
        raise MemoryError

    def _grandchild(self, context: Context) -> None:
        """A process of its own takes the memory, and the task notices."""
        code = "import time\nheld = []\nwhile len(held) < 2000: held.append(b'x' * 2**20); time.sleep(0.001)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def _leave(self, context: Context) -> None:
        """Leaves a process behind, then dies."""
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", self.file])
        os._exit(7)

    def _gpu(self, context: Context) -> None:
        """Says which GPUs it may use."""
        Path(self.file).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        time.sleep(0.2)

    def _ranks(self, context: Context) -> None:
        """A rank that says its process id and goes on for ever."""
        code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
        assert context.launch([sys.executable, "-c", code, self.file]) == 0

    def _gang(self, context: Context) -> None:
        """Two ranks a node; each says where it runs."""
        code = (
            "import os, sys; names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'CUDA_VISIBLE_DEVICES')\n"
            "words = [os.uname().nodename, *(os.environ.get(name, '') for name in names)]\n"
            "open(f\"{sys.argv[1]}-{os.environ['RANK']}\", 'w').write(' '.join(words))"
        )
        assert context.launch([sys.executable, "-c", code, self.file], ranks_per_node=2) == 0

    def _environment(self, context: Context) -> Iterator[Row]:
        yield Row(name="gpus", value=float(len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))))
        yield Row(name="first_gpu", value=float(os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0] or -1))
        yield Row(name="threads", value=float(os.environ["OMP_NUM_THREADS"]))
        yield Row(name="cpus", value=float(len(os.sched_getaffinity(0))))
        yield Row(name="cuda", value=float(context.device == "cuda"))
        yield Row(name="torch", value=float("torch" in sys.modules or "numpy" in sys.modules))
