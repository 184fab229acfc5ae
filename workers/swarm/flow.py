"""How a flow carries and turns spheres and spheroids (Jeffery 1922)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm.sums import dot

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.field import Field

# D dimensions, first; R = 1 rate of turning about z in a plane, 3 in space


def elongation(aspect: float) -> float:
    """(p^2 - 1) / (p^2 + 1) of a spheroid of aspect ratio p: 1 of a needle, 0 of a sphere, -1 of a disc."""
    return (aspect * aspect - 1.0) / (aspect * aspect + 1.0)


def carried(fields: "Sequence[Field]", positions: "Tensor") -> "tuple[Tensor, Tensor] | None":
    """Velocity (D, ...) and its gradient (D, D, ...) of all flows together at `positions`; None where the fluid rests everywhere."""
    found: tuple[Tensor, Tensor] | None = None
    for field in fields:
        velocity, gradient = field.velocity(positions), field.gradient(positions)
        if (velocity is None) != (gradient is None):
            raise ConfigError(
                f"the field {field.plugin_name()} gives {'a gradient' if velocity is None else 'a velocity'} without the other; "
                "a flow must give both, other fields neither"
            )
        if velocity is not None and gradient is not None:
            found = (velocity, gradient) if found is None else (found[0] + velocity, found[1] + gradient)
    return found


def turning(gradient: "Tensor", directors: "Tensor", elongations: "Tensor") -> "Tensor":
    """Rates (R, ...) at which directors (D, ...) turn: half the vorticity, and for spheroids the elongation times e x (E e)."""
    import torch

    if len(directors) == 2:
        (xx, xy), (yx, yy) = gradient
        x, y = directors
        shear, stretch = 0.5 * (xy + yx), 0.5 * (xx - yy)
        rate: Tensor = 0.5 * (yx - xy) + elongations * (shear * (x * x - y * y) - 2.0 * stretch * x * y)
        return rate[None]
    vorticity = torch.stack([gradient[2, 1] - gradient[1, 2], gradient[0, 2] - gradient[2, 0], gradient[1, 0] - gradient[0, 1]])
    strained = torch.stack([dot(row, directors) for row in gradient + gradient.transpose(0, 1)])
    found: Tensor = 0.5 * (vorticity + elongations * torch.linalg.cross(directors, strained, dim=0))
    return found
