"""The source that a sweep runs is frozen by its content, and `code` names only what can change a number."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import code
from orchestrator.store import Store
from workers import files
from workers.errors import ConfigError, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small source tree in the place of ours, under git."""
    root = tmp_path / "tree"
    for name in ("workers/a.py", "workers/models/b.py", "orchestrator/c.py", "conf/sweep/d.yaml", "eigensweep.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    monkeypatch.setattr(code, "live_path", lambda: root)
    return root


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine" / "frozen_trial"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "work.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_frozen_source_runs_from_the_snapshot_and_no_longer_follows_the_tree(store: Store, tree: Path) -> None:
    frozen = code.freeze(store)
    (tree / "workers" / "a.py").write_text("# changed\n")
    (tree / "workers" / "__pycache__").mkdir()
    (tree / "workers" / "__pycache__" / "a.pyc").write_text("")
    assert (frozen.path / "workers" / "a.py").read_text() == "# workers/a.py\n"
    again = code.freeze(store)
    assert again.snapshot != frozen.snapshot
    assert again.code != frozen.code
    assert not (again.path / "workers" / "__pycache__").exists()


def test_orchestration_changes_the_snapshot_but_not_the_code_of_the_numbers(store: Store, tree: Path) -> None:
    before = code.freeze(store)
    (tree / "orchestrator" / "c.py").write_text("# other\n")
    after = code.freeze(store)
    assert (after.snapshot != before.snapshot, after.code == before.code) == (True, True)


def test_the_versions_of_torch_and_numpy_are_in_the_code(store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code.freeze(store)
    monkeypatch.setattr(code, "_versions", lambda: {"torch": "99"})
    assert code.freeze(store).code != before.code


def test_equal_content_is_one_snapshot(store: Store, tree: Path) -> None:
    assert code.freeze(store) == code.freeze(store)
    assert os.listdir(store.root / "code") == [code.freeze(store).snapshot]


def test_a_user_package_is_copied_and_counts(store: Store, tree: Path, package: Path) -> None:
    plain = code.freeze(store)
    frozen = code.freeze(store, ["frozen_trial.work", "workers.models.b"])
    assert (frozen.path / "frozen_trial" / "work.py").read_text() == "x = 1\n"
    assert frozen.code != plain.code
    (package / "work.py").write_text("x = 2\n")
    assert code.freeze(store, ["frozen_trial.work"]).code != frozen.code


def test_an_installed_package_counts_but_is_not_copied(store: Store, tree: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_is_installed", lambda path: True)
    frozen = code.freeze(store, ["frozen_trial.work"])
    assert not (frozen.path / "frozen_trial").exists()
    assert "frozen_trial" in code.fingerprint(store, frozen.snapshot)["packages"]


def test_a_module_of_one_file_is_copied(store: Store, tree: Path, package: Path) -> None:
    (package.parent / "frozen_single.py").write_text("y = 1\n")
    assert (code.freeze(store, ["frozen_single"]).path / "frozen_single.py").read_text() == "y = 1\n"


def test_a_module_that_is_not_there_is_named(store: Store, tree: Path) -> None:
    with pytest.raises(ConfigError, match="no module 'no_such_thing'.*PYTHONPATH"):
        code.freeze(store, ["no_such_thing.work"])


def test_a_package_full_of_data_is_refused(store: Store, tree: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_BYTES", 1000)
    (package / "data.bin").write_bytes(b"x" * 2000)
    with pytest.raises(ConfigError, match="'frozen_trial'.*keep data outside the package"):
        code.freeze(store, ["frozen_trial.work"])


def test_git_commit_and_changes_are_recorded(store: Store, tree: Path) -> None:
    environment = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tree), *command], check=True, env=environment)
    clean = code.fingerprint(store, code.freeze(store).snapshot)
    (tree / "workers" / "a.py").write_text("# changed\n")
    dirty = code.fingerprint(store, code.freeze(store).snapshot)
    assert len(clean["git"]) == 40
    assert clean["git"] == dirty["git"]
    assert (clean["dirty"], dirty["dirty"]) == (False, True)


def test_a_snapshot_that_is_not_there_is_an_error_with_the_cure(store: Store) -> None:
    with pytest.raises(StoreError, match="no frozen code 'abc'.*resume"):
        code.fingerprint(store, "abc")


def test_the_loser_of_a_race_leaves_nothing_behind(store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = files.ops.replace

    def late(source: Path, target: Path) -> None:
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
        replace(source, target)

    monkeypatch.setattr(files.ops, "replace", late)
    frozen = code.freeze(store)
    assert os.listdir(store.root / "code") == [frozen.snapshot]
    assert sorted(code.fingerprint(store, frozen.snapshot)["files"]) == sorted(
        ["workers/a.py", "workers/models/b.py", "orchestrator/c.py", "conf/sweep/d.yaml", "eigensweep.py"]
    )


def test_our_own_snapshot_imports_and_freezing_it_again_takes_50_ms(store: Store) -> None:
    frozen = code.freeze(store)
    command = [sys.executable, "-P", "-c", "import workers.files; print(workers.files.__file__)"]
    done = subprocess.run(command, env={"PYTHONPATH": str(frozen.path)}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(frozen.path))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        code.freeze(store)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05, seconds
