"""The verbs on a real cluster: what is planned is what is sent, and what runs is what was asked for."""

import json
import math
import os
import re
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import cli, verbs
from orchestrator.dispatch import UNKNOWN_DIGITS
from tests.slurm.cluster import REPOSITORY, Cluster, wait_until
from tests.slurm.drivers import accepted, here, interpreter_for_all, resume, settings, settle, status, submit
from tests.slurm.scene import Scene
from workers import taskdir

QUIET = "launcher.tick_job=false"
LATER = "launcher.sbatch={begin: now+1hour}"
SEEN = ("workload=cluster_package.seen", QUIET)


@pytest.fixture
def scene(cluster: Cluster, shared: Path) -> Iterator[Scene]:
    """A store that the nodes see."""
    with Scene(cluster=cluster, folder=shared) as scene:
        yield scene


def gate(scene: Scene, name: str) -> Path:
    """A file for which tasks wait, in a folder of its own, where each leaves word that it is there."""
    folder = scene.folder / f"gate-{name}"
    folder.mkdir()
    return folder / "open"


def are_there(path: Path, number: int) -> None:
    """Wait until so many tasks stand before the gate."""
    wait_until(lambda: len(list(path.parent.glob("task-*"))) == number, 60, f"{number} tasks at {path}")


def seen(scene: Scene, name: str) -> dict[int, dict[str, Any]]:
    """index -> what the committed tasks of cluster_package.seen saw."""
    found = {}
    for key, index in scene.numbers(name).items():
        commit = taskdir.read_commit(scene.root, key)
        found[index] = json.loads(taskdir.payload_path(scene.root, commit, "seen.json").read_text())
    return found


def is_queued(scene: Scene, job_id: str) -> bool:
    """Whether any of the job is listed as waiting or running."""
    return bool(scene.cluster.exec("squeue", "-h", "-j", job_id, check=False).strip())


# -- plan, submit -------------------------------------------------------------------------------------------------------


def printed_scripts(text: str) -> list[tuple[str, str]]:
    """(file, script) of what `submit --dry-run` prints."""
    parts = re.split(r"^--- batches/[\w-]+/([\w.-]+) -+$", text.rpartition("-" * 40)[0], flags=re.MULTILINE)
    return [(file, script.strip("\n") + "\n") for file, script in zip(parts[1::2], parts[2::2])]


