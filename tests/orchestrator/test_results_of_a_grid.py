"""Results of a sweep that the grid itself made: axes of every type, of groups, and of inputs."""

import store_fakes as fakes

from orchestrator import ledger as ledgers
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
