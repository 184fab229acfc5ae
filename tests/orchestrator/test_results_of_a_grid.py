"""Results of a sweep that the grid itself made: axes of every type, of groups, and of inputs."""

import store_fakes as fakes

from orchestrator import ledger as ledgers
from orchestrator import verbs
from orchestrator.collect import compact
from orchestrator.compose import compose
from orchestrator.results import load
from orchestrator.store import Store
from orchestrator.sweep import expand


def test_axes_of_a_grid_are_typed_columns_and_reach_the_inputs(store: Store) -> None:
    sweep = expand(compose(["workload=noop", "index=0,1,2", "seconds=0.0,0.5", "name=w1"]))
    assert store.write_manifest("w1", 1, sweep.to_body())
    for i, key in enumerate(sweep.keys):
        fakes.commit(store, key, ["w1"], settings=sweep.task(i).settings)
    for _ in range(2):
        results = load("w1", store.root)
        frame = results.scalars().collect()
        assert {str(frame.schema[name]) for name in ("index", "seconds")} == {"Int64", "Float64"}
        assert len(frame) == 24
        task = results.task(index=2, seconds=0.5)
        assert (task.settings["index"], task.settings["seconds"]) == (2, 0.5)
        assert [axis.name for axis in results.axes] == results.axis_names == ["index", "seconds"]
        assert results.tasks().collect()["seconds_axis"].sort().to_list() == [0.0] * 3 + [0.5] * 3
        compact(store, ledgers.read(store.root))


def test_a_training_that_is_a_points_input_and_that_another_goes_on_from_is_in_the_tables(store: Store) -> None:
    lengths = ("train.num_steps=6,10", "train.continue_from=[],[6]", "sweep.zip=[[train.num_steps,train.continue_from]]")
    sweep = expand(compose(["workload=position", "train.train_size=64", "name=w1", *lengths]))
    assert store.write_manifest("w1", 1, sweep.to_body())
    for i, key in enumerate(sweep.keys[1:], start=1):
        fakes.commit(store, key, ["w1"], settings=sweep.task(i).settings, workload=sweep.workload(i))
    assert [words.partition(" (")[0] for _, words in load("w1", store.root).missing()] == ["train num_steps=6 continue_from=()"]
    fakes.commit(store, sweep.keys[0], ["w1"], settings=sweep.task(0).settings, workload="train")
    for _ in range(2):
        assert sorted(set(load("w1", store.root).scalars().collect()["num_steps"])) == [6, 10]
        compact(store, ledgers.read(store.root))


def test_a_training_that_goes_on_from_a_diverged_one_has_a_result(store: Store) -> None:
    words = ["workload=train", "name=long", "launcher=inline", "train_size=64", "test_size=32", "num_steps=12", "continue_from=[6]"]
    status = verbs.submit([*words, "loss=mse", "learning_rate=1e30"], store.root)
    assert status.counts == {"completed": 2}
    results = load("long", store.root)
    assert results.tasks().collect()["status"].to_list() == ["diverged"]
    assert results.missing() == []
