"""No-op tasks through submitit's SLURM executor: `python submitit_slurm.py FOLDER NUM_TASKS array|packed NUM_JOBS`; prints its own seconds.

`array`: `map_array`, an element of the job array a task. `packed`: an array of NUM_JOBS jobs, each a FunctionSequence of its share.
"""

import json
import sys
import time
from typing import Any

from submitit import SlurmExecutor, helpers

POLL_SECONDS = 0.05


def noop(index: int) -> dict[str, float]:
    """The three numbers of a no-op task."""
    return {"index": float(index), "square": float(index**2), "total": float(index)}


def array(executor: SlurmExecutor, num_tasks: int, num_jobs: int) -> list[Any]:
    """A job array with an element a task."""
    jobs = executor.map_array(noop, range(num_tasks))
    _wait(jobs)
    return [job.result() for job in jobs]


def packed(executor: SlurmExecutor, num_tasks: int, num_jobs: int) -> list[Any]:
    """Jobs that each call their share of the functions in a row and keep one pickle of all results at their end."""
    sequences = []
    for number in range(num_jobs):
        sequences.append(helpers.FunctionSequence())
        for index in range(number, num_tasks, num_jobs):
            sequences[-1].add(noop, index)
    jobs = executor.submit_array(sequences)
    _wait(jobs)
    return [result for job in jobs for result in job.result()]


def _wait(jobs: list[Any]) -> None:
    """Until all have ended; submitit's own wait looks once a second, which would be unfair to it."""
    while jobs := [job for job in jobs if not job.done()]:
        time.sleep(POLL_SECONDS)


def main(folder: str, num_tasks: str, mode: str, num_jobs: str) -> int:
    """Run, check that every result is there, and print the seconds from the submission to the last result."""
    executor = SlurmExecutor(folder)
    executor.update_parameters(time=60, cpus_per_task=1, mem="250MB", array_parallelism=10_000)
    begun = time.perf_counter()
    results = {"array": array, "packed": packed}[mode](executor, int(num_tasks), int(num_jobs))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "tasks": len(results)}))
    return 0 if sorted(result["index"] for result in results) == list(range(int(num_tasks))) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
