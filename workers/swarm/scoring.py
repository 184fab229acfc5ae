"""How long a swarm acts and how well it did: distances to the source, the time to it, turns of a rod."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.extras import h5py_missing
from workers.settings import Settings, setting

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# F frames; E environments

TABLES: Mapping[str, Mapping[str, str]] = {
    "frames": {
        "environment": "int32",
        "frame": "int32",
        "seconds": "float64",
        "mean_distance": "float64",
        "max_distance": "float64",
        "rod_angle": "float64",
        "mean_reward": "float64",
    },
    "positions": {
        "environment": "int32",
        "frame": "int32",
        "agent": "int32",
        "x": "float64",
        "y": "float64",
        "z": "float64",
        "angle": "float64",
    },
}


@dataclass(frozen=True, kw_only=True)
class Deployment(Settings):
    """How long robots act, and what counts as success (D15): of chemotaxis, a mean distance from the origin after `scored_from_frame`."""

    num_slices: int = setting(10_000, low=1)
    slices_per_frame: int = setting(10, low=1, help="slices between two frames")
    num_environments: int = setting(1, low=1, help="independent swarms of one policy")
    start_radius: float = setting(100.0, above=0.0, unit="um", help="of the disc (ball) about the origin in which robots begin")
    scored_from_frame: int = setting(500, low=0, help="the first frame of the mean distance")
    success_distance: float = setting(15.0, above=0.0, unit="um", help="mean distance below which the source is found")
    reached_distance: float = setting(10.0, above=0.0, unit="um", help="mean distance at which the source is reached the first time ...")
    gathered_distance: float = setting(100.0, above=0.0, unit="um", help="... with nobody farther away than this")
    position_frames: int = setting(250, low=0, help="of all frames, the first so many have rows of positions; and then those of ...")
    frames_per_position: int = setting(10, low=1, help="... so many frames each one")

    trajectory: bool = setting(False, help="save these frames of the first environment as trajectory.h5md, too")

    @property
    def num_frames(self) -> int:
        """Of a whole run, the first before anything happens."""
        return 1 + self.num_slices // self.slices_per_frame

    def check(self) -> None:
        """Frames that are scored exist, and those of a trajectory; the package that writes it is there."""
        if self.trajectory and not self.position_frames:
            raise ConfigError("position_frames must be at least 1 where trajectory=true, got 0")
        if self.trajectory and (missing := h5py_missing()):
            raise ConfigError(missing)
        if self.num_slices < self.slices_per_frame:
            raise ConfigError(f"num_slices must be at least slices_per_frame={self.slices_per_frame}, got {self.num_slices}")
        if self.scored_from_frame >= self.num_frames:
            raise ConfigError(
                f"scored_from_frame must be below {self.num_frames}, the frames of {self.num_slices} slices, got {self.scored_from_frame}; "
                "raise num_slices, or lower scored_from_frame"
            )

    def with_positions(self) -> list[int]:
        """Frames whose positions are kept; none where `position_frames` is 0."""
        every = self.frames_per_position
        return [frame for frame in range(self.num_frames) if frame < self.position_frames or (self.position_frames and frame % every == 0)]


def scores(plan: Deployment, noted: "Mapping[str, Array]", frame_seconds: float) -> dict[str, float]:
    """Of frames (F, E): means over environments; `success` is the fraction of them that succeed, a time is NaN where one never arrives.

    `time_to_source` is that of the first frame at which the robots are near on average and nobody is far away. Angles of a rod (rad) give
    `revolutions_per_hour`, counter-clockwise, over the scored frames.
    """
    scored = noted["mean_distance"][plan.scored_from_frame :].mean(0)
    found = {"mean_distance": float(scored.mean()), "success": float((scored < plan.success_distance).mean())}
    found["time_to_source"] = float(_arrivals(plan, noted, frame_seconds).mean())
    found["mean_reward"] = float(noted["mean_reward"][1:].mean())
    if "rod_angle" in noted:
        angle = noted["rod_angle"]
        hours = (len(angle) - 1 - plan.scored_from_frame) * frame_seconds / 3600.0
        turned = (angle[-1] - angle[plan.scored_from_frame]).mean() / (2.0 * math.pi)
        found["revolutions_per_hour"] = float(turned / hours) if hours else math.nan
    return found


def _arrivals(plan: Deployment, noted: "Mapping[str, Array]", frame_seconds: float) -> "Array":
    """Seconds (E,) to the source."""
    import numpy as np

    there = (noted["mean_distance"] <= plan.reached_distance) & (noted["max_distance"] < plan.gathered_distance)
    return np.where(there.any(0), there.argmax(0) * frame_seconds, math.nan)
