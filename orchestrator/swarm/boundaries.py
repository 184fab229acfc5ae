"""Radii below which noise is stronger than what a swimmer does: its turns, and its swimming (arXiv 2404.01999)."""

import math

__all__ = ["BOLTZMANN", "WATER", "rotational", "translational"]

# J / K
BOLTZMANN = 1.380649e-23
# Pa s, of the papers at all temperatures
WATER = 8.9e-4
# um
_MICRO = 1e6


def rotational(turn_rate: float, temperature: float = 300.0, viscosity: float = WATER, friction: float = 1.0) -> float:
    """(kT / (4 eta omega f))^(1/3) in um: noise turns a swimmer by half a turn as fast as it turns itself, at `turn_rate` (rad / s).

    `friction`: of a turn of the axis over that of a sphere of the same volume.
    """
    return _MICRO * math.cbrt(BOLTZMANN * temperature / (4 * viscosity * turn_rate * friction))


def translational(speed: float, temperature: float = 300.0, viscosity: float = WATER, friction: float = 1.0) -> float:
    """(kT / (6 pi eta s f))^(1/3) in um: noise moves a swimmer by a body length as fast as it swims, at `speed` (body lengths / s).

    `friction`: along the axis over that of a sphere of the same volume.
    """
    return _MICRO * math.cbrt(BOLTZMANN * temperature / (6 * math.pi * viscosity * speed * friction))
