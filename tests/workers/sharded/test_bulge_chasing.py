"""The tridiagonal matrix of a band has the band's eigenvalues, whatever its size, width and scale and however many threads chase."""

import numpy as np
import pytest

pytest.importorskip("numba")

from workers.sharded import bulge_chasing, scalapack_band
from workers.sharded.bulge_chasing import tridiagonal

SHAPES = [(1, 0), (1, 3), (2, 1), (3, 2), (5, 1), (9, 0), (10, 3), (30, 64), (64, 64), (65, 64), (130, 31), (257, 64), (333, 16), (1000, 2)]


def band_of(size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A random band (B + 1, R), lower, and the whole matrix."""
    band, whole = np.random.default_rng(size).standard_normal((width + 1, size)), np.zeros((size, size))
    for below in range(min(width + 1, size)):
        band[below, size - below :] = 0
        whole += np.diag(band[below, : size - below], -below)
    band[size:] = 0
    return band, whole + np.tril(whole, -1).T


def eigenvalues_of(diagonal: np.ndarray, off_diagonal: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off_diagonal, -1))


@pytest.mark.parametrize(("size", "width"), SHAPES)
def test_the_eigenvalues_are_those_of_the_band_and_threads_change_no_bit(size, width):
    band, whole = band_of(size, width)
    kept = band.copy()
    found = tridiagonal(band)
    assert [part.shape for part in found] == [(size,), (size - 1,)]
    expected = np.linalg.eigvalsh(whole)
    np.testing.assert_allclose(eigenvalues_of(*found), expected, rtol=0, atol=3e-14 * abs(expected).max())
    for num_threads in (2, 5, 40):
        for part, other in zip(found, tridiagonal(band, num_threads), strict=True):
            np.testing.assert_array_equal(part, other)
    np.testing.assert_array_equal(band, kept)


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**900])
def test_squares_neither_overflow_nor_vanish(scale):
    band, _ = band_of(100, 8)
    for part, scaled in zip(tridiagonal(band), tridiagonal(band * scale), strict=True):
        np.testing.assert_array_equal(part * scale, scaled)


def test_a_matrix_of_zeros_and_one_that_is_tridiagonal_stay():
    assert not any(part.any() for part in tridiagonal(np.zeros((9, 50))))
    band, _ = band_of(50, 1)
    found = tridiagonal(np.concatenate([band, np.zeros((7, 50))]))
    np.testing.assert_array_equal(found[0], band[0])
    np.testing.assert_array_equal(found[1], band[1, :49])


def test_what_is_not_finite_stays_so():
    band, _ = band_of(100, 8)
    band[3, 40] = np.nan
    assert np.isnan(tridiagonal(band)[0]).any()


@pytest.mark.parametrize("num_threads", [1, 4])
def test_a_thread_that_fails_ends_the_others(monkeypatch, num_threads):
    run_stage, calls = bulge_chasing._run_stage, []

    def failing(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 20:
            raise MemoryError("of a thread")
        run_stage(*arguments)

    monkeypatch.setattr(bulge_chasing, "_run_stage", failing)
    with pytest.raises(MemoryError, match="of a thread"):
        tridiagonal(band_of(500, 8)[0], num_threads)
    assert len(calls) < 20 + 4


def test_where_nothing_can_be_kept_on_disk_it_is_compiled_for_this_process(monkeypatch):
    asked, njit = [], bulge_chasing.numba.njit

    def refusing(function: object, *, cache: bool = False, **how: object) -> object:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **how)

    monkeypatch.setattr(bulge_chasing.numba, "njit", refusing)
    assert bulge_chasing._compiled(lambda x: x + 1)(2) == 3
    assert asked == [True, False]


def test_lapack_is_left_bands_of_few_rows_too_little_memory_or_no_numba(monkeypatch):
    large, small = np.zeros((65, scalapack_band.FEWEST_CHASED)), np.zeros((65, scalapack_band.FEWEST_CHASED - 1))
    assert scalapack_band._chases_itself(large, None) and scalapack_band._chases_itself(large, 1.0)
    assert not scalapack_band._chases_itself(small, None)
    assert not scalapack_band._chases_itself(large, 0.25)
    monkeypatch.setattr(scalapack_band.importlib.util, "find_spec", lambda name: None)
    assert not scalapack_band._chases_itself(large, None)
