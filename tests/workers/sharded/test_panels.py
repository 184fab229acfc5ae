"""Panels cover every row once, tiles every pair of rows once, and shares are even."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.errors import ConfigError
from workers.sharded.panels import Panels

SIZES = st.builds(Panels, st.integers(1, 100), st.integers(1, 40))


@given(SIZES)
def test_panels_cover_each_row_once(panels):
    assert [row for panel in range(len(panels)) for row in panels.rows(panel)] == list(range(panels.num_rows))


@settings(deadline=None)
@given(SIZES, st.integers(1, 9))
def test_each_tile_has_one_owner_and_the_triangle_is_whole(panels, num_owners):
    shares = panels.shares(num_owners)
    assert len(shares) == num_owners
    assert sorted(pair for share in shares for pair in share) == list(panels.pairs())
    assert sum(map(panels.elements, panels.pairs())) == panels.num_rows * (panels.num_rows + 1) // 2


@settings(deadline=None)
@given(SIZES, st.integers(1, 9))
def test_no_owner_has_more_than_another_by_over_one_tile(panels, num_owners):
    loads = [sum(map(panels.elements, share)) for share in panels.shares(num_owners)]
    assert max(loads) - min(loads) <= max(map(panels.elements, panels.pairs()))


def test_an_owner_goes_along_few_rows():
    """2 owners of 20 x 20 panels: what is kept of a row panel is made for 20 rows and a few that are shared."""
    shares = Panels(20, 1).shares(2)
    assert sum(len({i for i, _ in share}) for share in shares) <= 22


@pytest.mark.parametrize(("sizes", "name"), [((0, 4), "num_rows"), ((4, 0), "panel_rows")])
def test_sizes_are_positive(sizes, name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        Panels(*sizes)
