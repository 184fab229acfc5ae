"""Leaves what each Python process has used, as it ends, in the folder EIGENSWEEP_USED; Python imports it from a folder on PYTHONPATH."""

import atexit
import json
import os
import sys
import time
from pathlib import Path


def leave(folder: Path) -> None:
    """Processor seconds of all threads, and the highest resident memory."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else Path(sys.argv[0]).name
    used = {
        "module": module,
        "node": os.uname().nodename,
        "rank": int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("RANK") or 0),
        "cpu_seconds": time.process_time(),
        "peak_bytes": 1024 * int(status["VmHWM"].split()[0]),
    }
    (folder / f"{os.uname().nodename}-{os.getpid()}.json").write_text(json.dumps(used))


if os.environ.get("EIGENSWEEP_USED"):
    atexit.register(leave, Path(os.environ["EIGENSWEEP_USED"]))
