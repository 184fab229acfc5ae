"""Workers that are processes: what only these have, and that none outlives its pool, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import PYTHONPATH, REPOSITORY, is_gone, wait_for

from workers.errors import ConfigError
from workers.sharded.pool import Call, WorkerLost
from workers.sharded.process_pool import ProcessPool

# the interrupt is set back: a shell's background commands, and all that they start, ignore it
PARENT = """
import signal, sys, threading
from workers.sharded.pool import Call
from workers.sharded.process_pool import ProcessPool
signal.signal(signal.SIGINT, signal.default_int_handler)
def work():
    with ProcessPool(2) as pool:
        for _ in pool.run("pool_calls:wait", [Call({"folder": sys.argv[1], "number": n}) for n in range(4)]):
            pass
if sys.argv[2] == "thread":
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


def waits(folder: Path, count: int) -> list[Call]:
    return [Call({"folder": str(folder), "number": number}) for number in range(count)]


def begun(folder: Path) -> list[int]:
    return [int(path.read_text() or 0) for path in sorted(folder.glob("began-*"))]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("where", ["main", "thread"])
def test_no_worker_outlives_its_parent(tmp_path, number, where):
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), where], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(begun(tmp_path)) == 2 and all(begun(tmp_path)), "both workers to be at work")
        workers = begun(tmp_path)
        assert not any(map(is_gone, workers))
        parent.send_signal(number)
        if (number, where) == (signal.SIGINT, "thread"):
            parent.send_signal(signal.SIGTERM)  # Python waits for the thread at its end
        parent.wait(60)
        wait_for(lambda: all(map(is_gone, workers)), "the workers to end")
    finally:
        parent.kill()
        parent.wait()


def test_workers_ignore_the_signals_of_the_job_and_go_on(tmp_path):
    def told() -> bool:
        (pid,) = begun(tmp_path) or [0]
        if pid and not (tmp_path / "go").exists():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
                os.kill(pid, number)
            (tmp_path / "go").touch()
        return False

    seen = []
    with ProcessPool(1) as pool:
        assert list(pool.run("pool_calls:wait", waits(tmp_path, 1), stopping=told, report=seen.append)) == [(0, 0)]
    assert seen[0].redone == 0


def test_a_worker_that_is_killed_is_replaced_and_its_call_is_done_again(tmp_path):
    with ProcessPool(2) as pool:
        killed: list[int] = []

        def kill() -> bool:
            if not killed and len(pids := begun(tmp_path)) == 2 and all(pids):
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)
                wait_for(lambda: is_gone(pids[0]), "its death")
                (tmp_path / "go").touch()
            return False

        seen = []
        found = sorted(pool.run("pool_calls:wait", waits(tmp_path, 5), stopping=kill, report=seen.append))
        assert found == [(n, n) for n in range(5)]
        assert seen[-1].redone == 1
        assert killed[0] not in pool.process_ids().values()


def test_the_memory_of_each_worker_is_limited():
    with ProcessPool(2, memory_gib=0.25) as pool:
        assert list(pool.run("pool_calls:fill", [Call({"mib": 64})])) == [(0, 64 * 2**20)]
        assert 64 < pool.peak_mib < 200
        with pytest.raises(MemoryError, match=r"call 0 of pool_calls:fill found no memory above the 0\.25 GiB of each worker .*give more"):
            list(pool.run("pool_calls:fill", [Call({"mib": 300})]))


def test_a_worker_that_cannot_begin_ends_the_run_after_three_tries(capfd):
    with (
        ProcessPool(1, env={"PYTHONPATH": "", "PYTHONHOME": "/nowhere"}) as pool,
        pytest.raises(WorkerLost, match="no worker gets ready, 3"),
    ):
        list(pool.run("pool_calls:double", [Call({"x": 1})]))
    assert "Fatal Python error" in capfd.readouterr().err


def test_workers_that_never_get_ready_end_the_run_in_bounded_time(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(600)\n")
    with (
        ProcessPool(1, env={"PYTHONPATH": str(tmp_path)}, start_seconds=0.5) as pool,
        pytest.raises(WorkerLost, match="no worker has got ready in 0"),
    ):
        list(pool.run("pool_calls:double", [Call({"x": 1})]))


def test_closing_ends_all_workers_at_once_also_in_the_middle_of_a_call(tmp_path):
    pool = ProcessPool(2)
    results = pool.run("pool_calls:double", [Call({"x": 1}), Call({"x": 2})])
    assert sorted(results) == [(0, 2), (1, 4)]
    pids = list(pool.process_ids().values())
    began = time.monotonic()
    pool.close()
    assert all(map(is_gone, pids))
    assert time.monotonic() - began < 2
    assert list(pool.run("pool_calls:double", [Call({"x": 3})])) == [(0, 6)]  # with new ones
    pool.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"num_workers": 0}, "num_workers"), ({"threads": 0}, "threads"), ({"memory_gib": 0.0}, "memory_gib")],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ProcessPool(**{"num_workers": 1, **settings})


def test_the_example_of_the_page_runs(capsys):
    page = (REPOSITORY / "docs/ray.md").read_text()
    lines = page[page.index("    from workers.sharded.pool") : page.index("A function is named")].splitlines()
    exec("\n".join(line.removeprefix("    ") for line in lines), {})
    said = capsys.readouterr().out.splitlines()
    assert sorted(line for line in said if line[1:3] == " [") == [f"{n} [{n}, {n}]" for n in range(4)]
    assert sum(line.startswith("4 of 4 calls") for line in said) == 1
