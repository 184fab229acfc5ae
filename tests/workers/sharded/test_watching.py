"""What is told of a kernel while processes publish its tiles."""

import pytest
from batches import wait_for

from workers import files
from workers.context import Context
from workers.sharded import watching
from workers.sharded.watching import watched
from workers.taskdir import Task

NAMES = [f"tile-{number}.npy" for number in range(4)]


@pytest.fixture
def told():
    return []


@pytest.fixture
def context(tmp_path, told, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    task = Task(key="k" * 26, workload="noop", version=1, settings={}, inputs={})
    return Context(root=tmp_path, task=task, attempt="a", report=told.append)


def publish(context, name):
    with context.file(name) as path:
        path.write_bytes(b"x")


def shown(told):
    """The last progress that was reported."""
    return [message for message in told if "progress" in message][-1:]


def test_progress_has_the_tiles_their_speed_and_the_time_left(context, told):
    with watched(context, NAMES, 10):  # six were there before
        wait_for(lambda: shown(told), "a first look")
        assert shown(told)[0] == {"progress": [6, 10], "words": "6 of 10 tiles, 0 a second"}
        publish(context, NAMES[0])
        wait_for(lambda: shown(told)[0]["progress"] == [7, 10], "the first tile to be seen")
        words = shown(told)[0]["words"]
        assert words.startswith("7 of 10 tiles, ") and words.endswith(" s left")
        for name in NAMES[1:]:
            publish(context, name)
    assert shown(told)[0]["progress"] == [10, 10]
    assert shown(told)[0]["words"].endswith(" a second")


def test_the_last_look_is_logged_and_is_a_mark_of_progress(context, told, capsys):
    with watched(context, NAMES, 10):
        publish(context, NAMES[0])
        publish(context, NAMES[1])
    assert capsys.readouterr().out.startswith("8 of 10 tiles; 2 in ")
    assert context.checkpointed_at == 8
    assert {"checkpoint": 8} in told


def test_where_nothing_was_published_no_mark_is_left(context, capsys):
    with watched(context, NAMES, 10):
        (context.folder / NAMES[0]).touch()  # whose mark is missing
    assert "6 of 10 tiles; 0 in " in capsys.readouterr().out
    assert context.checkpointed_at is None and not [name for name in files.names(context.folder) if name.startswith("checkpoint-")]


def test_how_far_it_is_is_logged_at_intervals(context, monkeypatch, capsys):
    monkeypatch.setattr(watching, "LOG_SECONDS", 0.0)
    lines = []
    with watched(context, NAMES, 10):
        publish(context, NAMES[0])
        wait_for(lambda: lines.append(capsys.readouterr().out) or "7 of 10 tiles; 1 in " in "".join(lines), "a line of the log")
