"""What tasks are expected to take, by shape."""

from orchestrator.compose import compose
from orchestrator.estimates import expected_seconds
from orchestrator.sweep import Sweep, expand
from workers.taskdir import shape_name


def sweep(*words: str) -> Sweep:
    return expand(compose(list(words)))


def test_a_shape_takes_as_long_as_its_longest_task_by_the_workloads_guess():
    found = sweep("workload=noop", "index=0,1", "seconds=3,7,20,90")
    shapes = {seconds: shape_name("noop", found.resources(n).to_plain()) for n, seconds in enumerate([3, 7, 20, 90] * 2)}
    assert len(set(shapes.values())) == 2, "a walltime of at least a minute is twice the time"
    assert expected_seconds(found, {}) == {shapes[20]: 20.0, shapes[90]: 90.0}


def test_what_ran_counts_more_than_a_guess():
    found = sweep("workload=noop", "seconds=7")
    shape = shape_name("noop", found.resources(0).to_plain())
    assert expected_seconds(found, {shape: 99.0, "another": 1.0}) == {shape: 99.0, "another": 1.0}


def test_a_workload_that_does_not_guess_has_no_expectation():
    found = expected_seconds(sweep("workload=grid_package.modes", "study.seed=1,2"), {})
    assert {shape.split()[0] for shape in found} == {"grid_package.study"}
