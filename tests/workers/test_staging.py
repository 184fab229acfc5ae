"""Copies of data files on a node's disk: made once, whole, shared by the jobs there; and jobs that go on without them."""

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from allocations import Slurm
from batches import PYTHONPATH, Batch, key, own_slots, wait_for  # noqa: F401

from workers import files, staging
from workers.data.npz import Npz
from workers.taskdir import Task
from workers.workload import Resources
from workers.workloads.train import Train


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Thirty small images."""
    path = tmp_path / "images.npz"
    images, labels = np.random.default_rng(0).random((30, 4, 4)).astype("float32"), np.arange(30) % 3
    np.savez(path, x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    return path


@pytest.fixture(autouse=True)
def small_disks(monkeypatch) -> None:
    monkeypatch.setattr(staging, "MIN_FREE_BYTES", 0)
    staging._read_mapping.cache_clear()


def train(archive: Path, number: int = 1) -> Task:
    workload = Train(data=Npz(path=str(archive)), train_size=20, num_steps=2, batch_size=10)
    return Task(
        key=key(number),
        workload="train",
        version=1,
        settings=workload.to_plain(),
        inputs={},
        resources=Resources(memory_gib=2.0).to_plain(),
        sweeps=["s"],
    )


def test_a_copy_is_made_once_and_holds_the_bytes_of_the_original(scratch, archive):
    folder = staging.scratch_folder(str(scratch))
    copy = staging.stage(archive, folder)
    assert copy is not None
    assert copy.read_bytes() == archive.read_bytes()
    made = copy.stat().st_ino
    assert staging.stage(archive, folder) == copy
    assert copy.stat().st_ino == made
    assert (copy.parent / f".{copy.name}.sha256").read_text() == files.sha256(archive)


def test_a_file_that_has_changed_is_another(scratch, archive):
    folder = staging.scratch_folder(str(scratch))
    first = staging.stage(archive, folder)
    archive.write_bytes(b"other")
    second = staging.stage(archive, folder)
    assert first != second
    assert second is not None
    assert second.read_bytes() == b"other"


def test_a_copy_that_was_cut_is_made_again(scratch, archive):
    folder = staging.scratch_folder(str(scratch))
    copy = staging.stage(archive, folder)
    assert copy is not None
    copy.write_bytes(b"half")
    assert staging.stage(archive, folder) == copy
    assert copy.read_bytes() == archive.read_bytes()


def test_jobs_of_one_node_make_one_copy_together(scratch, archive, monkeypatch):
    made = []
    real = staging._make

    def slowly(*arguments):
        made.append(arguments)
        time.sleep(0.3)
        real(*arguments)

    monkeypatch.setattr(staging, "_make", slowly)
    folder = staging.scratch_folder(str(scratch))
    threads = [threading.Thread(target=staging.stage, args=(archive, folder)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_copy_that_is_not_what_was_read_is_never_used(scratch, archive, monkeypatch):
    monkeypatch.setattr(staging, "_copy", lambda original, aside: (aside.write_bytes(b"rotten"), "the digest of what was read")[1])
    folder = staging.scratch_folder(str(scratch))
    with pytest.raises(staging.StagingError, match="is not what was read"):
        staging.stage(archive, folder)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_too_little_room_is_noted(scratch, archive, monkeypatch, capsys):
    monkeypatch.setattr(staging, "MIN_FREE_BYTES", 2**62)
    assert staging.stage(archive, staging.scratch_folder(str(scratch))) is None
    assert f"no room to stage {archive}" in capsys.readouterr().out


@pytest.mark.parametrize("scratch", ["$NO_SUCH_VARIABLE/x", "relative/folder", "/proc/nowhere"])
def test_a_scratch_that_is_none_is_named(scratch):
    with pytest.raises(staging.StagingError, match="scratch"):
        staging.scratch_folder(scratch)


def test_a_folder_that_others_may_write_to_is_refused(scratch):
    (scratch / f"eigensweep-{os.getuid()}").mkdir()
    (scratch / f"eigensweep-{os.getuid()}").chmod(0o777)
    with pytest.raises(staging.StagingError, match="others may write to it"):
        staging.scratch_folder(str(scratch))


def test_variables_are_those_of_the_node(scratch, monkeypatch):
    monkeypatch.setenv("LOCAL_DISK", str(scratch))
    assert staging.scratch_folder("$LOCAL_DISK/a").parent == scratch / "a"


def test_data_files_of_many_tasks_are_found_each_once(archive, tmp_path):
    other = tmp_path / "other.npz"
    other.write_bytes(archive.read_bytes())
    assert staging.data_files([train(archive), train(archive, 2), train(other, 3)]) == [archive, other]


def test_without_a_copy_a_file_is_itself(archive, tmp_path, monkeypatch):
    assert staging.local(archive) == archive
    mapping = tmp_path / "staged.json"
    mapping.write_text(json.dumps({str(archive): str(tmp_path / "purged")}))
    monkeypatch.setenv(staging.STAGED, str(mapping))
    assert staging.local(archive) == archive


def test_data_sets_are_read_from_the_copy(archive, tmp_path, monkeypatch):
    copy = tmp_path / "copy.npz"
    copy.write_bytes(archive.read_bytes())
    mapping = tmp_path / "staged.json"
    mapping.write_text(json.dumps({str(archive): str(copy)}))
    monkeypatch.setenv(staging.STAGED, str(mapping))
    data = Npz(path=str(archive))
    archive.write_bytes(gzip.compress(b"not an archive"))
    assert len(data.load().train_inputs) == 30


# -- jobs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_slots")
def test_a_job_stages_before_its_first_task_and_tasks_read_the_copy(tmp_path, archive, scratch):
    slurm = Slurm(tmp_path / "slurm")
    terms = {"stage": True, "scratch": "$DISK/data", "request": {"slots": 1}}
    batch = slurm.start(slurm.batch(tmp_path / "store", [train(archive)], **terms), DISK=str(scratch)).wait()
    assert batch.outcomes() == {key(1): "completed"}, batch.log()
    (copy,) = json.loads((batch.folder / "staged.json").read_text()).values()
    assert Path(copy).is_relative_to(scratch / "data")
    assert f"staged {archive} to {copy}" in batch.log()


@pytest.mark.usefixtures("own_slots")
def test_a_job_whose_scratch_is_none_says_so_and_reads_the_original(tmp_path, archive):
    slurm = Slurm(tmp_path / "slurm")
    terms = {"stage": True, "scratch": "$DISK/data", "request": {"slots": 1}}
    batch = slurm.start(slurm.batch(tmp_path / "store", [train(archive)], **terms)).wait()
    assert batch.outcomes() == {key(1): "completed"}
    assert "nothing is staged: scratch '$DISK/data'" in batch.log()
    assert "the tasks read their data where it is" in batch.log()


@pytest.mark.usefixtures("own_slots")
def test_a_warning_while_data_is_copied_is_obeyed(tmp_path, archive, scratch):
    """Another job holds the lock of the copy, and its disk is slow."""
    folder = staging.scratch_folder(str(scratch))
    copy = staging._Copy.of(archive, folder)
    copy.path.parent.mkdir(parents=True)
    lock = str(copy.path.parent / ".lock")
    code = f"import time\nfrom workers import staging\nwith staging._locked({lock!r}):\n    print(1, flush=True)\n    time.sleep(600)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PYTHONPATH}) as other:
        assert other.stdout is not None
        other.stdout.readline()
        batch = Batch.write(tmp_path / "store", [train(archive)], stage=True, scratch=str(scratch)).start()
        wait_for(lambda: (batch.folder / "heartbeat.json").exists(), "the job to wait")
        batch.signal(15)
        batch.wait(30)
        other.kill()
    assert batch.over == "warned"
    assert batch.outcomes() == {}
