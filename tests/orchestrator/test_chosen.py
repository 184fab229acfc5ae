"""Two stages: a sweep whose settings are the best of another's results."""

from pathlib import Path
from typing import Any

import pytest
import store_fakes as fakes

from orchestrator import plan as planning
from orchestrator import verbs
from orchestrator.compose import compose
from orchestrator.store import Store
from orchestrator.sweep import Sweep, expand
from workers.errors import ConfigError

STUDY = "workload=grid_package.study"
RATES, WIDTHS = (0.1, 0.3, 1.0), (16, 32)
# the loss of each width and rate: the mean over seeds prefers another rate at width 32 than the median
LOSS = {(16, 0.1): (3.0, 3.0, 3.0), (16, 0.3): (1.0, 1.1, 1.2), (16, 1.0): (2.0, 2.0, 2.0)}
LOSS |= {(32, 0.1): (0.5, 0.5, 9.0), (32, 0.3): (1.0, 1.0, 1.0), (32, 1.0): (5.0, 5.0, 5.0)}
BEST = "sweep.derive.rate=\"best('scan', 'rate', by=['model.width'], of='test_loss'{})\""
SECOND = (STUDY, "name=second", "model.width=16,32", "seed=7,8")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scanned(store: Store, *words: str, leave_out: int = 0, diverged: tuple[tuple[int, float], ...] = ()) -> Sweep:
    """A sweep of LOSS, committed."""
    rates, seeds = ",".join(map(str, RATES)), "seed=0,1,2"
    sweep = expand(compose([STUDY, "name=scan", f"rate={rates}", "model.width=16,32", seeds, *words]))
    assert store.write_manifest("scan", max(store.revisions("scan"), default=0) + 1, sweep.to_body())
    for i, key in list(enumerate(sweep.keys))[leave_out:]:
        at = sweep.axis_values(i)
        status = "diverged" if (at["width"], at["rate"]) in diverged and at["seed"] == 0 else "ok"
        # the first step's value is not the one that counts
        rows = {"scalars": {"step": [0, 10], "name": ["test_loss"] * 2, "value": [-1.0, LOSS[at["width"], at["rate"]][at["seed"]]]}}
        fakes.commit(store, key, ["scan"], settings=sweep.task(i).settings, rows=rows, status=status, workload=sweep.workload(i))
    return sweep


def rates(store: Store, *more: str, best: str = "") -> dict[int, Any]:
    planned = planning.prepare([*SECOND, BEST.format(best), *more], store)
    sweep = planned.sweep
    return {at["width"]: at["rate"] for i in range(len(sweep)) for at in [sweep.axis_values(i)]}


def test_each_width_gets_its_best_rate_over_the_median_or_the_mean_of_seeds(store: Store):
    scanned(store)
    assert rates(store) == {16: 0.3, 32: 0.1}
    assert rates(store, best=", across='mean'") == {16: 0.3, 32: 0.3}
    assert rates(store, best=", goal='max'") == {16: 0.1, 32: 1.0}


def test_keys_are_those_of_the_chosen_values_and_the_manifest_says_where_from(store: Store):
    scanned(store)
    planned = planning.prepare([*SECOND, BEST.format("")], store)
    by_hand = {
        key
        for width, rate in ((16, 0.3), (32, 0.1))
        for key in expand(compose([*SECOND[:2], f"rate={rate}", f"model.width={width}", "seed=7,8"])).keys
    }
    assert set(planned.sweep.keys) == by_hand
    (record,) = Sweep.from_body(planned.sweep.to_body()).chosen
    assert record["table"] == [[16, 0.3], [32, 0.1]]
    assert (record["sweep"], record["revision"], record["tasks"]) == ("scan", 1, 18)
    again = planning.prepare([*SECOND, BEST.format("")], store)
    assert again.sweep.to_body() == planned.sweep.to_body()


def test_an_optimum_at_the_edge_and_diverged_runs_are_said(store: Store):
    scanned(store, diverged=((16, 0.3),))
    notes = planning.plan([*SECOND, BEST.format("")], store).notes
    assert any("1 diverged runs are left out: (width=16, rate=0.3)" in note for note in notes)
    assert any("at the edge of what was scanned, 0.1 to 1.0 (model.width=32, rate=0.1)" in note for note in notes)
    assert any("revision 1, 18 runs until" in note and "model.width=16, rate=0.3" in note for note in notes)


def test_incomplete_results_must_wait(store: Store):
    scanned(store, leave_out=2)
    with pytest.raises(
        ConfigError,
        match=r"must wait: 2 of its tasks have no result yet: grid_package.study rate=0.1 width=16 seed=0 .*eigensweep resume scan",
    ):
        rates(store)


def test_growing_keeps_what_was_chosen_and_reads_only_what_is_new(store: Store):
    sweep = scanned(store)
    first = planning.prepare([*SECOND[:2], "model.width=16", "seed=7", BEST.format("")], store)
    assert store.write_manifest("second", 1, first.sweep.to_body())
    kept = planning.prepare([*SECOND, BEST.format("")], store).composed
    assert kept.chosen == first.composed.chosen
    # other results now: rate 1.0 is the best everywhere
    body = first.sweep.to_body()
    record = {**body["chosen"][0], "table": [[16, 1.0]]}
    assert store.write_manifest("second", 2, {**body, "chosen": [record]})
    entry = {"kind": "revision", "sweep": "second", "revision": 2, "snapshot": "x", "code": "x"}
    from orchestrator import ledger

    assert ledger.append(store.root, ledger.read(store.root), entry)
    grown = planning.prepare([*SECOND, BEST.format("")], store, grown=True)
    new = {(at["width"], at["rate"]) for i in range(len(grown.sweep)) for at in [grown.sweep.axis_values(i)] if at["seed"] == 8}
    assert new == {(16, 1.0), (32, 0.1)}
    assert len(sweep) == 18


