"""Training runs of an ensemble: the rows, files and checkpoints of runs alone, whoever stops, diverges or goes on beside them."""

import math
import threading
from dataclasses import dataclass, replace

import pytest
import torch
from task_runs import attempt, committed, last, scalars, task_of

from workers import files, taskdir
from workers.ensembles.groups import group_of
from workers.ensembles.starts import common_starts
from workers.errors import ConfigError
from workers.execute import execute_many
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.models.wide_resnet import WideResnet
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.schedule import ScheduledOptimizer
from workers.workloads.train import Train

# batches do not divide the training set, and the run spans several epochs
SHORT = Train(train_size=200, test_size=100, batch_size=48, num_steps=23, num_evaluations=5, num_snapshots=4, ensemble=True)
SEEDS = [replace(SHORT, seed=seed) for seed in range(3)]
RATES = [replace(SHORT, optimizer=Sgd(learning_rate=rate, weight_decay=decay)) for rate, decay in ((0.1, 0), (0.02, 0.1), (0.1, 0.1))]
LANGEVIN = [replace(SHORT, seed=s, optimizer=Sgd(learning_rate=0.05, langevin_temperature=t)) for s, t in ((0, 1e-4), (0, 0), (1, 1e-3))]
LANGEVIN.append(replace(LANGEVIN[0], seed_noise=3))
TEMPERATURES = [replace(SHORT, logit_temperature=temperature) for temperature in (0.5, 1.0, 4.0)]


class StopAfter(threading.Event):
    """Is set when it is asked for the n-th time: an ensemble asks once a step."""

    def __init__(self, num_steps):
        super().__init__()
        self.left = num_steps

    def is_set(self):
        self.left -= 1
        return self.left <= 0


def together(root, workloads, name="a", *, stop=None):
    """One execution of all; how each ended, by its number."""
    tasks, ended = [task_of(workload) for workload in workloads], {}
    attempts = [f"{name}-{number}" for number in range(len(tasks))]
    execute_many(root, tasks, attempts=attempts, code="test", stop=stop, told=lambda attempt, end: ended.setdefault(attempt, end))
    return [ended[one] for one in attempts]


def commits(root, workloads):
    return [taskdir.read_commit(root, task_of(workload).commit_name) for workload in workloads]


def contents(root, commit):
    return {payload.name: taskdir.payload_path(root, commit, payload.name).read_bytes() for payload in commit.files}


@pytest.mark.parametrize(
    "workloads",
    [SEEDS, RATES, LANGEVIN, TEMPERATURES, [replace(one, model=Cnn(width=2), num_steps=7) for one in SEEDS]],
    ids=["seeds", "rates", "langevin", "temperatures", "cnn"],
)
def test_members_have_the_rows_of_runs_alone(tmp_path, workloads):
    """In float64, so that nothing but rounding is left; alone in the arithmetic of single runs."""
    workloads = [replace(one, dtype="float64") for one in workloads]
    assert {ended.outcome for ended in together(tmp_path, workloads)} == {"completed"}
    for ours, workload in zip(commits(tmp_path, workloads), workloads, strict=True):
        alone = committed(tmp_path, replace(workload, ensemble=False))
        assert scalars(ours) == pytest.approx(scalars(alone), rel=1e-9)
        assert [payload.name for payload in ours.files] == [payload.name for payload in alone.files]
    assert len({last(commit)["train_loss"] for commit in commits(tmp_path, workloads)}) > 1


def test_subsets_orders_and_initialisations_of_their_own_are_kept_apart(tmp_path):
    workloads = [
        replace(SHORT, dtype="float64"),
        *(replace(SHORT, dtype="float64", **{f"seed_{role}": 7}) for role in ("init", "subset", "order")),
    ]
    together(tmp_path, workloads)
    for ours, workload in zip(commits(tmp_path, workloads), workloads, strict=True):
        assert scalars(ours) == pytest.approx(scalars(committed(tmp_path, replace(workload, ensemble=False))), rel=1e-9)


@pytest.mark.parametrize("workloads", [SEEDS, RATES, LANGEVIN, [replace(one, optimizer=Adam()) for one in SEEDS]])
@pytest.mark.parametrize("stops", [(1,), (2, 3)])
def test_an_interrupted_ensemble_ends_bit_identical_to_an_uninterrupted_one(tmp_path, workloads, stops):
    together(tmp_path / "whole", workloads)
    for number, stop in enumerate(stops):
        ended = together(tmp_path / "cut", workloads, f"cut{number}", stop=StopAfter(stop))
        assert {one.outcome for one in ended} <= {"interrupted", "timeout_progress"}
        assert {one.checkpoint for one in ended} == {sum(stops[: number + 1])}
    assert {one.resumed_at for one in together(tmp_path / "cut", workloads, "last")} == {sum(stops)}
    for cut, whole in zip(commits(tmp_path / "cut", workloads), commits(tmp_path / "whole", workloads), strict=True):
        assert cut.rows == whole.rows
        assert contents(tmp_path / "cut", cut) == contents(tmp_path / "whole", whole)


