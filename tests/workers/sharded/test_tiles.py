"""Tiles on disk are found again, certified by their sums and told apart from damaged ones."""

import numpy as np
import pytest

from tests.workers.sharded.tiles_on_disk import symmetric, written
from workers.errors import Garbled
from workers.sharded.tiles import TileSet


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("panel_rows", [3, 10, 11])
def test_an_index_gives_tiles_and_sums_back(tmp_path, dtype, panel_rows):
    kernel = symmetric(10, dtype)
    written(tmp_path, kernel, panel_rows).save(tmp_path / "tiles.json")
    found = TileSet.load(tmp_path / "tiles.json")
    for i, j in found.panels.pairs():
        rows, columns = found.panels.rows(i), found.panels.rows(j)
        assert np.array_equal(found.tile(i, j), kernel[rows.start : rows.stop, columns.start : columns.stop])
        assert found.is_intact((i, j))
    exact = kernel.astype("float64")
    assert found.trace == pytest.approx(np.trace(exact), rel=1e-14)
    assert found.frobenius == pytest.approx(np.linalg.norm(exact), rel=1e-14)
    assert found.num_bytes == sum(tile.nbytes for tile in (found.tile(*pair) for pair in found.panels.pairs()))


def test_a_flipped_bit_is_found(tmp_path):
    found = written(tmp_path, symmetric(10), 4)
    path = found.path(0, 1)
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    assert [pair for pair in found.panels.pairs() if not found.is_intact(pair)] == [(0, 1)]


def test_a_lost_or_changed_file_is_named(tmp_path):
    found = written(tmp_path, symmetric(10), 4)
    found.path(0, 2).unlink()
    assert not found.is_intact((0, 2))
    np.save(found.path(0, 1), np.zeros((2, 2)))
    with pytest.raises(Garbled, match=r"tile-00000-00001.npy holds float64 \(2, 2\), expected float64 \(4, 4\)"):
        found.tile(0, 1)
    found.path(1, 1).write_bytes(b"\x93NUMPY garbage")
    with pytest.raises(Garbled, match=r"tile-00001-00001.npy is no tile"):
        found.tile(1, 1)


def test_an_index_names_every_tile(tmp_path):
    found = written(tmp_path, symmetric(10), 4)
    with pytest.raises(Garbled, match=r"1 of 6 tiles are missing in .*, \(0, 1\) the first"):
        TileSet.of(found.panels, "float64", tmp_path, [facts for pair, facts in found.facts.items() if pair != (0, 1)])


def test_elements_come_from_the_tiles_that_have_them(tmp_path):
    kernel = symmetric(10)
    found = written(tmp_path, kernel, 4)
    rows, columns = np.array([9, 0, 5, 4, 3]), np.array([1, 8, 7, 7])
    assert np.array_equal(found.elements(rows, columns), kernel[np.ix_(rows, columns)])
