"""A longer training that goes on from a shorter one, and steps that are trained again, are bitwise what a whole training gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from task_runs import StopAfter, attempt, committed, contents, scalars, task_of

from workers import continuing, taskdir
from workers.errors import ConfigError, EigensweepError
from workers.models.mlp import Mlp
from workers.models.wide_resnet import WideResnet
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.workloads.gram import Gram
from workers.workloads.position import Position
from workers.workloads.train import Train

LONG = Train(train_size=200, test_size=100, batch_size=48, num_steps=29, num_evaluations=5, continue_from=(13,))
CASES = {
    "sgd": LONG,
    "momentum_warmup": replace(LONG, optimizer=Sgd(momentum=0.9, warmup_steps=20)),
    "adam": replace(LONG, optimizer=Adam(learning_rate=1e-3, weight_decay=0.01), dtype="float64"),
    "batch_norm": replace(LONG, model=WideResnet(width=2, normalisation="batch"), optimizer=Adam(), num_steps=7, continue_from=(4,)),
    "twice": replace(LONG, optimizer=Adam(), continue_from=(5, 13), keep_state=True, num_snapshots=4),
    "wsd": replace(LONG, optimizer=Adam(schedule="wsd", warmup_steps=4, decay_steps=16)),
    "frozen": replace(LONG, optimizer=Sgd(momentum=0.9), frozen="lazy", lazy_alpha=4.0),
}


def from_scratch(root: Path, train: Train) -> Any:
    """The commit of the same training, which finds nothing to go on from."""
    assert attempt(root, train, reraise=True).outcome == "completed"
    return taskdir.read_commit(root, task_of(train).commit_name)


def kept(root: Path, commit: Any, step: int) -> dict[str, torch.Tensor]:
    return load_file(taskdir.payload_path(root, commit, f"snapshot-{step}.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("train", CASES.values(), ids=CASES)
def test_a_continued_training_is_bitwise_the_longer_one_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train):
    continued = committed(tmp_path / "continued", train)
    long = committed(tmp_path / "long", replace(train, continue_from=()))
    assert same(kept(tmp_path / "continued", continued, train.num_steps), kept(tmp_path / "long", long, train.num_steps))
    shared = {at: value for at, value in scalars(long).items() if at in scalars(continued)}
    assert len(shared) >= 3 * 4 + 5
    assert shared == {at: scalars(continued)[at] for at in shared}
    # whether the earlier training is found or not, all of the commit is the same
    inputs = task_of(train).inputs
    committed(tmp_path / "alone", train.earlier())
    monkeypatch.setattr(continuing, "EARLIER", "nothing")
    alone = from_scratch(tmp_path / "alone", train)
    assert list(inputs) == ["earlier"]
    assert alone.rows == continued.rows
    assert contents(tmp_path / "alone", alone) == contents(tmp_path / "continued", continued)


def test_a_continued_training_updates_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from workers import training

    committed(tmp_path, LONG.earlier())
    steps = []
    update = training.update
    monkeypatch.setattr(training, "update", lambda *args, **options: (steps.append(args[2]), update(*args, **options)))
    commit = committed(tmp_path, LONG)
    assert len(steps) == 29 - 13
    short = committed(tmp_path, LONG.earlier())
    per_step = {
        at: value for at, value in scalars(short).items() if at[0].endswith(("loss", "accuracy", "seen")) and not at[0].startswith("un")
    }
    assert per_step.items() <= scalars(commit).items()
    assert {step for _, step in scalars(commit)} == {0, 1, 2, 6, 13, 29}


def test_an_interrupted_continuation_ends_bit_identical(tmp_path: Path):
    whole = committed(tmp_path / "whole", LONG)
    committed(tmp_path / "cut", LONG.earlier())
    assert attempt(tmp_path / "cut", LONG, "first", stop=StopAfter(1)).checkpoint == 14
    assert attempt(tmp_path / "cut", LONG, "last").resumed_at == 14
    cut = taskdir.read_commit(tmp_path / "cut", task_of(LONG).commit_name)
    assert cut.rows == whole.rows
    assert contents(tmp_path / "cut", cut) == contents(tmp_path / "whole", whole)


def test_a_training_that_kept_no_state_is_not_gone_on_from_and_the_result_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    earlier = LONG.earlier()
    assert earlier is not None
    task = task_of(earlier)
    from workers.execute import execute

    settings = {**task.settings, "keep_state": False}
    execute(tmp_path, replace(task, settings=settings), attempt="first", code="test", reraise=True)
    without = committed(tmp_path, LONG)
    assert "begins at step 0: the training of 13 steps kept no state-13.safetensors" in capsys.readouterr().out
    assert without.rows == committed(tmp_path / "with", LONG).rows


def test_what_goes_on_from_a_diverged_training_diverges_with_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train = replace(LONG, loss="mse", optimizer=Sgd(learning_rate=1e30))
    continued = committed(tmp_path / "with", train)
    assert attempt(tmp_path / "long", replace(train, continue_from=()), reraise=True).outcome == "diverged"
    long = taskdir.read_commit(tmp_path / "long", task_of(replace(train, continue_from=())).commit_name)
    assert continued.status == long.status == "diverged"
    assert "step 1;" in continued.message == long.message
    assert repr(continued.rows) == repr(long.rows)
    assert contents(tmp_path / "with", continued) == contents(tmp_path / "long", long)
    # where the shorter one has not the snapshots that the longer one is to have, it finds out by itself
    many = replace(train, num_snapshots=200)
    without = replace(task_of(many), inputs={"earlier": task_of(train.earlier()).key})
    from workers.execute import execute

    assert execute(tmp_path / "with", without, attempt="many", code="test", reraise=True).outcome == "diverged"
    assert "begins at step 0: the training of 13 steps kept no snapshot-1.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"continue_from": (29,)}, r"continue_from must rise and end below num_steps=29, got \[29\]"),
        ({"continue_from": (13, 5)}, "must rise"),
        ({"optimizer": Sgd(schedule="cosine")}, "continue_from needs optimizer.schedule=constant, got cosine: what depends on num_steps"),
        (
            {"optimizer": Sgd(schedule="wsd", decay_steps=17)},
            "continue_from must end where the rate is still constant, at most at step 12, got 13",
        ),
        ({"optimizer": Sgd(decay_steps=3)}, "decay_steps is for optimizer.schedule=wsd, got 3 with schedule=constant"),
        (
            {"optimizer": Sgd(schedule="wsd", warmup_steps=20, decay_steps=10)},
            "decay_steps must be at most 9, the steps after the warm-up, got 10",
        ),
        ({"position_windows_per_decade": 2}, "continue_from needs position_windows_per_decade=0, got 2"),
        ({"frozen": "readout", "frozen_at": 0.5}, "continue_from needs frozen_at=0.0, got 0.5"),
    ],
)
def test_what_depends_on_the_number_of_steps_cannot_be_continued(changes: dict[str, Any], error: str):
    with pytest.raises(ConfigError, match=error):
        replace(LONG, **changes)


def test_a_decay_at_the_end_is_linear_after_the_rate_of_a_constant_schedule():
    decaying, constant = Sgd(schedule="wsd", warmup_steps=3, decay_steps=4), Sgd(warmup_steps=3)
    rates = [decaying.rate(step, 12) for step in range(12)]
    assert rates[:9] == [constant.rate(step, 100) for step in range(9)]
    assert rates[9:] == pytest.approx([0.1 * 3 / 4, 0.1 * 2 / 4, 0.1 / 4])
    assert [Sgd(schedule="wsd").rate(step, 5) for step in range(5)] == [0.1] * 5


# -- steps that were not kept -----------------------------------------------------------------------------------------

SHORT = Train(train_size=200, test_size=100, batch_size=48, num_steps=23, num_evaluations=5, num_snapshots=4)
REPLAYED = {
    "cosine": replace(SHORT, optimizer=Sgd(momentum=0.9, schedule="cosine", warmup_steps=5)),
    "adam": replace(SHORT, optimizer=Adam(schedule="linear"), model=Mlp(width=8, depth=2)),
    "continued": replace(SHORT, optimizer=Adam(), continue_from=(9,)),
    "frozen": replace(SHORT, frozen="linearised", frozen_at=0.3),
}


@pytest.mark.parametrize(("name", "keep_state"), [(name, False) for name in REPLAYED] + [("adam", True), ("frozen", True)])
def test_a_kernel_at_a_step_that_was_not_kept_is_bitwise_that_of_a_kept_one(tmp_path: Path, name: str, keep_state: bool):
    wanted, train = 17, REPLAYED[name]
    many = replace(train, num_snapshots=200)
    few = replace(train, keep_state=keep_state)
    assert wanted in set(many.snapshot_steps()) - set(few.snapshot_steps())
    for workload in (Gram(probe_size=4, snapshot=str(wanted)), Position(probe_size=8, num_micro_batches=4, snapshot=str(wanted))):
        of_kept = committed(tmp_path / "kept", replace(workload, train=many))
        of_replay = committed(tmp_path / "replay", replace(workload, train=few))
        assert of_replay.rows == of_kept.rows
        assert contents(tmp_path / "replay", of_replay) == contents(tmp_path / "kept", of_kept)


def test_a_replay_begins_at_the_nearest_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train = replace(SHORT, keep_state=True, optimizer=Adam())
    committed(tmp_path, Gram(train=train, probe_size=4, snapshot="17"))
    (step,) = [one for one in train.snapshot_steps() if 1 < one < 23]
    assert f"trains again from step {step} to step 17" in capsys.readouterr().out


def test_a_replay_that_gives_another_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from workers import replay

    committed(tmp_path, SHORT)
    losses = replay._losses
    monkeypatch.setattr(replay, "_losses", lambda found: {at: value * (1 + 1e-5) for at, value in losses(found).items()})
    with pytest.raises(EigensweepError, match=r"the replay of step 1 has train_loss=.* the training had .* another kind of device"):
        committed(tmp_path, Gram(train=SHORT, probe_size=4, snapshot="17"))


def test_an_interrupted_replay_goes_on_and_ends_bit_identical(tmp_path: Path):
    workload = Gram(train=replace(SHORT, optimizer=Adam()), probe_size=4, snapshot="17")
    whole = committed(tmp_path / "whole", workload)
    committed(tmp_path / "cut", workload.train)
    assert attempt(tmp_path / "cut", workload, "first", stop=StopAfter(8)).checkpoint == 8
    assert attempt(tmp_path / "cut", workload, "last").resumed_at == 8
    cut = taskdir.read_commit(tmp_path / "cut", task_of(workload).commit_name)
    assert cut.rows == whole.rows
    assert contents(tmp_path / "cut", cut) == contents(tmp_path / "whole", whole)


def test_a_member_of_an_ensemble_is_not_replayed_as_it_was_computed_otherwise():
    with pytest.raises(ConfigError, match="snapshot must be one of init, final, 1, 5, got '17'"):
        Gram(train=replace(SHORT, ensemble=True), probe_size=4, snapshot="17")
    Gram(train=replace(SHORT, ensemble=True), probe_size=4, snapshot="5")


def test_a_long_replay_asks_for_its_time():
    long = replace(SHORT, num_steps=10_000_000)
    assert Gram(train=long, snapshot="9000000").resources().walltime_minutes > 500
    assert Position(train=long, snapshot="9000000").resources().walltime_minutes > 500
    assert Position(train=long, snapshot="final").resources().walltime_minutes == 60


def test_a_snapshot_must_be_a_step_of_the_training():
    for name in ("0", "23", "017", "24", "-1", "half"):
        with pytest.raises(ConfigError, match="snapshot must be one of init, final, 1, 5, got .*any other step up to 22 is trained again"):
            Gram(train=SHORT, snapshot=name)
    assert Gram(train=SHORT, snapshot="17").estimated_seconds() > Gram(train=SHORT, snapshot="5").estimated_seconds()