def test_on_one_thread_members_go_on_bit_identically_alone_and_in_other_company(tmp_path):
    workloads = [replace(one, model=Mlp(width=512), optimizer=Adam()) for one in SEEDS]  # of products that oneDNN computes
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together(tmp_path / "whole", workloads)
        together(tmp_path / "cut", workloads, "cut", stop=StopAfter(9))
        together(tmp_path / "cut", workloads[1:], "pair")
        assert attempt(tmp_path / "cut", workloads[0], "alone").resumed_at == 9
    finally:
        torch.set_num_threads(before)
    for cut, whole in zip(commits(tmp_path / "cut", workloads), commits(tmp_path / "whole", workloads), strict=True):
        assert cut.rows == whole.rows


def test_members_killed_between_their_checkpoints_go_on_from_the_step_that_all_have(tmp_path):
    often = [replace(one, checkpoint_every_seconds=1e-9) for one in SEEDS]
    together(tmp_path / "whole", often)
    together(tmp_path / "cut", often, "cut", stop=StopAfter(9))
    newest = list((tmp_path / "cut").glob("tasks/*/*/attempts/cut-1/checkpoint-000000000009.*"))
    assert len(newest) == 2
    for path in newest:
        path.unlink()
    assert {one.resumed_at for one in together(tmp_path / "cut", often, "last")} == {8}
    assert [one.rows for one in commits(tmp_path / "cut", often)] == [one.rows for one in commits(tmp_path / "whole", often)]


def test_a_member_that_lacks_the_step_of_the_slowest_goes_on_from_its_own_newest(tmp_path):
    """Checkpoints at 4 and 9 of one, at 6 of the other."""
    for stop, members in ((4, SEEDS[:1]), (5, SEEDS[:1]), (6, SEEDS[1:2])):
        together(tmp_path, members, f"cut{stop}", stop=StopAfter(stop))
    assert [one.resumed_at for one in together(tmp_path, SEEDS[:2], "last")] == [9, 6]
    for ours, workload in zip(commits(tmp_path, SEEDS[:2]), SEEDS, strict=False):
        assert scalars(ours) == pytest.approx(scalars(committed(tmp_path / "alone", workload)), rel=1e-5)


def test_a_member_without_the_others_checkpoint_makes_an_ensemble_of_its_own(tmp_path):
    together(tmp_path, SEEDS[:2], "cut", stop=StopAfter(9))
    assert [one.resumed_at for one in together(tmp_path, SEEDS, "last")] == [9, 9, None]
    together(tmp_path / "whole", SEEDS)
    for ours, whole in zip(commits(tmp_path, SEEDS), commits(tmp_path / "whole", SEEDS), strict=True):
        assert scalars(ours) == pytest.approx(scalars(whole), rel=1e-5)


def test_a_member_that_diverges_is_committed_as_such_and_the_others_go_on_untouched(tmp_path):
    workloads = [SEEDS[0], replace(SEEDS[1], optimizer=Sgd(learning_rate=1e30)), SEEDS[2]]
    ended = together(tmp_path, workloads)
    assert [one.outcome for one in ended] == ["completed", "diverged", "completed"]
    assert "try a smaller optimizer.learning_rate" in ended[1].message
    first, second, third = commits(tmp_path, workloads)
    assert second.status == "diverged"
    assert not math.isfinite(last(second)["test_loss"])
    for ours, workload in ((first, workloads[0]), (third, workloads[2])):
        assert scalars(ours) == pytest.approx(scalars(committed(tmp_path / "alone", workload)), rel=1e-4)


def test_mean_losses_of_many_seeds_are_those_of_runs_alone_within_their_standard_error(tmp_path):
    workloads = [replace(SHORT, num_steps=200, seed=seed, num_snapshots=2, optimizer=Adam(learning_rate=3e-3)) for seed in range(8)]
    together(tmp_path, workloads)
    ours = torch.tensor([last(commit)["test_loss"] for commit in commits(tmp_path, workloads)])
    alone = torch.tensor([last(committed(tmp_path, replace(one, ensemble=False)))["test_loss"] for one in workloads])
    assert (ours.mean() - alone.mean()).abs() < alone.std() / math.sqrt(len(alone))


