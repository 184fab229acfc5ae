"""No-op tasks through submitit's local executor: `python submitit_local.py FOLDER NUM_TASKS single|packed`; prints its own seconds as JSON.

`single`: a job a task, two at a time. `packed`: two jobs, each a FunctionSequence of half of the tasks.
"""

import json
import sys
import time
from typing import Any

from submitit import LocalExecutor, helpers

SLOTS = 2
POLL_SECONDS = 0.005


def noop(index: int) -> dict[str, float]:
    """The three numbers of a no-op task."""
    return {"index": float(index), "square": float(index**2), "total": float(index)}


def single(executor: LocalExecutor, num_tasks: int) -> list[Any]:
    """Start a job as soon as one of two has ended; submitit's own wait looks once a second, which would be unfair to it."""
    running: list[Any] = []
    ended: list[Any] = []
    for index in range(num_tasks):
        while len(running) == SLOTS:
            _sort_out(running, ended)
        running.append(executor.submit(noop, index))
    while running:
        _sort_out(running, ended)
    return [job.result() for job in ended]


def _sort_out(running: list[Any], ended: list[Any]) -> None:
    done = [job for job in running if job.done()]
    for job in done:
        running.remove(job)
    ended += done
    if not done:
        time.sleep(POLL_SECONDS)


def packed(executor: LocalExecutor, num_tasks: int) -> list[Any]:
    """Two jobs, each of which calls half of the functions in a row and keeps one pickle of all results at its end."""
    jobs = []
    for slot in range(SLOTS):
        sequence = helpers.FunctionSequence()
        for index in range(slot, num_tasks, SLOTS):
            sequence.add(noop, index)
        jobs.append(executor.submit(sequence))
    while not all(job.done() for job in jobs):
        time.sleep(POLL_SECONDS)
    return [result for job in jobs for result in job.result()]


def main(folder: str, num_tasks: str, mode: str) -> int:
    """Run, check that every result is there, and print the seconds from the first submission to the last result."""
    executor = LocalExecutor(folder)
    executor.update_parameters(timeout_min=60)
    begun = time.perf_counter()
    results = {"single": single, "packed": packed}[mode](executor, int(num_tasks))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "tasks": len(results)}))
    return 0 if sorted(result["index"] for result in results) == list(range(int(num_tasks))) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
