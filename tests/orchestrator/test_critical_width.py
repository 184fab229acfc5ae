"""The critical width of kernels whose change is known: a broken power law with noise of known size."""

import math

import numpy as np
import pytest

from orchestrator.critical_width import at_loss, critical_width
from workers.errors import ConfigError

WIDTHS = [2**power for power in range(3, 13)]


def changes(bend: float, noise: float = 0.02, seeds: int = 5) -> dict[int, list[float]]:
    """0.5 up to `bend`, beyond it falling as the root of the width."""
    rng = np.random.default_rng(0)
    return {
        width: [0.5 * min(1.0, (bend / width) ** 0.5) * math.exp(noise * rng.standard_normal()) for _ in range(seeds)] for width in WIDTHS
    }


@pytest.mark.parametrize("bend", [64, 256])
def test_it_is_the_width_at_which_the_law_of_wide_networks_ends(bend: int):
    found = critical_width(changes(bend))
    # the bend itself lies on the line of the wider ones
    assert found.width == bend / 2
    assert found.deviation == pytest.approx(-0.5 * math.log(2.0), abs=0.08)
    assert found.wide.slope == pytest.approx(-0.5, abs=0.03)
    assert found.narrow.slope == pytest.approx(0.0, abs=0.03)
    assert found.wide.at(4096) == pytest.approx(0.5 * (bend / 4096) ** 0.5, rel=0.05)
    assert found.is_bound == (bend == 16)


def test_a_power_law_without_an_end_has_none_but_a_bound():
    found = critical_width(changes(1.0, noise=0.05), num_errors=4.0)
    assert math.isnan(found.width)
    assert found.is_bound
    assert found.wide.slope == pytest.approx(-0.5, abs=0.05)


def test_with_few_widths_below_it_is_a_bound():
    assert critical_width(changes(32)).is_bound
    assert not critical_width(changes(128)).is_bound


def test_noise_hides_a_small_deviation():
    few = {width: values[:2] for width, values in changes(64, noise=0.4).items()}
    assert math.isnan(critical_width(few).width) or critical_width(few).width < 32


def stepped(spread: dict[int, float]) -> dict[int, list[float]]:
    """A power law whose widths up to 64 lie 10 % below it; five seeds with a spread of 0.5 %, or as given."""
    found = {}
    for at, width in enumerate(WIDTHS):
        noise = np.random.default_rng(at).standard_normal(5)
        noise = (noise - noise.mean()) / noise.std(ddof=1)
        # seeds' means are 0.7 of their error away, to one side and the other: wide spread puts that of 8 above the law
        noise += 0.7 * (-1) ** at / 5**0.5
        level = width**-0.5 * (0.9 if width <= 64 else 1.0)
        found[width] = (level * np.exp(spread.get(width, 0.005) * noise)).tolist()
    return found


@pytest.mark.parametrize("spread", [{}, {8: 0.5, 16: 0.5}])
def test_the_spread_of_the_narrowest_networks_does_not_hide_a_deviation_of_wider_ones(spread: dict[int, float]):
    assert critical_width(stepped(spread)).width == 64


def test_one_seed_cannot_be_tested():
    found = critical_width({width: values[:1] for width, values in stepped({}).items()})
    assert math.isnan(found.width)
    assert not found.is_tested
    assert critical_width(changes(1.0, noise=0.05), num_errors=4.0).is_tested
    # of two seeds at some widths all have a pooled error
    some = {width: values[: 1 + (width > 64)] for width, values in stepped({}).items()}
    assert critical_width(some).is_tested


def test_the_error_of_a_slope_is_its_spread_over_draws_of_the_seeds():
    found, slopes = [], []
    for draw in range(200):
        noise = np.random.default_rng(draw).standard_normal((len(WIDTHS), 5))
        line = critical_width(
            {width: (width**-0.5 * np.exp(0.1 * noise[at])).tolist() for at, width in enumerate(WIDTHS)}, num_errors=99.0
        ).wide
        found.append(line.error)
        slopes.append(line.slope)
    assert np.mean(found) == pytest.approx(np.std(slopes), rel=0.15)


def test_too_few_widths_are_refused():
    with pytest.raises(ConfigError, match="needs at least 4 widths, got 8, 16, 32"):
        critical_width({8: [1.0], 16: [1.0], 32: [1.0]})


def test_values_at_a_loss_are_interpolated_in_logarithms():
    steps = [1.0, 10.0, 100.0]
    assert at_loss([1.0, 0.1, 0.01], steps, 10**-0.5) == pytest.approx(10**0.5)
    assert at_loss([1.0, 0.1, 0.01], steps, 0.1) == pytest.approx(10.0)
    assert math.isnan(at_loss([1.0, 0.1, 0.01], steps, 0.001))