def test_a_failure_of_the_ensemble_is_one_of_all_that_are_not_done(tmp_path):
    wrong = [replace(one, train_size=99999) for one in SEEDS]
    ended = together(tmp_path, wrong)
    assert {one.outcome for one in ended} == {"user_error"}
    assert "train_size must be at most 1438" in ended[2].message


def test_members_share_the_time_of_their_ensemble_and_each_attempt_lasts_all_of_it(tmp_path):
    ended = together(tmp_path, SEEDS)
    for commit, end in zip(commits(tmp_path, SEEDS), ended, strict=True):
        assert 0 < commit.seconds <= end.seconds / 3


class Restored:
    """A run whose checkpoints come and go: what each look for one finds."""

    def __init__(self, *found):
        self.started_at, self.found = -1, list(found)

    def restore(self, at_most=None):
        return self.found.pop(0)


@pytest.mark.parametrize(
    ("fast", "start"),
    [((20, 10), 10), ((20, None, None), 20), ((20, None, 30), 30), ((20, 5, 20), 20), ((20, 5, None), 5)],
)
def test_a_run_goes_on_from_the_state_that_it_has_where_checkpoints_vanish(fast, start):
    run = Restored(*fast)
    assert common_starts([Restored(10), run]) == sorted({10, start})
    assert run.started_at == start


def test_a_run_alone_is_computed_as_a_member_is(tmp_path):
    assert attempt(tmp_path, SEEDS[0]).outcome == "completed"
    together(tmp_path / "other", SEEDS[:1])
    assert commits(tmp_path, SEEDS[:1])[0].rows == commits(tmp_path / "other", SEEDS[:1])[0].rows


def test_rounding_between_two_executions_of_a_member_is_no_difference(tmp_path):
    together(tmp_path, SEEDS)
    assert difference_of_a_hundred_thousandth(tmp_path, SEEDS[0]) == ""
    alone = replace(SEEDS[0], ensemble=False)
    committed(tmp_path, alone)
    assert "row 0" in difference_of_a_hundred_thousandth(tmp_path, alone)


def difference_of_a_hundred_thousandth(root, workload):
    """What a second execution says where the commit that stands is so much off."""
    path = taskdir.commit_path(root, task_of(workload).commit_name)
    body = files.read(path)
    body["rows"]["scalars"]["value"] = [value * (1 + 1e-5) for value in body["rows"]["scalars"]["value"]]
    path.unlink()
    path.write_bytes(files.encode(body))
    return attempt(root, workload, "second").difference


def test_tasks_that_differ_in_the_axes_of_their_workload_go_together_and_no_others():
    tasks = [task_of(one) for one in (*SEEDS, *RATES, *TEMPERATURES)]
    assert len({group_of(task) for task in tasks}) == 1
    others = [replace(SHORT, ensemble=False), replace(SHORT, train_size=100), replace(SHORT, optimizer=Adam()), replace(SHORT, num_steps=9)]
    groups = [group_of(task_of(one)) for one in others]
    assert groups[0] == ""
    assert len({group_of(tasks[0]), *groups}) == 5
    for changed in ({"alone": True}, {"halvings": 1}, {"num_failed": 1}):
        assert group_of(replace(tasks[0], **changed)) == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": WideResnet(width=2, normalisation="batch")}, "ensemble must be false for a model with batch normalisation"),
        ({"position_windows_per_decade": 2}, "position_windows_per_decade must be 0 with ensemble=true, got 2; set ensemble=false"),
    ],
)
def test_what_an_ensemble_cannot_do_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        replace(SHORT, **settings)


@dataclass(frozen=True, kw_only=True)
class Whitening(ScheduledOptimizer):
    """An optimiser that looks at a matrix as a whole."""


def test_an_optimiser_that_looks_at_more_than_one_weight_is_refused():
    with pytest.raises(
        ConfigError, match=r"ensemble must be false with optimizer=.*, which does not treat each weight by itself, got true"
    ):
        replace(SHORT, optimizer=Whitening())


def test_axes_are_settings_of_the_workload():
    plain = SHORT.to_plain()
    for path in Train.ensemble_axes:
        first, _, rest = path.partition(".")
        assert rest in plain[first] if rest else first in plain


def test_a_temperature_is_one_of_the_cross_entropy():
    with pytest.raises(ConfigError, match=r"logit_temperature must be 1 with loss=mse, got 2.0; take loss=cross_entropy"):
        Train(logit_temperature=2.0, loss="mse")


def test_noise_with_momentum_is_refused():
    with pytest.raises(ConfigError, match="langevin_temperature must be 0 with momentum"):
        Sgd(momentum=0.9, langevin_temperature=0.1)
