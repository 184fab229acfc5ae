"""What a rig says and is told, checked; docs/rig.md has the messages."""

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from workers.errors import ConfigError
from workers.swarm.contacts import Rod
from workers.swarm.rig_link import PROTOCOL

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# n of the agents; D dimensions

# by the signs of force and torque: left is counter-clockwise, about +z
NAMES = ("rest", "left", "right", "forward", "forward left", "forward right", "backward", "backward left", "backward right")
UNITS = {"length_unit": "um", "time_unit": "s"}
# a camera's directors have few digits
UNIT_LENGTH = 1e-3
# their lines stay below the largest that a link takes
MOST_AGENTS = 10_000


def number_of(force: float, torque: float) -> int:
    """In NAMES."""
    if not (math.isfinite(force) and math.isfinite(torque)):
        raise ConfigError(f"a rig is told finite forces and torques alone, got {force} pN and {torque} pN um; see what the policy gives")
    return 3 * _sign(force) + _sign(torque)


def checked_hello(hello: Mapping[str, Any], address: str) -> tuple[int, int, float, Rod | None]:
    """Number of agents, of dimensions, radius and rod; ConfigError where this rig is not one for us."""
    if hello.get("protocol") != PROTOCOL:
        raise ConfigError(
            f"the rig at {address} speaks protocol {hello.get('protocol')!r}, and this is {PROTOCOL}; update the older of the two"
        )
    for name, unit in UNITS.items():
        if hello.get(name) != unit:
            raise ConfigError(f"the rig at {address} gives {name} {hello.get(name)!r}, and must give {unit!r}: have it convert")
    agents, dimensions = hello.get("num_agents"), hello.get("num_dimensions")
    if not (_is_whole(agents) and 0 < agents <= MOST_AGENTS and _is_whole(dimensions) and dimensions in (2, 3)):
        raise ConfigError(
            f"the rig at {address} must have 1 to {MOST_AGENTS} agents in 2 or 3 dimensions, got {agents!r} and {dimensions!r}"
        )
    try:
        radius = number(hello, "radius_um")
        if radius <= 0.0:
            raise ValueError(f"radius_um must be above 0, got {radius}")
        rod = _rod(hello.get("rod"))
    except ValueError as error:
        raise ConfigError(f"the hello of the rig at {address} lacks what docs/rig.md asks for: {error}") from error
    return int(agents), int(dimensions), radius, rod


def vectors(answer: Mapping[str, Any], name: str, count: int, dimensions: int, dtype: "torch.dtype") -> "Tensor":
    """(n, D), finite in `dtype`; ValueError else."""
    import torch

    try:
        values = torch.tensor(answer.get(name), dtype=torch.float64).to(dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be {count} lists of {dimensions} numbers, got {_brief(answer.get(name))}") from error
    # Matlab writes a single agent as a plain list
    flat = count <= 1 and values.numel() == count * dimensions
    if not flat and tuple(values.shape) != (count, dimensions):
        raise ValueError(f"{name} must have the shape {(count, dimensions)}, as there are {count} ids, got {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {_brief(values.tolist())}")
    return values.reshape(count, dimensions)


def ids_of(answer: Mapping[str, Any]) -> list[int]:
    """Of the agents that the rig sees, each once; ValueError else."""
    given = answer.get("ids")
    ids = [given] if _is_whole(given) else given
    if not isinstance(ids, list) or not all(_is_whole(one) for one in ids) or len(set(ids)) < len(ids):
        raise ValueError(f"ids must be different whole numbers, got {_brief(given)}")
    return [int(one) for one in ids]


def number(answer: Mapping[str, Any], name: str) -> float:
    """A finite one; ValueError else."""
    value = answer.get(name)
    if not _is_number(value):
        raise ValueError(f"{name} must be a number, got {_brief(value)}")
    return float(value)


def check_directors(directors: "Tensor") -> None:
    """ValueError unless all (n, D) have the length 1."""
    lengths = directors.square().sum(1).sqrt()
    if bool(((lengths - 1.0).abs() > UNIT_LENGTH).any()):
        raise ValueError(f"directors must have the length 1, got lengths {_brief(lengths.tolist())}")


def _rod(told: Any) -> Rod | None:
    if told is None:
        return None
    if not isinstance(told, dict) or not _is_whole(told.get("num_beads")) or told["num_beads"] < 1:
        raise ValueError(f"rod must be an object with length_um and num_beads, got {told!r}")
    return Rod(length=number(told, "length_um"), num_beads=int(told["num_beads"]))


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Within what doubles hold: JSON may say 1e999 or any whole number."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _is_whole(value: Any) -> TypeGuard[int | float]:
    return _is_number(value) and value == int(value)


def _sign(value: float) -> int:
    """0, 1 above 0, and 2 below."""
    return 0 if value == 0.0 else 1 if value > 0.0 else 2


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."
