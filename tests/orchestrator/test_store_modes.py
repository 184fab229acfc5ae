"""The group may read a store, nobody else may, and only its owner writes: tried as another user, since root passes every permission."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import eigensweep as es
from orchestrator.store import Store
from tests.batches import wait_for
from workers import files
from workers.errors import StoreError

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534
WRITING = [
    ["submit", "workload=noop", "index=7", "name=w2"],
    ["add", "w1", "index=8"],
    ["resume", "w1"],
    ["cancel", "w1"],
    ["retract", "w1", "where=true", "--yes"],
    ["run", "workload=noop", "index=9"],
    ["tick"],
    ["gc"],
    ["report", "w1"],
]
READING = [
    ["status"],
    ["status", "w1"],
    ["status", "w1", "--json"],
    ["status", "w1", "--keys"],
    ["plan", "workload=noop", "index=0,1,2", "name=w1"],
    ["resume", "w1", "--dry-run"],
    ["retract", "w1", "where=true", "--dry-run"],
    ["gc", "--dry-run"],
    ["scrub"],
    ["cost", "w1"],
]


def command(
    folder: Path, arguments: list[str], *, user: bool = False, groups: str = "", umask: int = -1
) -> "subprocess.CompletedProcess[str]":
    """`eigensweep ARGUMENTS` in a process of its own, perhaps as another user."""
    return python(folder, ["-m", "orchestrator", *arguments], user=user, groups=groups, umask=umask)


def python(
    folder: Path, arguments: list[str], *, user: bool = False, groups: str = "", umask: int = -1
) -> "subprocess.CompletedProcess[str]":
    private = folder / ("theirs" if user else "ours")
    private.mkdir(exist_ok=True)
    become = []
    if user:
        os.chown(private, NOBODY, NOBODY)
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={groups}" if groups else "--clear-groups"]
    private_folders = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"), str(private))
    return subprocess.run(
        [*become, sys.executable, *arguments],
        env={**os.environ, **private_folders, "PYTHONPATH": str(REPOSITORY), "EIGENSWEEP_ROOT": str(folder / "store")},
        cwd=private,
        capture_output=True,
        text=True,
        umask=umask,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that any user may enter, with a finished sweep of this user's in `store`; pytest's own is closed to others."""
    path = Path(tempfile.mkdtemp(prefix="eigensweep-modes-"))
    path.chmod(0o755)
    command(path, ["init"], umask=0o022)
    ran = command(path, ["submit", "workload=noop", "index=0,1,2", "name=w1", "launcher.slots=2"], umask=0o022)
    assert ran.returncode == 0, ran.stderr
    # the tick of the job itself comes after the command
    wait_for(lambda: list((path / "store" / "dataset").glob("MANIFEST-*")) and not ticks(path), "the job's tick")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def others(folder: Path) -> None:
    """Skips where this process cannot become another user."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can run a command as another user (and setpriv must be installed)")
    tried = python(folder, ["-c", "import polars, orchestrator.verbs"], user=True)
    if tried.returncode != 0:
        pytest.skip(f"another user cannot run this Python: {tried.stderr.strip()[-200:]}")


def ticks(folder: Path) -> bool:
    """Whether any process of this machine still has the store among its words."""
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    with contextlib.suppress(OSError):
        return any(str(folder / "store").encode() in line for line in lines)
    return True


def modes(root: Path) -> dict[str, int]:
    found = {".": stat.S_IMODE(root.stat().st_mode)}
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a job's own tick may still be at work
            found[str(path.relative_to(root))] = stat.S_IMODE(path.lstat().st_mode)
    return found


def contents(root: Path) -> dict[str, tuple[int, int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size, path.lstat().st_ino) for path in [root, *root.rglob("*")]}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_whatever_the_umask_our_commands_make_folders_2750_and_files_0640(umask: int, tmp_path: Path) -> None:
    assert command(tmp_path, ["init"], umask=umask).returncode == 0
    ran = command(tmp_path, ["submit", "workload=noop", "index=0,1", "name=w1", "launcher.slots=1"], umask=umask)
    assert ran.returncode == 0, ran.stderr
    assert command(tmp_path, ["submit", "workload=noop", "index=1,2", "name=w2", "launcher=inline"], umask=umask).returncode == 0
    assert command(tmp_path, ["tick"], umask=umask).returncode == 0
    root = tmp_path / "store"
    wrong = {name: oct(mode) for name, mode in modes(root).items() if mode != (0o2750 if (root / name).is_dir() else 0o640)}
    assert wrong == {}
    assert len(modes(root)) > 20


def test_the_python_interface_makes_the_same_modes_and_leaves_the_callers_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = es.init(tmp_path / "store")
        es.submit(["workload=noop", "index=0,1", "name=w1", "launcher=inline"], store.root)
        es.submit(["workload=noop", "index=2", "name=w2", "launcher.slots=1"], store.root)
        with files.replacing(store.root / "made-by-a-library") as path:
            path.write_text("x")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    found = modes(store.root)
    assert {name: oct(mode) for name, mode in found.items() if mode != (0o2750 if (store.root / name).is_dir() else 0o640)} == {}
    assert any(name.endswith("/log") for name in found)


def test_a_folder_that_holds_something_else_keeps_its_mode(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    project.chmod(0o755)
    (project / "notes").touch()
    es.init(project)
    assert stat.S_IMODE(project.stat().st_mode) == 0o755
    assert modes(project)["commits"] == 0o2750


@pytest.mark.usefixtures("others")
def test_another_user_cannot_even_look_in(folder: Path) -> None:
    ran = command(folder, ["status", "w1"], user=True)
    assert ran.returncode == 1
    assert "may not read" in ran.stderr
    assert "ask to be let in" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_the_group_reads(folder: Path, arguments: list[str]) -> None:
    before = contents(folder / "store")
    ran = command(folder, arguments, user=True, groups=str(os.getegid()))
    assert ran.returncode == 0, ran.stderr
    assert contents(folder / "store") == before


@pytest.mark.usefixtures("others")
def test_the_group_loads_reads_logs_and_makes_its_own_report(folder: Path) -> None:
    before = contents(folder / "store")
    group = str(os.getegid())
    script = "import eigensweep as es; w1 = es.load('w1'); print(w1.scalars().collect().height, len(w1.files('scalars')) > 0)"
    loaded = python(folder, ["-c", script], user=True, groups=group)
    assert loaded.stdout.split() == ["9", "True"], loaded.stderr
    key = command(folder, ["status", "w1", "--keys"]).stdout.split()[0]
    logs = command(folder, ["logs", "w1", key], user=True, groups=group)
    assert "completed" in logs.stdout, logs.stderr
    report = command(folder, ["report", "w1", "--out", str(folder / "theirs" / "report")], user=True, groups=group)
    assert report.returncode == 0, report.stderr
    assert (folder / "theirs" / "report" / "report.html").exists()
    assert contents(folder / "store") == before


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_the_group_never_writes_and_is_told_whose_store_it_is(folder: Path, arguments: list[str]) -> None:
    before = contents(folder / "store")
    ran = command(folder, arguments, user=True, groups=str(os.getegid()))
    assert ran.returncode == 1
    assert f"it is the store of {Store(folder / 'store').owner}" in ran.stderr
    assert "eigensweep init --root DIR" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert contents(folder / "store") == before


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("arguments", [WRITING[0], ["tick"], ["gc"]], ids=" ".join)
def test_a_store_of_another_user_is_not_written_though_permissions_would_allow_it(folder: Path, arguments: list[str]) -> None:
    root = folder / "store"
    subprocess.run(["chmod", "-R", "a+rwX", str(root)], check=True)
    try:
        before = contents(root)
        ran = command(folder, arguments, user=True)
        assert "only " in ran.stderr
        assert ran.returncode == 1
        assert contents(root) == before
    finally:
        subprocess.run(["chmod", "-R", "o-rwx,g-w", str(root)], check=True)


@pytest.mark.usefixtures("others")
def test_root_does_not_write_in_the_store_of_a_user_either(tmp_path: Path) -> None:
    store = es.init(tmp_path / "store")
    os.chown(store.root / "store.json", 12345, 12345)
    with pytest.raises(StoreError, match="it is the store of user 12345"):
        es.tick(store.root)
    # a file system that cannot tell whose a file is: there permissions decide
    os.chown(store.root / "store.json", NOBODY, NOBODY)
    es.tick(store.root)


def test_an_owner_who_may_not_write_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = es.init(tmp_path / "store")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreError, match=r"cannot tick in .*: it is read-only for you"):
        es.tick(store.root)
