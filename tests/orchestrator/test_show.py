"""What is printed hides no failure, fits a terminal, and costs nothing for large sweeps."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import show
from orchestrator.plan import Plan
from orchestrator.status import Status

STATES = ("completed", "running", "queued", "pending", "failed", "blocked", "cancelled")


def status(**changes: object) -> Status:
    fields = dict(
        name="w1", root="/tmp/s", revision=2, total=8, counts={"completed": 5, "running": 1, "pending": 1, "failed": 1},
        by_workload={"train": {"completed": 5, "running": 1, "pending": 1, "failed": 1}},
        by_axis=[("width", [(32, {"completed": 4}), (64, {"completed": 1, "running": 1, "pending": 1, "failed": 1})])],
        causes=[("user_error", 1, "ValueError: no\nsecond line", "abcdefghijklmnop")], num_diverged=0, broken={}, paused="",
        jobs=[{"token": "w1-0", "launcher": "local", "state": "running", "running": 1, "ended": 6, "total": 8}],
        running=["train width=64 seed=0 50 %"],
        eta=(60.0, 150.0), watcher="each job ticks when it ends (1 at work)", code="c", next="eigensweep status w1 --watch",
    )  # fmt: skip
    return Status(**(fields | changes))  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(STATES), st.integers(0, 100_000)), st.integers(7, 60))
def test_a_strip_is_full_and_hides_no_state(counts: dict[str, int], cells: int) -> None:
    given_cells = show.cells_of(counts, cells)
    assert set(given_cells) == {state for state, number in counts.items() if number}
    assert sum(given_cells.values()) == (cells if given_cells else 0)
    assert all(number > 0 for number in given_cells.values())


def test_status_says_states_causes_what_is_left_and_the_next_command() -> None:
    text = show.status(status(), color=False)
    assert "completed 5  running 1  pending 1  failed 1" in text
    assert "1/4  1 running, 1 pending, 1 failed" in text
    assert "user_error      1  ValueError: no\n" in text
    assert "eigensweep logs w1 abcdefghij\n" in text
    assert "2 tasks, 60 s to 2 min" in text
    assert "6 of 8 ended, 1 running" in text
    assert text.endswith("next: eigensweep status w1 --watch\n")


def test_status_shows_loudly_that_nobody_will_tick() -> None:
    assert "\033[31mNOBODY" in show.status(status(watcher="NOBODY: run `eigensweep tick`"), color=True)


def test_states_are_told_apart_without_colour_and_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = [show._SIGNS[state] for state in STATES]
    assert len({sign for sign, _, _ in signs}) == len({sign for _, sign, _ in signs}) == len(STATES)
    assert all(sign.isascii() for _, sign, _ in signs)


def test_an_axis_of_many_values_is_one_strip_that_shows_its_worst() -> None:
    rows = [(index, {"completed": 1}) for index in range(10_000)]
    rows[5_000] = (5_000, {"failed": 1})
    text = show.status(status(by_axis=[("index", rows)]), color=False)
    assert "index (10,000 values, 0 ... 9999)" in text
    line = text.split("9999)\n")[1].split("\n")[0].strip()
    assert len(line) == 72
    assert line.count("x") == 1


def test_lines_fit_a_wide_terminal() -> None:
    text = show.status(status(causes=[("user_error", 3, "x" * 500, "k" * 26)]), color=False)
    assert max(map(len, text.split("\n"))) <= 120


def test_values_of_an_axis_that_are_lists_are_told_apart() -> None:
    assert show._values(((0.0, 350.0), ())) == "[0, 350], [] (2)"


def test_rendering_ten_thousand_tasks_takes_milliseconds() -> None:
    axis = [(index, {"completed": 1}) for index in range(10_000)]
    now = status(by_axis=[("index", axis), ("seed", axis[:50]), ("width", axis[:10])])
    start = time.perf_counter()
    show.status(now, color=True)
    assert time.perf_counter() - start < 0.05


def test_a_plan_shows_cost_stale_and_what_leaves() -> None:
    plan = Plan(
        name="w1", target="train", total=4, axes=[("width", "model.width", [32, 64])], counts={"completed": 2, "pending": 2},
        by_workload={"train": {"completed": 2, "pending": 2}}, stale=1, leaving=["a" * 26], cost_hours=(0.1, 0.2), unknown_cost=1,
        walltime_seconds=(180.0, 360.0), num_jobs=1, slots=2, code="c",
    )  # fmt: skip
    text = show.plan(plan, color=False)
    assert "2, 1 of them stale" in text
    assert "width = 32, 64 (2)" in text
    assert "6-12 min of slot time: 3-6 min in 1 job on 2 slots; 1 tasks not counted" in text
    assert "1 tasks would leave the sweep" in text
    assert "aaaaaaaaaa" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (0.25, "0.2 s"), (40, "40 s"), (720, "12 min"), (11520, "3.2 h"), (181440, "2.1 d"), (1e6, "11.6 d")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


def test_progress_without_a_terminal_prints_a_line_only_when_something_changed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "_SECONDS_BETWEEN_LINES", 0.0)
    with show.Progress(quiet=False) as progress:
        for counts in ({"completed": 5, "failed": 3}, {"completed": 5, "failed": 3}, {"completed": 8}):
            progress.update(status(counts=counts))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "5/8, 3 failed" in lines[0]


def test_progress_on_a_terminal_is_a_live_block(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with show.Progress(quiet=False) as progress:
        progress.update(status())
    assert "train width=64 seed=0 50 %" in capsys.readouterr().err


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show.Progress(quiet=True) as progress:
        progress.update(status())
    assert capsys.readouterr() == ("", "")
