"""A store is made only where the file system can hold one, found in three ways, and lists what it has fast."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from orchestrator.store import FORMAT, Store, filesystem, find_root
from workers import files, taskdir
from workers.errors import ConfigError, Garbled, StoreError, UnknownName


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store")


class Lacking(files.Ops):
    """A file system without some of its changes."""

    def __init__(self, *lacking: str) -> None:
        self.lacking = lacking

    def link(self, source: Path, target: Path) -> None:
        if "link" in self.lacking:
            raise OSError(errno.EPERM, "Operation not permitted")
        if "refuse" in self.lacking and target.exists():
            os.unlink(target)
        if "inode" in self.lacking:
            target.write_bytes(source.read_bytes())
        else:
            os.link(source, target)

    def create(self, path: Path, data: bytes) -> None:
        if "exclusive" in self.lacking:
            path.write_bytes(data)
        else:
            super().create(path, data)

    def sync_dir(self, path: Path) -> None:
        if "sync_dir" in self.lacking:
            raise OSError(errno.EINVAL, "Invalid argument")
        super().sync_dir(path)


def test_init_makes_a_store_that_open_finds_and_init_again_leaves_as_it_is(tmp_path: Path) -> None:
    first = Store.init(tmp_path / "deep" / "store")
    body = (first.root / "store.json").read_bytes()
    assert Store.init(first.root) == Store.open(first.root) == first
    assert (first.root / "store.json").read_bytes() == body
    assert json.loads(body)["body"]["format"] == FORMAT
    assert not [name for name in os.listdir(first.root) if name.startswith(".")]


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ("link", "hard links"),
        ("refuse", "links that refuse to overwrite"),
        ("inode", "the same inode"),
        ("exclusive", "exclusive create"),
        ("sync_dir", "fsync of a folder"),
    ],
)
def test_init_refuses_a_file_system_and_names_it_and_what_it_lacks(
    lacking: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = Lacking(lacking)
    if lacking == "sync_dir":
        (tmp_path / "store").mkdir()
    monkeypatch.setattr(files, "ops", ops)
    with pytest.raises(StoreError, match=f"mounted at.*lacks.*{named}"):
        Store.init(tmp_path / "store")
    assert os.listdir(tmp_path / "store") == []


def test_init_says_where_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.ops, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot write in .*Read-only.*--root"):
        Store.init(tmp_path)


def test_filesystem_names_type_and_mount(tmp_path: Path) -> None:
    assert " (mounted at /" in filesystem(tmp_path)


def test_open_refuses_a_newer_store(store: Store) -> None:
    (store.root / "store.json").write_bytes(files.encode({"format": FORMAT + 1, "id": "x"}))
    with pytest.raises(StoreError, match=f"has format {FORMAT + 1}, this eigensweep knows formats up to {FORMAT}"):
        Store.open(store.root)


def test_open_without_a_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*eigensweep init --root"):
        Store.open(tmp_path)


def test_open_names_a_garbled_store_file(store: Store) -> None:
    (store.root / "store.json").write_text("{")
    with pytest.raises(Garbled, match=r"store\.json is truncated"):
        Store.open(store.root)


def test_the_root_is_the_option_then_the_environment_then_the_nearest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "eigensweep.toml").write_text('root = "results"\n')
    monkeypatch.chdir(below)
    monkeypatch.delenv("EIGENSWEEP_ROOT", raising=False)
    assert find_root() == tmp_path / "results"
    monkeypatch.setenv("EIGENSWEEP_ROOT", str(tmp_path / "env"))
    assert find_root() == tmp_path / "env"
    assert find_root("here") == below / "here"


def test_a_root_that_nobody_names_is_an_error_that_lists_the_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EIGENSWEEP_ROOT", raising=False)
    with pytest.raises(StoreError, match=r"--root DIR.*EIGENSWEEP_ROOT.*eigensweep\.toml"):
        find_root()


@pytest.mark.parametrize("text", ["root = ", "rot = 'x'\n", "root = 3\n"])
def test_a_toml_without_root_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eigensweep.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EIGENSWEEP_ROOT", raising=False)
    with pytest.raises(ConfigError, match=r"eigensweep\.toml.*root = "):
        find_root()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "ä", "x" * 101])
def test_a_sweep_name_that_cannot_be_a_path_is_refused(name: str, store: Store) -> None:
    with pytest.raises(ConfigError, match="cannot be named"):
        store.write_manifest(name, 1, {})


def test_a_revision_is_written_once_and_the_newest_is_read(store: Store) -> None:
    assert store.write_manifest("w1", 1, {"n": 1})
    assert not store.write_manifest("w1", 1, {"n": 9})
    assert store.write_manifest("w1", 2, {"n": 2})
    assert store.revisions("w1") == [1, 2]
    assert store.manifest("w1") == {"n": 2}
    assert store.manifest("w1", 1) == {"n": 1}
    assert store.sweep_names() == ["w1"]


def test_an_unknown_sweep_or_revision_is_named_with_the_nearest(store: Store) -> None:
    store.write_manifest("width", 1, {})
    with pytest.raises(UnknownName, match=r"no sweep 'widht'.*did you mean 'width'"):
        store.manifest("widht")
    with pytest.raises(UnknownName, match="no revision 7; it has 1"):
        store.manifest("width", 7)


def test_done_is_hints_and_list_and_folding_changes_nothing_but_the_files(store: Store) -> None:
    store.write_manifest("w1", 1, {})
    for name in ("aa", "bb", "cc.1"):
        taskdir.hint_path(store.root, "w1", name).touch()
    store.fold_hints("w1", {"aa", "cc.1", "zz"})
    assert store.hints("w1") == {"bb"}
    assert store.done("w1") == {"aa", "bb", "cc.1"}
    store.fold_hints("w1", {"bb"})
    assert store.done("w1") == {"aa", "bb", "cc.1"}
    assert [n for n in os.listdir(store.sweep_dir("w1")) if n.startswith("committed")] == ["committed-000002.json"]


def test_a_garbled_list_is_not_trusted_and_the_next_is_numbered_after_it(store: Store) -> None:
    store.write_manifest("w1", 1, {})
    (store.sweep_dir("w1") / "committed-000004.json").write_text("garbled")
    assert store.done("w1") == set()
    taskdir.hint_path(store.root, "w1", "aa").touch()
    store.fold_hints("w1", {"aa"})
    assert store.done("w1") == {"aa"}


def test_commit_names_are_those_in_the_folders(store: Store) -> None:
    for name in ("abc", "abd.2", "xyz"):
        path = taskdir.commit_path(store.root, name)
        files.make_dirs(path.parent)
        path.write_text("")
        (path.parent / f".{name}.json.12").write_text("")
    assert sorted(store.commit_names()) == ["abc", "abd.2", "xyz"]


def test_ten_thousand_hints_are_read_in_20_ms(store: Store) -> None:
    store.write_manifest("w1", 1, {})
    folder = store.sweep_dir("w1") / "done"
    for i in range(10_000):
        (folder / f"{i:026d}").touch()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        found = store.done("w1")
        seconds.append(time.perf_counter() - start)
    assert len(found) == 10_000
    assert min(seconds) < 0.02, seconds
