"""Tasks that run `true` on HyperQueue: `python hyperqueue_true.py FOLDER NUM_TASKS files|none`; prints its own seconds as JSON.

`none`: no output is kept; the seconds are its client's, which looks once a second. `files`: an output and an error file a task, as it does
by default; the seconds are those until the last of these files was written, which does it more justice.
"""

import json
import os
import shutil
import sys
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

SLOTS = 2


def main(folder: str, num_tasks: str, output: str) -> int:
    """Run all, and print the seconds from the submission to the last end (the cluster's start and stop are not in them)."""
    program = shutil.which("true") or "true"
    kept = {} if output == "files" else {"stdout": None, "stderr": None}
    with LocalCluster(worker_config=WorkerConfig(cores=SLOTS)) as cluster:
        client = cluster.client()
        job = Job(default_workdir=folder)
        for _ in range(int(num_tasks)):
            job.program([program], **kept)
        begun = time.time()
        good = client.wait_for_jobs([client.submit(job)])
        ended = time.time()
    if output == "files":
        times = [entry.stat().st_mtime for entry in _files(folder)]
        ended, good = max(times), good and len(times) == 2 * int(num_tasks)
    print(json.dumps({"seconds": ended - begun, "tasks": int(num_tasks)}))
    return 0 if good else 1


def _files(folder: str) -> list[os.DirEntry[str]]:
    found = []
    for entry in os.scandir(folder):
        found += _files(entry.path) if entry.is_dir() else [entry]
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