def test_what_is_printed_is_what_is_submitted(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """2,500 jobs of one task where an array may have 1,001: three calls, whose texts were shown before."""
    words = settings(["workload=noop", "name=w", "index=range(0,2500)", "launcher.pack=never", "launcher.max_jobs=7", LATER])
    with here(scene):
        planned = verbs.plan(words, scene.root, every_script=True)
        assert cli.main(["submit", "--dry-run", *words, "--root", str(scene.root)]) == 0
        dry = printed_scripts(capsys.readouterr().out)
        assert scene.entries("revision") == []
        submit(scene, *words)
    (jobs,) = planned.jobs
    assert (jobs.jobs, jobs.calls) == (2500, math.ceil(2500 / 1000))
    assert dry == [(file, text) for scripts in jobs.scripts for file, text in scripts.items()]
    sent = []
    for token in (entry["token"] for entry in scene.submissions("w")):
        folder = taskdir.batch_dir(scene.root, token)
        for file in ("submission.sh", "tick.sh"):
            text = (folder / file).read_text().replace(token, f"w-{UNKNOWN_DIGITS}")
            sent.append((file, re.sub(r"afterany:\d+", "afterany:JOBID", text)))
    assert sent == dry
    assert [len(ids) for ids in accepted(scene).values()] == [1, 1, 1]
    for number in range(3):
        told = scene.cluster.exec("scontrol", "show", "job", scene.job_id("w", number))
        assert f"ArrayTaskThrottle={7 // 3}" in told, "the three arrays together run no more than max_jobs"
    with here(scene):
        assert len(verbs.cancel("w", root=scene.root)) == 10 + 1  # ten in words, and how many more
        assert verbs.status("w", scene.root).counts == {"cancelled": 2500}
    wait_until(lambda: not scene.cluster.exec("squeue", "-h", "-o", "%j"), 60, "no job is left, nor one that ticks")


def test_no_more_elements_run_at_once_than_max_jobs(scene: Scene) -> None:
    submit(scene, *SEEN, "name=w", "index=range(0,5)", "launcher.pack=never", "launcher.max_jobs=2")
    settle([(scene, "w")])
    times = [(one["began"], one["ended"]) for one in seen(scene, "w").values()]
    assert max(sum(began <= start < ended for began, ended in times) for start, _ in times) <= 2


# -- cancel, resume, logs, status ---------------------------------------------------------------------------------------


def test_cancel_takes_what_is_told_and_no_more_and_resume_brings_it_back(scene: Scene) -> None:
    gates = {name: gate(scene, name) for name in ("packed", "array", "whole", "again")}
    submit(scene, *SEEN, "name=packed", "index=range(0,3)", f"gate={gates['packed']}", "launcher.slots=3")
    submit(scene, *SEEN, "name=array", "index=range(0,3)", f"gate={gates['array']}", "launcher.pack=never")
    submit(scene, *SEEN, "name=whole", "index=0,1", f"gate={gates['whole']}", "launcher.slots=2")
    submit(scene, *SEEN, "name=again", "index=0,1", f"gate={gates['again']}", "launcher.slots=2")
    submit(scene, "workload=noop", QUIET, "name=queued", "index=range(0,3)", LATER)
    for name, number in (("packed", 3), ("array", 3), ("whole", 2), ("again", 2)):
        are_there(gates[name], number)
    with here(scene):
        for name, where, number in (
            ("packed", "index=1", 1), ("array", "index=1", 1), ("whole", None, 2), ("again", None, 2), ("queued", None, 3),
        ):  # fmt: skip
            assert len(verbs.cancel(name, where, scene.root)) == number
    # what waits is gone at once, what runs goes after it has saved its state
    assert not is_queued(scene, scene.job_id("queued"))
    assert status(scene, "queued").counts == {"cancelled": 3}
    # whoever resumes before anybody knows that the job has ended is not overruled by its end
    for name in ("queued", "again"):
        resume(scene, name)
    for job_id in (scene.job_id("whole"), f"{scene.job_id('array')}_1"):
        wait_until(lambda job_id=job_id: not is_queued(scene, job_id), 30, f"the end of {job_id}")
    assert status(scene, "whole").counts == {"cancelled": 2}
    for name in ("packed", "array"):
        gates[name].touch()
    settle([(scene, "packed"), (scene, "array")])
    for name in ("packed", "array"):
        assert scene.counts(name) == {"completed": 2, "cancelled": 1}
        assert sorted(scene.starts(name).items()) == [(0, 1), (1, 1), (2, 1)]
    for name in gates:
        gates[name].touch()
        if name != "again":
            resume(scene, name)
    settle([(scene, name) for name in gates])
    assert [scene.counts(name) for name in gates] == [{"completed": 3}, {"completed": 3}, {"completed": 2}, {"completed": 2}]
    wait_until(lambda: status(scene, "queued").counts == {"queued": 3} and len(scene.submissions("queued")) == 2, 30, "all is sent again")
    # only what was cancelled ran again, from its checkpoint
    assert scene.starts("packed") == scene.starts("array") == {0: 1, 1: 2, 2: 1}
    assert [scene.charged(name) for name in gates] == [{}] * 4


def test_logs_are_of_one_task_also_where_a_job_has_many_or_never_began(scene: Scene) -> None:
    submit(scene, *SEEN, "name=packed", "index=range(0,3)", "text=packed")
    submit(scene, *SEEN, "name=array", "index=range(0,2)", "text=array", "launcher.pack=never")
    submit(scene, *SEEN, "name=queued", "index=range(0,2)", "text=queued", LATER)
    broken = "launcher.setup=['echo no module of that name >&2', 'exit 3']"
    submit(scene, *SEEN, "name=broken", "index=range(0,2)", "text=broken", broken)
    settle([(scene, name) for name in ("packed", "array", "broken")])
    for name, number in (("packed", 3), ("array", 2)):
        for index in range(number):
            told = scene.logs(name, index)
            assert [line for line in told.splitlines() if line.startswith("seen ")] == [f"seen {index} {name}"]
            assert "completed" in told
    assert "no attempt yet; the task is queued" in scene.logs("queued", 0)
    assert scene.counts("broken") == {"failed": 2}
    assert scene.charged("broken") == {0: ["never_started"] * 4, 1: ["never_started"] * 4}
    told = scene.logs("broken", 0)
    assert "no module of that name" in told


def test_status_says_where_jobs_are_why_they_wait_and_what_they_use(scene: Scene) -> None:
    path = gate(scene, "w")
    submit(scene, *SEEN, "name=runs", "index=0,1", f"gate={path}", "launcher.slots=2", "launcher.nodelist=n3")
    are_there(path, 2)
    submit(scene, *SEEN, "name=waits", "index=0,1", "text=waits", "launcher.nodelist=n3", "resources.cpus=4")
    submit(scene, "workload=noop", QUIET, "name=later", "index=0,1", LATER)
    submit(scene, "workload=noop", QUIET, "name=held", "index=5,6", "launcher.sbatch={hold: true}")
    (runs,) = status(scene, "runs").jobs
    assert (runs["state"], runs["nodes"]) == ("running", ["n3"])
    assert 0 <= runs["seconds"] < runs["limit_seconds"] == 60 * scene.submissions("runs")[0]["request"]["minutes"]
    shown = scene.command("status", "runs")
    assert f"{scene.job_id('runs')} (slurm) on n3: 0 of 2 ended, 2 running, time 0:00:" in shown
    assert "NOBODY, since launcher.tick_job is false: run `eigensweep tick" in shown
    # SLURM has no reason before it has tried to start a job
    wait_until(lambda: {job["reason"] for job in status(scene, "waits").jobs} <= {"Resources", "Priority"}, 30, "the reason to wait")
    waiting = {name: status(scene, name).jobs for name in ("waits", "later", "held")}
    assert {job["state"] for jobs in waiting.values() for job in jobs} == {"queued"}
    place, length = waiting["waits"][0]["position"]
    assert 1 <= place <= length
    assert waiting["later"][0]["reason"] == "BeginTime"
    assert waiting["held"][0]["reason"] == "JobHeldUser"
    shown = scene.command("status", "held")
    assert f"scontrol release {scene.job_id('held')}" in shown
    submit(scene, "workload=noop", "name=ticks", "index=8,9", LATER)
    assert "each job ticks when it ends" in status(scene, "ticks").watcher
    path.touch()
    settle([(scene, "runs"), (scene, "waits")])


# -- what a job is given ------------------------------------------------------------------------------------------------


def test_jobs_get_what_was_asked_for(scene: Scene) -> None:
    """Packed tasks on GPUs, gangs of nodes, a site's settings, lines of setup, and data on a node's own disk; all at once."""
    at_gpus = gate(scene, "gpus")
    words = ("resources.gpus=1", "launcher.gpu_type=a100", "launcher.tasks_per_gpu=2", "launcher.slots=4")
    submit(scene, *SEEN, "name=gpus", "index=range(0,4)", f"gate={at_gpus.parent}/", "meets=4", *words)
    for nodes in (2, 3):
        submit(scene, *SEEN, f"name=gang{nodes}", f"index={nodes}", "ranks=2", f"resources.nodes={nodes}")
    submit(scene, *SEEN, "name=site", "index=0,1", "text=site", "site=slurm_dev")
    setup = """launcher.setup=['greeting="hello  $((6*7))"', "export GREETING=\\"$greeting it's\\""]"""
    submit(scene, *SEEN, "name=setup", "index=0,1", "text=setup", setup)
    data = scene.folder / "images.npz"
    images = {"x_train": (8, 4, 4), "y_train": (8,), "x_test": (4, 4, 4), "y_test": (4,)}
    np.savez(data, **{name: np.ones(shape, np.uint8) for name, shape in images.items()})
    reader = ("workload=cluster_package.reader", QUIET, "data=npz", f"data.path={data}", "launcher.stage=true")
    submit(scene, *reader, "name=staged", "index=0,1", "launcher.scratch=/tmp/$SLURM_JOB_USER")
    names = ("gpus", "gang2", "gang3", "site", "setup", "staged")
    settle([(scene, name) for name in names])
    assert [set(scene.counts(name)) for name in names] == [{"completed"}] * 6

    on_gpus = seen(scene, "gpus").values()
    assert Counter(one["environment"]["CUDA_VISIBLE_DEVICES"] for one in on_gpus) == {"0": 2, "1": 2}
    assert {one["host"] for one in on_gpus} <= {"n1", "n2"} and len({one["host"] for one in on_gpus}) == 1
    assert max(one["began"] for one in on_gpus) < min(one["ended"] for one in on_gpus)
    assert scene.submissions("gpus")[0]["request"]["gpus"] == 2
    for nodes in (2, 3):
        (gang,) = seen(scene, f"gang{nodes}").values()
        assert sorted(gang["ranks"]) == sorted(f"{host} {2 * nodes}" for host in 2 * gang["nodes"])
        assert len(set(gang["nodes"])) == nodes
    assert "--cpus-per-task=2" in script(scene, "site") and "--partition=debug" in script(scene, "site")
    assert {one["environment"]["GREETING"] for one in seen(scene, "setup").values()} == {"hello  42 it's"}
    for key in scene.numbers("staged"):
        commit = taskdir.read_commit(scene.root, key)
        copy, size = taskdir.payload_path(scene.root, commit, "0").read_text().split("\n")
        assert copy.startswith("/tmp/root/eigensweep-0/") and int(size) == data.stat().st_size


def script(scene: Scene, name: str) -> str:
    """The text of the sweep's submission."""
    return (taskdir.batch_dir(scene.root, scene.submissions(name)[0]["token"]) / "submission.sh").read_text()


def test_a_user_without_privileges_runs_a_sweep(cluster: Cluster, shared: Path) -> None:
    """From `init` to the results, in a store of their own, with the jobs that tick."""
    shared.chmod(0o777)
    home = shared / "home"
    python = interpreter_for_all()
    environment = {
        **cluster.environment,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), sysconfig.get_path("purelib")]),
        **dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(home)),
        "EIGENSWEEP_ROOT": str(shared / "store"),
    }
    environment.pop("XDG_RUNTIME_DIR", None)

    def command(*words: str) -> str:
        return cluster.exec(python, "-m", "orchestrator", *words, user="nobody", environment=environment, cwd=shared)

    command("init")
    command("submit", *settings(["workload=noop", "name=w", "index=range(0,4)", "launcher.tasks_per_job=2"]))
    deadline = time.monotonic() + 90
    while json.loads(command("status", "w", "--json"))["counts"] != {"completed": 4}:
        assert time.monotonic() < deadline, command("status", "w")
        time.sleep(0.5)
    assert {path.stat().st_uid for path in (shared / "store").rglob("*")} == {65534}
    assert "completed" in command("logs", "w", json.loads(command("status", "w", "--keys", "--json"))[0]["key"])
