"""A data set's content: what its files hold, not where they stand."""

import os
from pathlib import Path

import pytest
from grid_package.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import content
from orchestrator.content import data_content
from workers.errors import ConfigError


def table(path: Path, data: bytes) -> Table:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Table(path=str(path))


def test_the_place_changes_nothing(tmp_path: Path):
    assert data_content(table(tmp_path / "a" / "x.npz", b"1")) == data_content(table(tmp_path / "b" / "c" / "x.npz", b"1"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(one=st.binary(max_size=64), other=st.binary(max_size=64))
def test_two_different_files_never_share_their_content(tmp_path: Path, one: bytes, other: bytes):
    assert (data_content(table(tmp_path / "a" / "x", one)) == data_content(table(tmp_path / "b" / "x", other))) == (one == other)


def test_a_changed_file_is_read_again(tmp_path: Path):
    before = data_content(table(tmp_path / "x", b"1"))
    assert data_content(table(tmp_path / "x", b"2 and more")) != before


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = table(tmp_path / "x", b"1")
    first = data_content(data)
    monkeypatch.setattr(content.files, "sha256", lambda path: pytest.fail("read again"))
    assert data_content(data) == first


def test_a_garbled_or_unwritable_cache_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = table(tmp_path / "x", b"1")
    first = data_content(data)
    for note in (tmp_path / "cache" / "eigensweep" / "content").iterdir():
        note.write_text("{")
    assert data_content(data) == first
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert data_content(data) == first


def test_an_absent_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}/none .No such file"):
        data_content(Table(path=str(tmp_path / "none")))


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data_content(table(tmp_path / "x", b"1"))
    assert len(os.listdir(tmp_path / "cache" / "eigensweep" / "content")) == 1
