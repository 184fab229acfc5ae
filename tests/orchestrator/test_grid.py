"""Axes, their names, and the points of product, zip and filter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.grid import Axis, find, named, points
from workers.errors import ConfigError, UnknownName


def axis(path: str, *values: object) -> Axis:
    return Axis(path, path, "int", values)


def test_short_names_take_as_many_parts_as_they_need():
    axes = named([axis("a.model.width", 1), axis("b.model.width", 1), axis("seed", 1), axis("a.model.depth", 1)])
    assert [one.name for one in axes] == ["a_model_width", "b_model_width", "seed", "depth"]
    assert [one.name for one in named([axis("seed", 1), axis("a.seed", 1)])] == ["seed", "a_seed"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_product_has_every_point_once_and_the_last_axis_fastest(sizes: list[int]):
    found = points([axis(f"a{i}", *range(size)) for i, size in enumerate(sizes)])
    assert found == sorted(set(found))
    assert len(found) == __import__("math").prod(sizes)


def test_no_axes_give_one_point():
    assert points([]) == [()]


def test_zipped_axes_go_together():
    axes = [axis("a", 1, 2), axis("b", 1, 2, 3), axis("c", 5, 6)]
    assert points(axes, [["a", "c"]]) == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 1), (1, 1, 1), (1, 2, 1)]


def test_a_filter_sees_short_names_full_paths_and_ends_of_paths():
    axes = named([axis("g.model.width", 1, 2, 3), axis("seed", 0, 1)])
    for text in ("width >= 2 and seed = 1", "model.width >= 2 and seed = 1", "g.model.width >= 2 and seed = 1"):
        assert points(axes, filter=text) == [(1, 1), (2, 1)]
    texts = named([Axis("a.label", "a.label", "str", ("x.y", "z"))])
    assert points(texts, filter="label = 'x.y'") == [(0,)]


def test_a_filter_without_axes_keeps_all_or_refuses():
    assert points([axis("a", 1, 2)], filter="true") == [(0,), (1,)]
    with pytest.raises(ConfigError, match="leaves none of the 2 points"):
        points([axis("a", 1, 2)], filter="false")


def test_a_zipped_axis_may_repeat_a_value_and_a_point_may_not():
    assert points([axis("a", 1, 1, 2), axis("b", 3, 4, 3)], [["a", "b"]]) == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ConfigError, match="zipped axes have a=1, b=3 twice; each value makes one point"):
        points([axis("a", 1, 2, 1), axis("b", 3, 4, 3)], [["a", "b"]])
    with pytest.raises(ConfigError, match="axis a has the value 1 twice"):
        points([axis("a", 1, 2, 1)])


def test_an_axis_given_twice_is_refused():
    with pytest.raises(ConfigError, match="axis a is given twice"):
        points([axis("a", 1), axis("a", 2)])


def test_an_unknown_axis_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="no axis 'with'; did you mean 'width'"):
        find("with", [axis("width", 1)])
    with pytest.raises(UnknownName, match="no axis 'q.width'"):
        points([axis("width", 1)], filter="q.width > 0")
