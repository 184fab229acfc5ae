"""Files of trajectories, as other programs read them and as we do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("h5py")

from workers.errors import ConfigError, Garbled
from workers.swarm.contacts import Rod
from workers.swarm.engine import Body, Engine
from workers.swarm.friction import sphere
from workers.swarm.trajectory import Trajectory, TrajectoryWriter, read

CASES = [(2, None, None), (2, 300.0, None), (3, None, None), (3, 300.0, None), (2, None, Rod()), (2, 300.0, Rod(num_beads=7))]
AGENTS, FRAMES = 4, 23


def written(path: Path, dimensions: int = 2, box: float | None = None, rod: Rod | None = None, **more: Any) -> list[np.ndarray]:
    """A file of random positions in single precision, and these (T, N, D)."""
    rng = np.random.default_rng(1)
    told = {"num_agents": AGENTS, "num_dimensions": dimensions, "radius": 2.14, "frame_seconds": 0.1} | more
    kept = []
    with TrajectoryWriter(path, box=box, rod=rod, **told) as writer:
        for step in range(FRAMES):
            positions = torch.tensor(100.0 * rng.normal(size=(AGENTS, dimensions)), dtype=torch.float32)
            directors = rng.normal(size=(AGENTS, dimensions))
            writer.append(3 * step, 0.3 * step, positions, directors, None if rod is None else 0.01 * step)
            kept.append(positions.numpy())
    return kept


def appended(path: Path, **frame: Any) -> None:
    with TrajectoryWriter(path, num_agents=2, num_dimensions=2, radius=1.0, frame_seconds=0.1) as writer:
        writer.append(**{"step": 1, "seconds": 0.1, "positions": np.zeros((2, 2)), "directors": np.zeros((2, 2))} | frame)


@pytest.mark.filterwarnings("ignore:there is no reference attributes")
@pytest.mark.parametrize(("dimensions", "box", "rod"), CASES)
def test_mdanalysis_reads_what_was_written(tmp_path: Path, dimensions: int, box: float | None, rod: Rod | None):
    mda = pytest.importorskip("MDAnalysis")
    kept = written(tmp_path / "a.h5md", dimensions, box, rod)
    universe = mda.Universe(str(tmp_path / "a.h5md"))
    assert universe.trajectory.n_frames == FRAMES
    assert universe.atoms.n_atoms == AGENTS + (0 if rod is None else rod.num_beads)
    for step, frame in enumerate(universe.trajectory):
        # it converts to Angstrom and ps, in single precision
        np.testing.assert_allclose(frame.positions[:AGENTS, :dimensions], 1e4 * kept[step], rtol=1e-6)
        assert frame.time == pytest.approx(0.3e12 * step)
        assert frame.data["step"] == 3 * step
        edges = None if box is None else [box, box, box if dimensions == 3 else 4.28]
        assert (frame.dimensions is None) if edges is None else frame.dimensions[:3].tolist() == pytest.approx([1e4 * one for one in edges])
    universe.trajectory.close()


@pytest.mark.parametrize(("dimensions", "box", "rod"), CASES)
def test_znh5md_reads_what_was_written(tmp_path: Path, dimensions: int, box: float | None, rod: Rod | None):
    znh5md = pytest.importorskip("znh5md")
    kept = written(tmp_path / "a.h5md", dimensions, box, rod)
    frames = znh5md.IO(tmp_path / "a.h5md")[:]
    assert len(frames) == FRAMES
    for positions, atoms in zip(kept, frames):
        # it takes numbers as they are: nm
        assert np.array_equal(atoms.positions[:AGENTS, :dimensions] / 1000.0, positions)
        assert atoms.pbc.tolist() == [box is not None] * 2 + [box is not None and dimensions == 3]
        assert atoms.cell.lengths().tolist()[:2] == [1000.0 * (box or 0.0)] * 2
        assert atoms.numbers.tolist() == [0] * AGENTS + [1] * (len(atoms) - AGENTS)


@pytest.mark.parametrize(("dimensions", "box", "rod"), CASES)
def test_single_precision_comes_back_bit_for_bit(tmp_path: Path, dimensions: int, box: float | None, rod: Rod | None):
    kept = written(tmp_path / "a.h5md", dimensions, box, rod)
    found = read(tmp_path / "a.h5md")
    assert np.array_equal(found.positions[:, :AGENTS, :dimensions].astype(np.float32), np.stack(kept))
    assert np.array_equal(found.positions[:, :AGENTS, :dimensions], np.stack(kept).astype(np.float64))
    assert found.header.box == box
    assert found.header.radius == 2.14
    assert not found.positions[:, :AGENTS, dimensions:].any()


def test_beads_stand_along_the_rod(tmp_path: Path):
    rod = Rod(length=10.0, num_beads=5)
    written(tmp_path / "a.h5md", rod=rod)
    found = read(tmp_path / "a.h5md")
    beads = found.positions[:, found.species == 1]
    assert found.rod_angles is not None
    angles = np.stack([np.cos(found.rod_angles), np.sin(found.rod_angles), 0 * found.rod_angles], -1)
    np.testing.assert_allclose(beads, angles[:, None] * np.asarray(rod.levers())[:, None], atol=1e-12)
    np.testing.assert_allclose(found.directors[:, AGENTS:], np.broadcast_to(angles[:, None], beads.shape))


@pytest.mark.parametrize("flush_frames", [1, 2, None])
def test_a_file_does_not_depend_on_when_frames_were_written(tmp_path: Path, flush_frames: int | None):
    written(tmp_path / "a.h5md", flush_frames=flush_frames)
    written(tmp_path / "b.h5md", flush_frames=7)
    one, other = read(tmp_path / "a.h5md"), read(tmp_path / "b.h5md")
    for name in ("steps", "seconds", "positions", "directors", "actions", "tracked"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_some_frames_are_read_alone(tmp_path: Path):
    written(tmp_path / "a.h5md")
    assert read(tmp_path / "a.h5md", slice(5, 20, 5)).steps.tolist() == [15, 30, 45]


def test_states_of_an_engine_with_actions_and_rewards(tmp_path: Path):
    body = Body(radius=2.0, friction=sphere(2.0, 8.9e-4), temperature=300.0, contact_temperature=300.0)
    engine = Engine([body] * 2, [1, 2], num_environments=3, num_agents=AGENTS, slice_seconds=0.5, num_substeps=5, rod=Rod())
    state = engine.start(80.0)
    told = {"num_agents": AGENTS, "num_dimensions": 2, "radius": 2.0, "frame_seconds": 0.5}
    with TrajectoryWriter(
        tmp_path / "a.h5md", rod=engine.rod, action_names=["left", "forward"], settings={"temperature": 300.0}, **told
    ) as writer:
        writer.append_state(engine, state, policy=1, environment=2)
        engine.advance(state, torch.zeros(engine.shape), torch.zeros(engine.shape))
        writer.append_state(
            engine, state, policy=1, environment=2, actions=torch.tensor([0, 1, 1, 0]), rewards=torch.tensor([0.5, 1, 0, 0])
        )
    found = read(tmp_path / "a.h5md")
    assert np.array_equal(found.positions[1, :AGENTS, :2].astype(np.float32), state.positions[:, 1, 2].T.numpy())
    assert found.rod_angles is not None
    assert state.rods is not None
    assert found.rod_angles[1] == state.rods[1, 2].item()
    assert found.seconds.tolist() == [0.0, 0.5]
    assert found.actions.tolist() == [[-1] * 4, [0, 1, 1, 0]]
    assert np.isnan(found.rewards[0]).all()
    assert found.rewards[1].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert found.tracked.all()
    assert found.header.action_names == ("left", "forward")
    assert found.header.settings == {"temperature": 300.0}


def test_the_table_has_a_row_for_each_particle_of_each_frame_and_units(tmp_path: Path):
    import pyarrow.parquet as pq

    written(tmp_path / "a.h5md", rod=Rod(num_beads=3))
    found = read(tmp_path / "a.h5md")
    found.to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert len(table) == FRAMES * (AGENTS + 3)
    assert table.schema.field("x_um").metadata == {b"unit": b"um"}
    assert table.schema.field("seconds").metadata == {b"unit": b"s"}
    row = table.slice(2 * (AGENTS + 3) + 5, 1).to_pylist()[0]
    assert (row["frame"], row["step"], row["agent"], row["species"], row["action"], row["tracked"]) == (2, 6, 5, 1, None, None)
    assert [row["x_um"], row["y_um"], row["z_um"]] == found.positions[2, 5].tolist()
    assert row["director_y"] == found.directors[2, 5, 1]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"positions": np.zeros((2, 3))}, r"positions of a frame must have the shape \(2, 2\), got \(2, 3\)"),
        ({"rewards": np.zeros(3)}, r"rewards of a frame must have the shape \(2,\)"),
        ({"rod_angle": 0.1}, "rod_angle is for a trajectory with a rod"),
    ],
)
def test_frames_that_cannot_be(tmp_path: Path, frame: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        appended(tmp_path / "a.h5md", **frame)


def test_time_goes_on_and_ends_with_the_file(tmp_path: Path):
    zeros = np.zeros((2, 2))
    with TrajectoryWriter(tmp_path / "a.h5md", num_agents=2, num_dimensions=2, radius=1.0, frame_seconds=0.1) as writer:
        writer.append(1, 0.1, zeros, zeros)
        with pytest.raises(ConfigError, match="frames must go on in step and seconds, got step 1"):
            writer.append(1, 0.2, zeros, zeros)
    with pytest.raises(ConfigError, match="the trajectory is closed, after 1 frames"):
        writer.append(2, 0.2, zeros, zeros)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"num_dimensions": 4}, "2 or 3 dimensions"),
        ({"flush_frames": 0}, "flush_frames must be 1 or more"),
        ({"settings": {"a": object()}}, "plain values"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, told: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        TrajectoryWriter(tmp_path / "a.h5md", **{"num_agents": 2, "num_dimensions": 2, "radius": 1.0, "frame_seconds": 0.1} | told)
    assert not (tmp_path / "a.h5md").exists()


def test_files_that_are_no_trajectories(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no file"):
        read(tmp_path / "none.h5md")
    written(tmp_path / "a.h5md")
    whole = (tmp_path / "a.h5md").read_bytes()
    for number, content in enumerate([b"", b"step,x\n", whole[: len(whole) // 2]]):
        (tmp_path / f"{number}.h5md").write_bytes(content)
        with pytest.raises(Garbled, match="is no trajectory that eigensweep wrote"):
            read(tmp_path / f"{number}.h5md")


def test_what_was_flushed_is_read_while_the_writer_is_at_work(tmp_path: Path):
    zeros = np.zeros((2, 2))
    writer = TrajectoryWriter(tmp_path / "a.h5md", num_agents=2, num_dimensions=2, radius=1.0, frame_seconds=0.1, flush_frames=1)
    for step in range(3):
        writer.append(step, 0.1 * step, zeros, zeros)
    (tmp_path / "copy.h5md").write_bytes((tmp_path / "a.h5md").read_bytes())
    found: Trajectory = read(tmp_path / "copy.h5md")
    assert found.steps.tolist() == [0, 1, 2]
    writer.close()


def test_without_h5py_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'eigensweep\[swarm\]'"):
        read(tmp_path / "a.h5md")
