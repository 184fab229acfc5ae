"""Friction of spheres and spheroids against their published limits, and the viscosity of water against its table."""

import math

import pytest

from workers.errors import ConfigError
from workers.swarm.friction import semi_axes, sphere, spheroid, water_viscosity


def test_a_sphere_of_a_micrometre_in_water_at_300_kelvin():
    along, across, rotation = sphere(1.0, 8.9e-4).diffusion(300.0)
    assert along == across == pytest.approx(0.2469, abs=5e-5)
    assert rotation == pytest.approx(0.1852, abs=5e-5)


@pytest.mark.parametrize(
    ("aspect", "expected"),
    [(3.0, (0.9738, 1.1979, 2.3408)), (1 / 3, (1.2673, 1.0380, 1.4645))],
)
def test_spheroids_over_the_sphere_of_their_volume(aspect: float, expected: tuple[float, float, float]):
    own, round_ = spheroid(1.0, aspect, 8.9e-4), sphere(1.0, 8.9e-4)
    found = own.along / round_.along, own.across / round_.across, own.rotation / round_.rotation
    assert found == pytest.approx(expected, abs=5e-5)
    equatorial, axial = semi_axes(1.0, aspect)
    assert equatorial**2 * axial == pytest.approx(1.0)
    assert axial / equatorial == pytest.approx(aspect)


@pytest.mark.parametrize("difference", [1e-2, 1e-3, 2e-5, 9e-6, -9e-6, -2e-5, -1e-3, -1e-2])
def test_a_nearly_round_spheroid_is_nearly_a_sphere(difference: float):
    """First orders in the aspect ratio less 1, of axes a(1 + 2d/3) and a(1 - d/3): -2/15 along, 1/15 across, and 1/5 of a turn."""
    own, round_ = spheroid(1.0, 1.0 + difference, 1.0), sphere(1.0, 1.0)
    exact = 0.0 if abs(difference) < 1e-5 else difference
    assert own.along / round_.along - 1 == pytest.approx(-2 / 15 * exact, abs=2 * difference**2 + 1e-5 * abs(difference) + 2e-6)
    assert own.rotation / round_.rotation - 1 == pytest.approx(exact / 5, abs=2 * difference**2 + 2e-6)


def test_long_needles_have_twice_the_friction_across():
    own = spheroid(1.0, 1e6, 1.0)
    assert own.across / own.along == pytest.approx(2.0, rel=0.08)
    assert math.isfinite(own.rotation)


def test_flat_discs_have_the_friction_of_discs():
    """Of a disc of radius a: 16 eta a along its axis, 32/3 eta a across it and 32/3 eta a^3 for a turn of the axis."""
    own, (radius, _) = spheroid(1.0, 1e-6, 1.0), semi_axes(1.0, 1e-6)
    assert own.along == pytest.approx(16 * radius, rel=1e-4)
    assert own.across == pytest.approx(32 / 3 * radius, rel=1e-4)
    assert own.rotation == pytest.approx(32 / 3 * radius**3, rel=1e-4)


@pytest.mark.parametrize(("kelvin", "expected"), [(273.15, 1.7909e-3), (293.15, 1.0014e-3), (298.15, 0.88985e-3), (323.15, 0.54652e-3)])
def test_the_viscosity_of_water(kelvin: float, expected: float):
    assert water_viscosity(kelvin) == pytest.approx(expected, rel=5e-3)


def test_what_has_no_friction_is_refused():
    with pytest.raises(ConfigError, match="radius, aspect and viscosity must be above 0, got 0.0, 1.0 and 1.0"):
        spheroid(0.0, 1.0, 1.0)
    with pytest.raises(ConfigError, match="the viscosity of water is known from 253.15 to 383.15 K, got 150 K"):
        water_viscosity(150)