def test_growing_says_where_a_choice_stands_on_results_that_were_taken_back(store: Store):
    from orchestrator import ledger

    def note() -> list[str]:
        notes = planning.prepare([*SECOND, BEST.format("")], store, grown=True).composed.notes
        return [one for one in notes if "has not the same results any more" in one]

    scan = scanned(store)
    second = planning.prepare([*SECOND[:2], "model.width=16,32", "seed=7", BEST.format("")], store).sweep
    assert store.write_manifest("second", 1, second.to_body())
    for name in ("scan", "second"):
        entry = {"kind": "revision", "sweep": name, "revision": 1, "snapshot": "x", "code": "x"}
        assert ledger.append(store.root, ledger.read(store.root), entry)
    assert note() == []
    # more of the scan changes nothing of what was chosen
    grown = scan.union(expand(compose([STUDY, "name=scan", "rate=0.3", "model.width=64", "seed=0"])))
    assert store.write_manifest("scan", 2, grown.to_body())
    assert ledger.append(store.root, ledger.read(store.root), {**entry, "sweep": "scan", "revision": 2})
    fakes.commit(store, grown.keys[-1], ["scan"], workload=scan.workload(0))
    assert note() == []
    assert "kept: second has chosen settings by results of scan" in verbs.retract("scan", f"key='{scan.keys[0]}'", "", store.root)
    (told,) = note()
    assert told.startswith(
        "best rate by min test_loss (median) for each model.width in 'scan': revision 1, of which it was chosen, has not"
    )
    old = fakes.taskdir.read_commit(store.root, scan.keys[0])
    fakes.commit(store, scan.keys[0], ["scan"], 1, settings=old.settings, rows=old.rows, workload=old.workload)
    assert note() == []


def test_where_every_run_diverged_it_is_said_so(store: Store):
    sweep = scanned(store)
    dead = [key for i, key in enumerate(sweep.keys) if sweep.axis_values(i)["width"] == 32]
    fakes.retract(store, *dead)
    for key in dead:
        old = fakes.taskdir.read_commit(store.root, key)
        fakes.commit(store, key, ["scan"], 1, settings=old.settings, rows=old.rows, workload=old.workload, status="diverged")
    with pytest.raises(
        ConfigError, match=r"every run of sweep 'scan' at model.width=32 diverged, .*`eigensweep add scan model.width=32 rate=...` computes"
    ):
        rates(store)


def test_axes_beside_seeds_must_be_named(store: Store):
    scanned(store, "slope=0,1")
    with pytest.raises(ConfigError, match=r"sweep 'scan' also varies model.slope: name them in by="):
        rates(store)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("best('skan', 'rate')", r"no sweep 'skan'"),
        ("best('scan', 'rite', by=['width'])", r"no axis 'rite'; did you mean 'rate'"),
        ("best('scan', 'rate', by=['width'], of='test_los')", r"no scalar 'test_los'; did you mean 'test_loss'"),
        ("best('scan', 'rate', by=['width'], goal='least')", r"goal of best\(...\) must be min or max, got 'least'"),
        ("best('scan', 'rate', bye=['width'])", r"best\(...\) takes no 'bye'; did you mean 'by'"),
        ("best('scan', seed)", r"'seed' must be a constant: a text in quotes"),
        ("best('scan')", r"takes the names of a sweep and of a setting"),
    ],
)
def test_a_choice_that_cannot_be_made_says_why(store: Store, call: str, error: str):
    scanned(store)
    with pytest.raises(ConfigError, match=error):
        planning.prepare([*SECOND, f'sweep.derive.rate="{call}"'], store)


def test_a_width_that_was_not_scanned_is_refused_with_the_command_that_scans_it(store: Store):
    scanned(store)
    with pytest.raises(ConfigError, match=r"has no result at model.width=64, .*`eigensweep add scan model.width=64` computes it"):
        planning.prepare([*SECOND[:2], "model.width=64", BEST.format("")], store)


def test_without_a_store_there_is_nothing_to_choose_from():
    with pytest.raises(ConfigError, match="needs a store with that sweep"):
        compose([*SECOND, BEST.format("")])


def test_a_scan_that_ran_is_read_and_its_own_points_are_not_run_again(store: Store):
    small = ["workload=train", "train_size=64", "test_size=32", "num_steps=8", "launcher=local", "launcher.slots=1"]
    scan = [*small, "name=scan", "learning_rate=0.001,0.1", "width=4,8"]
    verbs.submit(scan, store.root)
    best = "sweep.derive.learning_rate=\"best('scan', 'learning_rate', by=['width'])\""
    words = [*small, "name=second", "width=4,8", "seed=0,1", best]
    planned = verbs.plan(words, store.root)
    # with seed 0 the best points of the scan are there already
    assert planned.counts == {"completed": 2, "pending": 2}
    assert set(planned.derived) == {"learning_rate"}
    assert [note.partition(",")[0] for note in planned.notes][-1] == "best learning_rate by min test_loss (median) for each width in 'scan'"
