"""Trajectories of agents as H5MD 1.1 files, which MDAnalysis, znh5md and other readers of that format open, and as tables."""

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workers.errors import ConfigError, Garbled
from workers.extras import h5py_missing
from workers.swarm.contacts import Rod

if TYPE_CHECKING:
    import h5py
    import numpy as np
    import pyarrow as pa

    from workers.swarm.engine import Engine, State

    Array = np.ndarray[Any, Any]

# T frames; N agents; M particles: the agents, then the beads of the rod; D dimensions

H5MD_VERSION = (1, 1)
# MDAnalysis 2.11 refuses "um", whatever it is asked to convert, and looks for a group of this name where it has no other topology
LENGTH_UNIT, PER_UM = "nm", 1000.0
GROUP = "trajectory"
AGENT, BEAD = 0, 1
NO_ACTION = -1
# of a chunk and of what waits in memory, about
CHUNK_BYTES = 2**18
_FAILS = (OSError, KeyError, ValueError, TypeError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What holds for all frames: `radius` of an agent and edge of the periodic `box` (none: no box) in um, and what a user says of it."""

    num_agents: int
    num_dimensions: int
    radius: float
    frame_seconds: float
    box: float | None = None
    rod_length: float | None = None
    num_beads: int = 0
    action_names: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_particles(self) -> int:
        """Agents and beads."""
        return self.num_agents + self.num_beads


class TrajectoryWriter:
    """Writes frames to `path` as they come; they wait in memory until there are `flush_frames` (None: a chunk), or till `flush` or `close`.

    The path is best one that is published when it is whole, as `context.file(name)` gives. The rod's beads are particles of species 1 after
    the agents, of species 0. Positions are not folded into the box. Lengths in the file are in nm, because MDAnalysis knows no um; `read`
    gives um. Single precision survives this exactly, double to one unit in the last place.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        num_agents: int,
        num_dimensions: int,
        radius: float,
        frame_seconds: float,
        box: float | None = None,
        rod: Rod | None = None,
        action_names: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        author: str = "eigensweep",
        flush_frames: int | None = None,
    ) -> None:
        _need_h5py()
        import h5py

        if num_agents < 1 or num_dimensions not in (2, 3):
            raise ConfigError(f"a trajectory has 1 agent or more in 2 or 3 dimensions, got {num_agents} and {num_dimensions}")
        if flush_frames is not None and flush_frames < 1:
            raise ConfigError(f"flush_frames must be 1 or more, or None for whole chunks, got {flush_frames}")
        self.rod = rod
        self.header = Header(
            num_agents=num_agents,
            num_dimensions=num_dimensions,
            radius=radius,
            frame_seconds=frame_seconds,
            box=box,
            rod_length=None if rod is None else rod.length,
            num_beads=0 if rod is None else rod.num_beads,
            action_names=tuple(action_names),
            settings=dict(settings or {}),
        )
        self.num_frames = 0
        self._last: tuple[int, float] | None = None
        self._waiting: list[dict[str, Any]] = []
        self._chunk_frames = max(1, min(1024, CHUNK_BYTES // (24 * self.header.num_particles)))
        self._flush_frames = flush_frames or self._chunk_frames
        as_json = _as_json(self.header)
        self._file = h5py.File(path, "w", locking="best-effort")
        self._datasets = _make(self._file, self.header, as_json, author, self._chunk_frames)

    def append(
        self,
        step: int,
        seconds: float,
        positions: Any,
        directors: Any,
        rod_angle: float | None = None,
        actions: Any = None,
        rewards: Any = None,
        tracked: Any = None,
    ) -> None:
        """A frame: positions (N, D) in um and directors (N, D), as arrays or tensors, and actions and rewards (N,) of the slice before it.

        `tracked` (N,): whether an experiment sees the agent (else it is where it was last seen). Steps and seconds must grow.
        """
        if not self._file:
            raise ConfigError(f"the trajectory is closed, after {self.num_frames} frames; append to it before that, or write another")
        if self._last is not None and not (step > self._last[0] and seconds > self._last[1]):
            raise ConfigError(f"frames must go on in step and seconds, got step {step} at {seconds} s after {self._last}")
        if (rod_angle is None) != (self.rod is None):
            raise ConfigError(f"rod_angle is for a trajectory with a rod, and there needed: got {rod_angle}, with rod={self.rod}")
        number, flat = self.header.num_agents, (self.header.num_agents, self.header.num_dimensions)
        frame: dict[str, Any] = {"step": step, "time": seconds} | self._particles(
            _array("positions", positions, flat), _array("directors", directors, flat), rod_angle
        )
        frame["action"] = [NO_ACTION] * number if actions is None else _array("actions", actions, (number,))
        frame["reward"] = [float("nan")] * number if rewards is None else _array("rewards", rewards, (number,))
        frame["tracked"] = [True] * number if tracked is None else _array("tracked", tracked, (number,))
        if rod_angle is not None:
            frame["rod_angle"] = float(rod_angle)
        self._waiting.append(frame)
        self._last = step, seconds
        self.num_frames += 1
        if len(self._waiting) >= self._flush_frames:
            self.flush()

    def append_state(self, engine: "Engine", state: "State", *, policy: int = 0, environment: int = 0, **more: Any) -> None:
        """The state of one environment of one policy, at its engine's time; `more` as of `append`."""
        at = (slice(None), policy, environment)
        angle = None if state.rods is None else float(state.rods[policy, environment])
        self.append(engine.slices, engine.seconds, state.positions[at].T, state.directors[at].T, angle, **more)

    def flush(self) -> None:
        """Write what waits, to where it outlives this process."""
        import numpy as np

        if not self._waiting:
            return
        first, count = self.num_frames - len(self._waiting), self.num_frames
        for name, dataset in self._datasets.items():
            dataset.resize(count, axis=0)
            if name in self._waiting[0]:
                dataset[first:] = np.asarray([frame[name] for frame in self._waiting], dtype=dataset.dtype)
        _fill(self._datasets, self.header, first)
        self._file.flush()
        self._waiting.clear()

    def close(self) -> None:
        """Write what waits and end the file."""
        if self._file:
            self.flush()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _particles(self, positions: "Array", directors: "Array", rod_angle: float | None) -> "dict[str, Array]":
        """Of agents and beads (M, 3), in the units of the file; a plane is z = 0."""
        import numpy as np

        number, dimensions = positions.shape
        found = {name: np.zeros((self.header.num_particles, 3)) for name in ("position", "director")}
        found["position"][:number, :dimensions], found["director"][:number, :dimensions] = positions, directors
        if self.rod is not None and rod_angle is not None:
            found["director"][number:, :2] = np.cos(rod_angle), np.sin(rod_angle)
            found["position"][number:] = np.asarray(self.rod.levers())[:, None] * found["director"][number:]
        found["position"] *= PER_UM
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Steps and seconds (T,); positions (T, M, 3) in um, not folded into the box, and directors; species (M,): 0 an agent, 1 a bead.

    Of agents also actions (T, N), -1 where there was none, rewards (T, N), NaN likewise, and whether each was seen (T, N).
    """

    header: Header
    steps: "Array"
    seconds: "Array"
    positions: "Array"
    directors: "Array"
    species: "Array"
    actions: "Array"
    rewards: "Array"
    tracked: "Array"
    rod_angles: "Array | None"

    def table(self) -> "pa.Table":
        """A row for each particle of each frame; units are in the metadata of the columns."""
        import numpy as np
        import pyarrow as pa

        frames, particles = self.positions.shape[:2]
        agents = self.header.num_agents

        def of_frames(values: "Array") -> "Array":
            return np.repeat(values, particles)

        def of_agents(values: "Array", unknown: "Array | None" = None) -> "pa.Array":
            """None for beads, and where it is not known."""
            rows = np.zeros((frames, particles), dtype=values.dtype)
            rows[:, :agents] = values
            absent = np.ones((frames, particles), dtype=bool)
            absent[:, :agents] = False if unknown is None else unknown
            return pa.array(rows.ravel(), mask=absent.ravel())

        columns: list[tuple[str, Any, str]] = [
            ("frame", of_frames(np.arange(frames)), ""),
            ("step", of_frames(self.steps), ""),
            ("seconds", of_frames(self.seconds), "s"),
            ("agent", np.tile(np.arange(particles), frames), ""),
            ("species", np.tile(self.species, frames), ""),
        ]
        columns += [(f"{axis}_um", self.positions[..., number].ravel(), "um") for number, axis in enumerate("xyz")]
        columns += [(f"director_{axis}", self.directors[..., number].ravel(), "1") for number, axis in enumerate("xyz")]
        columns.append(("action", of_agents(self.actions, self.actions == NO_ACTION), ""))
        columns.append(("reward", of_agents(self.rewards, np.isnan(self.rewards)), "1"))
        columns.append(("tracked", of_agents(self.tracked), ""))
        arrays = [pa.array(values) for _, values, _ in columns]
        fields = [pa.field(name, one.type, metadata={"unit": unit} if unit else None) for one, (name, _, unit) in zip(arrays, columns)]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"eigensweep.trajectory": _as_json(self.header)}))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """The table as a file."""
        import pyarrow.parquet as pq

        pq.write_table(self.table(), path, compression="zstd")


def read(path: str | os.PathLike[str], frames: slice = slice(None)) -> Trajectory:
    """A trajectory that TrajectoryWriter wrote, or some of its frames; Garbled, where the file is none or is cut off."""
    _need_h5py()
    import h5py
    import numpy as np

    if not Path(path).exists():
        raise ConfigError(f"there is no file {path}; give the path of a trajectory (.h5md) that a task saved")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            header = _header(file)
            particles, seen = file[f"particles/{GROUP}"], file["observables"]
            return Trajectory(
                header=header,
                steps=particles["position/step"][frames],
                seconds=particles["position/time"][frames],
                positions=particles["position/value"][frames] / PER_UM,
                directors=particles["director/value"][frames],
                species=np.asarray([AGENT] * header.num_agents + [BEAD] * header.num_beads, dtype=np.int32),
                actions=seen["action/value"][frames],
                rewards=seen["reward/value"][frames],
                tracked=seen["tracked/value"][frames].astype(bool),
                rod_angles=seen["rod_angle/value"][frames] if header.num_beads else None,
            )
    except _FAILS as error:
        raise Garbled(
            f"{path} is no trajectory that eigensweep wrote, or not all of one ({error}); "
            f"other H5MD files open with MDAnalysis; one that is cut off is written again by its task"
        ) from error


# -- the file -----------------------------------------------------------------------------------------------------------------


def _make(file: "h5py.File", header: Header, as_json: str, author: str, chunk_frames: int) -> "dict[str, h5py.Dataset]":
    """Groups, attributes and empty datasets, by name; `step` and `time` are one pair for all, as the format asks for the box."""
    text = _text()
    about = file.create_group("h5md")
    about.attrs["version"] = H5MD_VERSION
    about.create_group("author").attrs.create("name", author, dtype=text)
    creator = about.create_group("creator")
    creator.attrs.create("name", "eigensweep", dtype=text)
    creator.attrs.create("version", _version(), dtype=text)
    about.create_group("modules/units").attrs["version"] = (1, 0)
    file.create_group("parameters").create_dataset("header", data=as_json, dtype=text)
    particles, seen = file.create_group(f"particles/{GROUP}"), file.create_group("observables")
    made: dict[str, h5py.Dataset] = {}

    def add(name: str, place: str, shape: tuple[int, ...], dtype: str, unit: str = "") -> None:
        chunk = (chunk_frames, *shape) if shape else (1024,)
        packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        made[name] = file.create_dataset(place, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk, **packed)
        if unit:
            made[name].attrs.create("unit", unit, dtype=text)

    def add_element(group: "h5py.Group", name: str, shape: tuple[int, ...], dtype: str, unit: str = "") -> None:
        add(name.rpartition("/")[2], f"{group.name}/{name}/value", shape, dtype, unit)
        for axis in ("step", "time"):
            group[name][axis] = particles["position"][axis]

    number, agents = header.num_particles, (header.num_agents,)
    add("step", f"{particles.name}/position/step", (), "i8")
    add("time", f"{particles.name}/position/time", (), "f8", "s")
    add("position", f"{particles.name}/position/value", (number, 3), "f8", LENGTH_UNIT)
    add_element(particles, "director", (number, 3), "f8")
    add_element(particles, "species", (number,), "i4")
    box = particles.create_group("box")
    sides = [header.box is not None and axis < header.num_dimensions for axis in range(3)]
    box.attrs["dimension"] = 3
    box.attrs.create("boundary", ["periodic" if side else "none" for side in sides], dtype=text)
    add_element(particles, "box/edges", (3,), "f8", LENGTH_UNIT)
    add_element(seen, "action", agents, "i4")
    add_element(seen, "reward", agents, "f8")
    add_element(seen, "tracked", agents, "i1")
    if header.num_beads:
        add_element(seen, "rod_angle", (), "f8", "rad")
    return made


def _fill(datasets: "Mapping[str, h5py.Dataset]", header: Header, first: int) -> None:
    """What is the same in each frame: readers want it frame by frame. Edges of 0 are their sign for no box; a plane is one agent thick."""
    thickness = 2.0 * header.radius if header.num_dimensions == 2 else header.box
    edges = [0.0] * 3 if header.box is None else [header.box, header.box, thickness]
    datasets["edges"][first:] = [PER_UM * (edge or 0.0) for edge in edges]
    datasets["species"][first:] = [AGENT] * header.num_agents + [BEAD] * header.num_beads


def _header(file: "h5py.File") -> Header:
    known = json.loads(file["parameters/header"].asstr()[()])
    return Header(**known | {"action_names": tuple(known["action_names"])})


def _as_json(header: Header) -> str:
    try:
        return json.dumps(asdict(header), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings of a trajectory must be plain values, as JSON has them: {error}") from error


def _array(name: str, values: Any, shape: tuple[int, ...]) -> "Array":
    """Of a tensor or whatever numpy takes."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    found: Array = np.array(values)
    if found.shape != shape:
        raise ConfigError(f"{name} of a frame must have the shape {shape}, got {found.shape}")
    return found


def _version() -> str:
    try:
        return importlib.metadata.version("eigensweep")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _text() -> Any:
    """The type of a string in UTF-8."""
    import h5py

    return h5py.string_dtype()


def _need_h5py() -> None:
    missing = h5py_missing()
    if missing:
        raise ConfigError(missing)
