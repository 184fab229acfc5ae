"""Friction of spheres and spheroids in a viscous fluid (Stokes; Oberbeck; Perrin), and the viscosity of water."""

import math
from dataclasses import dataclass

from workers.errors import ConfigError

# pN um / K; a viscosity in Pa s is the same number in pN s / um^2
BOLTZMANN = 1.380649e-5
# |axial / equatorial - 1| below which a spheroid is a sphere: the formulas lose their digits to cancellation
ROUND = 1e-5
WATER_KELVIN = (253.15, 383.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Friction:
    """Of one particle along its director and across it, translation (pN s / um) and rotation of the director (pN um s)."""

    along: float
    across: float
    rotation: float

    def diffusion(self, temperature: float) -> tuple[float, float, float]:
        """kT / gamma at `temperature` (K): along, across (um^2 / s), and of the director (1 / s)."""
        energy = BOLTZMANN * temperature
        return energy / self.along, energy / self.across, energy / self.rotation


def sphere(radius: float, viscosity: float) -> Friction:
    """6 pi eta R and 8 pi eta R^3 (Stokes); `radius` in um, `viscosity` in Pa s."""
    translation = 6.0 * math.pi * viscosity * radius
    return Friction(along=translation, across=translation, rotation=8.0 * math.pi * viscosity * radius**3)


def spheroid(radius: float, aspect: float, viscosity: float) -> Friction:
    """Of a spheroid of the volume of a sphere of `radius` (um), its axis along the director `aspect` times as long as the others.

    Translation after Oberbeck, rotation of the axis after Perrin. Raises ConfigError unless both are above 0.
    """
    if not (radius > 0 and aspect > 0 and viscosity > 0):
        raise ConfigError(f"radius, aspect and viscosity must be above 0, got {radius}, {aspect} and {viscosity}")
    if abs(aspect - 1.0) < ROUND:
        return sphere(radius, viscosity)
    equatorial, axial = semi_axes(radius, aspect)
    long, short = max(axial, equatorial), min(axial, equatorial)
    e = math.sqrt((long - short) * (long + short)) / long
    unit = 8.0 * math.pi * viscosity * long * e**3
    if aspect > 1:
        log = math.log1p(2.0 * e / (1.0 - e))
        along, across = 2.0 * unit / ((1.0 + e * e) * log - 2.0 * e), 4.0 * unit / (2.0 * e + (3.0 * e * e - 1.0) * log)
    else:
        root, angle = e * short / long, math.asin(e)
        along, across = unit / (root - (1.0 - 2.0 * e * e) * angle), 2.0 * unit / ((1.0 + 2.0 * e * e) * angle - root)
    return Friction(along=along, across=across, rotation=_perrin(aspect) * 8.0 * math.pi * viscosity * axial * equatorial**2)


def semi_axes(radius: float, aspect: float) -> tuple[float, float]:
    """Across the director and along it, of a spheroid of the volume of a sphere of `radius`."""
    equatorial = radius * aspect ** (-1.0 / 3.0)
    return equatorial, aspect * equatorial


def _perrin(p: float) -> float:
    """Friction of a turn of the axis over that of a sphere of the same volume."""
    xi = math.sqrt(abs(p * p - 1.0)) / p
    s = 2.0 * (math.atanh(xi) if p > 1 else math.atan(xi)) / xi
    return (4.0 / 3.0) * (p**-2 - p**2) / (2.0 - s * (2.0 - p**-2))


def water_viscosity(temperature: float) -> float:
    """Of water at 0.1 MPa in Pa s (IAPWS R12-08 / supplementary release of 2011); ConfigError outside 253.15 to 383.15 K."""
    low, high = WATER_KELVIN
    if not low <= temperature <= high:
        raise ConfigError(
            f"the viscosity of water is known from {low} to {high} K, got {temperature} K; give physics.viscosity as a number instead"
        )
    terms = ((280.68, -1.9), (511.45, -7.7), (61.131, -19.6), (0.45903, -40.0))
    return 1e-6 * sum(factor * math.pow(temperature / 300.0, power) for factor, power in terms)
