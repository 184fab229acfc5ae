"""What the disk allows: `python bare_loop.py FOLDER NUM_FILES PROCESSES BYTES plain|folder`; prints its own seconds as JSON.

Each file is written aside, synced and linked into place, in one folder a process; `folder`: its folder is synced too, and the name aside
removed, as a store does. No checks, no retries, no JSON.
"""

import json
import multiprocessing
import os
import sys
import time


def loop(folder: str, num_files: int, size: int, mode: str) -> None:
    """Publish `num_files` files of `size` bytes."""
    os.makedirs(folder)
    data = b"x" * size
    for index in range(num_files):
        aside, path = f"{folder}/.{index}", f"{folder}/{index}.json"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
        os.link(aside, path)
        if mode == "folder":
            os.unlink(aside)
            _sync(folder)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def main(folder: str, num_files: str, num_processes: str, size: str, mode: str) -> int:
    """Run the loop in one or more processes and print the seconds."""
    each = int(num_files) // int(num_processes)
    begun = time.perf_counter()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=loop, args=(f"{folder}/{i}", each, int(size), mode)) for i in range(int(num_processes))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"seconds": time.perf_counter() - begun, "tasks": each * int(num_processes)}))
    return max(worker.exitcode or 0 for worker in workers)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
