"""Ranks of a task: on this machine for real, across nodes with an `srun` that says what it was asked."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from batches import Batch, act, is_gone, key, own_slots, wait_for  # noqa: F401

from workers.context import Context
from workers.launch import STILL, fork, launch
from workers.taskdir import Task

HERE = (os.uname().nodename,)
WRITE = """
import json, os, sys
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "MINE")
body = {name: os.environ.get(name) for name in names} | {"argv": sys.argv[2:]}
open(f"{sys.argv[1]}/{os.environ['RANK']}", "w").write(json.dumps(body))
"""
SRUN = """#!/bin/sh
for word in "$@"; do echo "$word" >> "$OUT/words"; done
while [ "$1" != "--" ]; do shift; done
shift
SLURM_PROCID=3 SLURM_LOCALID=1 exec "$@"
"""


def said(folder: Path) -> dict[int, dict]:
    return {int(path.name): json.loads(path.read_text()) for path in folder.iterdir() if path.name.isdigit()}


def test_each_rank_knows_its_number_and_where_the_first_one_listens(tmp_path):
    words = ["a b", "$HOME; touch x", "*"]
    assert launch([sys.executable, "-c", WRITE, str(tmp_path), *words], HERE, ranks_per_node=3, env={"MINE": "1"}) == 0
    ranks = said(tmp_path)
    assert sorted(ranks) == [0, 1, 2]
    assert all((r["RANK"], r["LOCAL_RANK"], r["WORLD_SIZE"], r["LOCAL_WORLD_SIZE"]) == (str(n), str(n), "3", "3") for n, r in ranks.items())
    assert len({(r["MASTER_ADDR"], r["MASTER_PORT"]) for r in ranks.values()}) == 1
    assert ranks[0]["argv"] == words  # no shell has read them
    assert ranks[0]["MINE"] == "1"


@pytest.mark.slow
def test_ranks_of_torch_distributed_find_each_other(tmp_path):
    script = tmp_path / "sum.py"
    script.write_text(
        "import sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = torch.tensor([float(dist.get_rank() + 1)])\n"
        "dist.all_reduce(x)\n"
        "open(f'{sys.argv[1]}/{dist.get_rank()}', 'w').write(str(x.item()))\n"
        "dist.destroy_process_group()\n"
    )
    assert launch([sys.executable, str(script), str(tmp_path)], HERE, ranks_per_node=2) == 0
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["3.0", "3.0"]


def test_a_rank_that_fails_ends_the_others(tmp_path):
    code = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(7)\ntime.sleep(600)"
    begun = time.monotonic()
    assert launch([sys.executable, "-c", code], HERE, ranks_per_node=2) == 7
    assert time.monotonic() - begun < 30


def write(folder: Path, **more: object) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    whole = folder / f"{os.environ['RANK']}.new"
    whole.write_text(json.dumps({name: os.environ[name] for name in names} | {"pid": os.getpid(), **more}))
    whole.rename(whole.with_suffix(""))


def test_copies_know_their_numbers_and_what_was_there_before_them(tmp_path):
    kept = {"loaded": 5}
    assert fork(lambda rank: write(tmp_path, argument=rank, **kept), 3) == 0
    ranks = said(tmp_path)
    assert sorted(ranks) == [0, 1, 2]
    assert all((r["argument"], r["RANK"], r["LOCAL_RANK"], r["WORLD_SIZE"]) == (n, str(n), str(n), "3") for n, r in ranks.items())
    assert len({(r["MASTER_ADDR"], r["MASTER_PORT"]) for r in ranks.values()}) == 1
    assert len({r["pid"] for r in ranks.values()} | {os.getpid()}) == 4
    assert {r["loaded"] for r in ranks.values()} == {5}
    assert "RANK" not in os.environ


def test_a_copy_that_fails_ends_the_others(tmp_path, capfd):
    def act(rank: int) -> None:
        write(tmp_path)
        if rank == 1:
            wait_for(lambda: (tmp_path / "0").exists(), "the other rank")
            raise ValueError("rank one has enough")
        signal.pause()

    assert fork(act, 2) == 1
    assert "rank one has enough" in capfd.readouterr().err
    assert is_gone(said(tmp_path)[0]["pid"])


def test_a_copy_that_is_killed_says_by_what():
    assert fork(lambda rank: os.kill(os.getpid(), signal.SIGKILL), 1) == -signal.SIGKILL


def test_the_warning_reaches_copies_and_ends_none(tmp_path):
    def act(rank: int) -> None:
        if rank == 0:
            signal.signal(signal.SIGUSR2, lambda *a: sys.exit(0))
            write(tmp_path)
            signal.pause()
        else:
            write(tmp_path)
            wait_for(lambda: (tmp_path / "0").exists(), "the other rank")
            wait_for(lambda: is_gone(said(tmp_path)[0]["pid"]), "its end")

    assert fork(act, 2, stopping=lambda: len(said(tmp_path)) == 2) == 0


def test_no_copy_begins_with_a_lock_that_another_thread_holds():
    lock, holding, done = threading.Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        while not done.is_set():
            with STILL, lock:
                holding.set()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        assert fork(lambda rank: sys.exit(not lock.acquire(timeout=20)), 3) == 0
    finally:
        done.set()
        thread.join()


def test_copies_die_with_the_process_that_they_are_copies_of(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from workers.launch import fork\n"
        "def act(rank):\n"
        "    open(f'{sys.argv[1]}/{rank}', 'w').write(f'{{\"pid\": {os.getpid()}}}')\n"
        "    signal.pause()\n"
        "fork(act, 2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path)])
    wait_for(lambda: sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) == 2, "both ranks")
    parent.kill()
    parent.wait()
    wait_for(lambda: all(is_gone(rank["pid"]) for rank in said(tmp_path).values()), "the ranks to die")


def test_a_command_that_is_not_there_is_named(capfd):
    assert launch(["no-such-command"], HERE) == 1
    assert "no-such-command cannot be run" in capfd.readouterr().err


@pytest.mark.parametrize("argv", ["echo a", [], ["echo", 1], ["a\0b"]])
def test_only_a_list_of_texts_is_a_command(argv):
    with pytest.raises(TypeError, match="a command as a list of texts"):
        launch(argv, HERE)


def test_fewer_than_one_rank_is_refused():
    with pytest.raises(ValueError, match="ranks_per_node must be at least 1, got 0"):
        launch(["true"], HERE, ranks_per_node=0)


def test_the_warning_reaches_ranks_that_handle_it_and_ends_no_other(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "if os.environ['RANK'] == '0':\n"
        "    signal.signal(signal.SIGUSR2, lambda *a: sys.exit(0))\n"
        "path = f'{sys.argv[1]}/{os.environ[\"RANK\"]}'\n"
        "open(f'{path}.new', 'w').write('{}')\n"
        "os.rename(f'{path}.new', path)\n"
        "time.sleep(2 if os.environ['RANK'] == '1' else 600)\n"
    )
    stop = threading.Event()
    threading.Thread(target=lambda: wait_for(lambda: len(said(tmp_path)) == 2, "both ranks") and stop.set(), daemon=True).start()
    assert launch([sys.executable, "-c", code, str(tmp_path)], HERE, ranks_per_node=2, stopping=stop.is_set) == 0


def test_across_nodes_srun_starts_the_ranks(tmp_path, monkeypatch):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    task = Task(key="k", workload="noop", version=1, settings={}, inputs={})
    context = Context(root=tmp_path, task=task, attempt="a", nodes=("n07", "n08"))
    assert context.launch([sys.executable, "-c", WRITE, str(tmp_path)], ranks_per_node=2) == 0
    words = (tmp_path / "words").read_text().splitlines()
    expected = {"--overlap", "--nodes=2", "--ntasks=4", "--ntasks-per-node=2", "--cpus-per-task=4"}
    assert expected < set(words[: words.index("--")])
    (rank,) = said(tmp_path).values()
    assert (rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"], rank["MASTER_ADDR"]) == ("3", "1", "4", "n07")


@pytest.mark.usefixtures("own_slots")
def test_ranks_die_with_their_task(tmp_path):
    batch = Batch.write(tmp_path / "store", [act(1, "ranks", file=str(tmp_path / "pids"), resources={"nodes": 2})]).start()
    pids = wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split(), "the rank's id")
    for child in batch.children():
        os.kill(child, signal.SIGKILL)
    batch.wait()
    assert batch.outcomes() == {key(1): "killed"}
    wait_for(lambda: all(is_gone(int(pid)) for pid in pids), "the ranks to die")
