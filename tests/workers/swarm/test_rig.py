"""Policies that drive agents over a socket: a simulated rig in another process, and rigs that fail in every way."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workers.errors import ConfigError, RigLost
from workers.swarm import noise, rig_messages
from workers.swarm.actions.discrete import Discrete
from workers.swarm.arena import Arena
from workers.swarm.networks import networks
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.policies import Acting
from workers.swarm.rig import RigEngine
from workers.swarm.rig_link import LARGEST, Link, address_of, connect, listen, parsed_address
from workers.swarm.rig_server import SimulatedRig, serve, simulated
from workers.swarm.tasks.gradient_sensing import GradientSensing

HERE = Path(__file__).parents[3]
HELLO = {"type": "hello", "protocol": 1, "num_agents": 2, "num_dimensions": 2, "length_unit": "um", "time_unit": "s", "radius_um": 1.0}
CASES = ["", "--dtype=float64", "--dimensions=3", "--rod", "--aspect=3 --agents=1"]
Started = Callable[..., tuple[subprocess.Popen[str], str]]


def seen(seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    told = {
        "type": "state",
        "seconds": seconds,
        "ids": [4, 7],
        "positions": [[1.0, 2.0], [3.0, 4.0]],
        "directors": [[1.0, 0.0], [0.0, -1.0]],
    }
    return told | more


DONE = {"type": "done"}


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts simulated rigs in processes of their own, and ends them."""
    running = []

    def start(*options: str, argv: list[str] | None = None) -> tuple[subprocess.Popen[str], str]:
        command = argv or [sys.executable, "-m", "workers.swarm.rig_server", *options]
        one = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE)
        running.append(one)
        assert one.stdout is not None
        return one, one.stdout.readline()

    yield start
    for one in running:
        one.kill()
        one.wait()
        assert one.stdout is not None
        one.stdout.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., str]]:
    """Starts a rig in a thread that sends these answers whatever it is asked, keeps what it was asked, and then waits or hangs up."""
    threads, sockets = [], []

    def start(*answers: Any, hang_up: bool = False, asked: list[Any] | None = None) -> str:
        listener = listen("127.0.0.1:0")
        sockets.append(listener)

        def run() -> None:
            # the other side may hang up at any time
            with contextlib.suppress(OSError):
                talk(listener.accept()[0])

        def talk(connection: socket.socket) -> None:
            sockets.append(connection)
            with connection.makefile("rb") as lines:
                for answer, line in zip(answers, lines):
                    if asked is not None:
                        asked.append(json.loads(line))
                    connection.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
                if hang_up:
                    connection.shutdown(socket.SHUT_RDWR)
                # until the other side hangs up
                while lines.readline():
                    pass

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        threads.append(thread)
        return address_of(listener)

    yield start
    for one in sockets:
        one.close()
    for thread in threads:
        thread.join(5)


def advanced(engine: RigEngine, state: Any) -> None:
    engine.advance(state, torch.zeros(engine.shape), torch.zeros(engine.shape))


# -- a simulated rig in another process ------------------------------------------------------------------------------------


def trajectory(engine: Any, state: Any, num_slices: int) -> tuple[Any, list[Any]]:
    """Of agents that follow a policy of fixed weights and choose by the engine's keys: the episode, and the state at its end."""
    arena = Arena(
        engine, state, observable=ConcentrationField(), task=GradientSensing(), action=Discrete(), forces_P=[0.5], torques_P=[3.0]
    )
    actor = Acting(networks([1, 16, 4], torch.tensor([5]), noise.WEIGHTS, engine.dtype), 1)
    episode = arena.episode(actor, num_slices, exploration=0.2)
    return episode, [arena.state.positions, arena.state.directors, arena.state.rods]


@pytest.mark.parametrize("case", CASES)
def test_a_rig_gives_the_trajectory_of_its_engine_bit_for_bit(started: Started, case: str):
    options = ["--seed=11", "--start-radius=12", *case.split()]
    rig, line = started(*options)
    direct, state, _ = simulated(options)
    expected = trajectory(direct, state, 30)
    with RigEngine(json.loads(line)["address"], slice_seconds=0.1, seed=11, dtype=direct.dtype) as engine:
        found = trajectory(engine, engine.start(12.0), 30)
    for name in ("observations", "actions", "rewards", "last"):
        assert torch.equal(getattr(found[0], name), getattr(expected[0], name)), name
    assert len(set(expected[0].actions.flatten().tolist())) > 2
    assert direct.num_by_substeps > 0 or direct.shape[2] == 1
    assert torch.equal(found[1][0], expected[1][0])
    assert torch.equal(found[1][1], expected[1][1])
    assert (found[1][2] is None) == (expected[1][2] is None)
    assert expected[1][2] is None or torch.equal(found[1][2], expected[1][2])
    assert engine.radius.item() == direct.radius.item()
    assert (engine.rod is None) == (direct.rod is None)
    # it was told the end
    assert rig.wait(10) == 0


def test_a_killed_rig_is_named_and_every_frame_before_is_kept(started: Started, tmp_path: Path):
    pytest.importorskip("h5py")
    from workers.swarm.trajectory import read

    rig, line = started("--agents=3", "--rod")
    engine = RigEngine(json.loads(line)["address"], slice_seconds=0.1)
    writer = engine.record(tmp_path / "a.h5md", {"note": "laser 2"})
    state = engine.start()
    for _ in range(5):
        advanced(engine, state)
    positions, slices = state.positions.clone(), engine.slices
    rig.send_signal(signal.SIGKILL)
    rig.wait()
    with pytest.raises(
        RigLost, match=r"the rig at 127.0.0.1:\d+ went away .* start it again and make a new RigEngine; what was recorded is kept"
    ):
        advanced(engine, state)
    with pytest.raises(RigLost, match="went away"):
        engine.start()
    assert torch.equal(state.positions, positions)
    assert engine.slices == slices
    # also if this process went now: it is on the disk before the file is closed
    (tmp_path / "b.h5md").write_bytes((tmp_path / "a.h5md").read_bytes())
    writer.close()
    for name in ("a.h5md", "b.h5md"):
        found = read(tmp_path / name)
        assert found.steps.tolist() == list(range(6))
        assert np.array_equal(found.positions[-1, :3, :2], positions[:, 0, 0].T.double().numpy())
        assert found.header.settings == {"note": "laser 2"}


def test_a_rig_goes_on_for_the_next_client_at_a_unix_socket(started: Started, tmp_path: Path):
    path = str(tmp_path / "rig.sock")
    rig, _ = started("--unix", path)
    first = RigEngine(path, slice_seconds=0.1)
    state = first.start()
    advanced(first, state)
    first.link.end("this process is gone")
    with RigEngine(f"unix:{path}", slice_seconds=0.1) as second:
        assert torch.equal(second.start().positions, state.positions)
        assert second.seconds == pytest.approx(0.1)
    assert rig.wait(10) == 0
    assert not Path(path).exists()


def test_the_rig_of_the_page_is_one(started: Started):
    block = re.search(r"```python\n(import json.*?)```", (HERE / "docs/rig.md").read_text(), re.DOTALL)
    assert block is not None
    _, line = started(argv=[sys.executable, "-c", block.group(1), "0"])
    with RigEngine(f"127.0.0.1:{int(line)}", slice_seconds=0.05) as engine:
        state = engine.start()
        engine.advance(state, torch.tensor([[[2.0, 0.0]]]), torch.zeros(engine.shape))
    assert state.positions[0].flatten().tolist() == pytest.approx([0.1, 30.0])


# -- what a rig is told -----------------------------------------------------------------------------------------------------


def test_actions_are_told_in_pn_and_by_name(scripted: Callable[..., str]):
    asked: list[Any] = []
    engine = RigEngine(scripted(HELLO, seen(), DONE, seen(2.0), DONE, asked=asked), slice_seconds=2.0)
    state = engine.start()
    engine.advance(state, torch.tensor([[[0.5, 0.0]]]), torch.tensor([[[0.0, -3.0]]]))
    engine.close()
    told = {"ids": [4, 7], "forces_pn": [0.5, 0.0], "torques_pn_um": [0.0, -3.0], "actions": ["forward", "right"], "seconds": 2.0}
    assert asked[2] == {"type": "act", **told}
    assert [one["type"] for one in asked] == ["hello", "state", "act", "integrate", "end"]
    assert state.positions[:, 0, 0].tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_names_of_actions_are_of_their_signs():
    signs = [("", 0.0), ("forward", 1.0), ("backward", -1.0)], [("", 0.0), ("left", 2.0), ("right", -2.0)]
    for push, force in signs[0]:
        for turn, torque in signs[1]:
            assert rig_messages.NAMES[rig_messages.number_of(force, torque)] == (f"{push} {turn}".strip() or "rest")


def test_a_lost_agent_stays_where_it_was_is_told_nothing_and_comes_back(scripted: Callable[..., str], tmp_path: Path):
    pytest.importorskip("h5py")
    from workers.swarm.trajectory import read

    asked: list[Any] = []
    lost = seen(1.0, ids=[7], positions=[[5.0, 6.0]], directors=[[1.0, 0.0]])
    none = seen(2.0, ids=[], positions=[], directors=[])
    back = seen(3.0, ids=[7, 4], positions=[[8.0, 8.0], [9.0, 9.0]], directors=[[0.0, 1.0], [-1.0, 0.0]])
    answers = [HELLO, seen(), DONE, lost, DONE, none, DONE, back, DONE]
    with RigEngine(scripted(*answers, asked=asked), slice_seconds=1.0) as engine, engine.record(tmp_path / "a.h5md"):
        state = engine.start()
        found = []
        for _ in range(3):
            engine.advance(state, torch.ones(engine.shape), torch.zeros(engine.shape))
            found.append((state.positions[:, 0, 0].T.tolist(), engine.tracked.tolist()))
    assert found == [
        ([[1.0, 2.0], [5.0, 6.0]], [False, True]),
        ([[1.0, 2.0], [5.0, 6.0]], [False, False]),
        ([[9.0, 9.0], [8.0, 8.0]], [True, True]),
    ]
    assert [one["ids"] for one in asked if one["type"] == "act"] == [[4, 7], [7], []]
    kept = read(tmp_path / "a.h5md")
    assert kept.tracked.tolist() == [[True, True], [False, True], [False, False], [True, True]]
    assert kept.seconds.tolist() == [0.0, 1.0, 2.0, 3.0]
    forward = rig_messages.NAMES.index("forward")
    assert kept.actions.tolist() == [[-1, -1], [forward, forward], [-1, forward], [-1, -1]]


def test_a_second_start_takes_what_is_seen_and_keeps_who_is_not(scripted: Callable[..., str]):
    later = seen(5.0, ids=[7], positions=[[5.0, 6.0]], directors=[[1.0, 0.0]])
    engine = RigEngine(scripted(HELLO, seen(), later), slice_seconds=1.0)
    engine.start()
    assert engine.start().positions[:, 0, 0].T.tolist() == [[1.0, 2.0], [5.0, 6.0]]


def test_a_single_agent_as_matlab_writes_it(scripted: Callable[..., str]):
    told = seen(ids=3, positions=[1.0, 2.0], directors=[0.0, 1.0])
    engine = RigEngine(scripted(HELLO | {"num_agents": 1}, told), slice_seconds=1.0)
    assert engine.start().positions.flatten().tolist() == [1.0, 2.0]


def test_a_rig_that_calls_us(tmp_path: Path):
    path = str(tmp_path / "rig.sock")

    def call() -> None:
        # until someone waits there
        while True:
            try:
                link = connect(path, 5.0)
                break
            except RigLost:
                continue
        for answer in (HELLO, seen()):
            link.receive(5.0)
            link.send(answer, 5.0)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    engine = RigEngine(f"listen:{path}", slice_seconds=1.0)
    assert engine.start().positions.shape == (2, 1, 1, 2)
    thread.join(5)
    engine.link.end("")


# -- rigs that fail ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"protocol": 2}, "speaks protocol 2, and this is 1; update the older"),
        ({"protocol": None}, "speaks protocol None"),
        ({"length_unit": "mm"}, "gives length_unit 'mm', and must give 'um': have it convert"),
        ({"time_unit": "ms"}, "time_unit 'ms'"),
        ({"num_agents": 0}, "must have 1 to 10000 agents in 2 or 3 dimensions, got 0 and 2"),
        ({"num_agents": 10**400}, "must have 1 to 10000 agents"),
        ({"num_dimensions": True}, "2 or 3 dimensions, got 2 and True"),
        ({"radius_um": None}, "radius_um must be a number, got None"),
        ({"radius_um": -1}, "radius_um must be above 0"),
        ({"rod": {"num_beads": 0}}, "rod must be an object with length_um and num_beads"),
    ],
)
def test_a_hello_that_is_not_for_us(scripted: Callable[..., str], hello: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        RigEngine(scripted(HELLO | hello), slice_seconds=1.0)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"seconds": None}, "seconds must be a number, got None"),
        ({"seconds": 0.0}, "seconds must go on from 0.0, got 0.0"),
        ({"ids": [4, 4]}, "ids must be different whole numbers"),
        ({"ids": [4, 8]}, r"ids \[8\] are new, there were \[4, 7\]"),
        ({"ids": [4]}, r"positions must have the shape \(1, 2\), as there are 1 ids, got \(2, 2\)"),
        ({"positions": [[1.0, 2.0], [3.0]]}, "positions must be 2 lists of 2 numbers"),
        ({"positions": [[1.0, 2.0], [3.0, None]]}, "positions must be 2 lists of 2 numbers"),
        ({"positions": [[1.0, 2.0], [3.0, "x"]]}, "positions must be 2 lists of 2 numbers"),
        ({"positions": None}, "positions must be 2 lists of 2 numbers, got None"),
        ({"positions": [[1.0, 2.0], [3.0, 1e300]]}, "positions must be finite"),
        ({"positions": [[1.0, 2.0], [3.0, 10**400]]}, "positions must be 2 lists"),
        ({"directors": [[1.0, 0.0], [0.0, 0.5]]}, "directors must have the length 1"),
        (b'{"type": "state", "seconds": NaN}\n', "a line that is not JSON .NaN is no number in JSON"),
        (b'{"type": "state", "seconds": 1e999}\n', "seconds must be a number, got inf"),
        (b"ok\n", "sent a line that is not JSON .*: 'ok'"),
        (b"\xff\xfe\n", "is not JSON"),
        (b"[" * 100_000 + b"\n", "is not JSON"),
        (b"[1]\n", 'no object with a "type"'),
        (b'{"type": "done"}\n', "answered integrate by 'done', and must by 'state'"),
        (b'{"type": "error", "message": "the laser is off"}\n', "refused integrate: the laser is off"),
        (b"x" * (LARGEST + 2**17), "bytes without an end of line"),
    ],
)
def test_a_state_that_cannot_be_ends_the_link_and_changes_nothing(scripted: Callable[..., str], told: Any, words: str):
    answer = told if isinstance(told, bytes) else seen(1.0) | told
    engine = RigEngine(scripted(HELLO, seen(), DONE, answer, hang_up=isinstance(told, bytes)), slice_seconds=1.0)
    state = engine.start()
    before = state.positions.clone(), state.directors.clone()
    with pytest.raises(RigLost, match=words):
        advanced(engine, state)
    assert torch.equal(state.positions, before[0])
    assert torch.equal(state.directors, before[1])
    assert engine.slices == 0
    assert engine.tracked.all()
    with pytest.raises(RigLost, match=words):
        advanced(engine, state)
    engine.close()


def test_all_agents_must_be_seen_at_the_start(scripted: Callable[..., str]):
    engine = RigEngine(scripted(HELLO | {"num_agents": 3}, seen()), slice_seconds=1.0)
    with pytest.raises(RigLost, match=r"at the start all of its 3 agents must be seen, and it sees 2, with ids \[4, 7\]"):
        engine.start()


def test_a_rod_must_have_its_angle(scripted: Callable[..., str]):
    engine = RigEngine(scripted(HELLO | {"rod": {"length_um": 10.0, "num_beads": 5}}, seen()), slice_seconds=1.0)
    with pytest.raises(RigLost, match="rod_angle must be a number, got None"):
        engine.start()


def test_a_silent_rig_is_given_its_time_and_no_more(scripted: Callable[..., str]):
    engine = RigEngine(scripted(HELLO, seen(), DONE), slice_seconds=0.05, timeout_seconds=0.1)
    state = engine.start()
    with pytest.raises(
        RigLost, match=r"was silent for 0.15 s; see what it does, or give it longer by timeout_seconds \(asked: integrate\)"
    ):
        advanced(engine, state)


def test_pieces_that_keep_coming_do_not_put_off_the_end():
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        theirs.settimeout(0.001)
        while not stop.is_set():
            # it is full, or the other side is gone
            with contextlib.suppress(OSError):
                theirs.send(b" ")

    thread = threading.Thread(target=trickle)
    thread.start()
    with Link(ours, "the rig") as link, pytest.raises(RigLost, match="was silent for 0.05 s"):
        link.receive(0.05)
    stop.set()
    theirs.close()
    thread.join(5)


def test_a_wait_that_was_broken_off_does_not_take_an_old_answer_for_a_new_one(
    scripted: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    engine = RigEngine(scripted(HELLO, seen(), DONE, seen(1.0)), slice_seconds=1.0)
    state = engine.start()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.link, "receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        advanced(engine, state)
    with pytest.raises(RigLost, match="was broken off; make a new RigEngine"):
        advanced(engine, state)


def test_nobody_there(tmp_path: Path):
    listener = listen("127.0.0.1:0")
    address = address_of(listener)
    listener.close()
    with pytest.raises(RigLost, match=f"no rig answers at {address} .* start it first"):
        RigEngine(address, slice_seconds=1.0)
    with pytest.raises(RigLost, match=r"no rig connected to .* in 0.01 s"):
        RigEngine(f"listen:{tmp_path}/rig.sock", slice_seconds=1.0, timeout_seconds=0.01)


@pytest.mark.parametrize("address", ["5005", "host", "host:", ":5005", "host:70000", "host:http"])
def test_addresses_that_are_none(address: str):
    with pytest.raises(ConfigError, match=r"host:port, as 127.0.0.1:5005, or the path of a Unix socket"):
        parsed_address(address)


def test_addresses():
    assert parsed_address("lab-pc:5005") == ("lab-pc", 5005)
    assert parsed_address("[::1]:80") == ("::1", 80)
    assert parsed_address("unix:/tmp/rig.sock") == parsed_address("/tmp/rig.sock") == "/tmp/rig.sock"
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        parsed_address("/tmp/" + "x" * 107)


def test_an_address_that_is_taken(tmp_path: Path):
    with listen("127.0.0.1:0") as listener, pytest.raises(ConfigError, match="cannot listen at .*; take another port"):
        listen(address_of(listener))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_that_cannot_be(seconds: float):
    with pytest.raises(ConfigError, match="slice_seconds and timeout_seconds must be above 0"):
        RigEngine("127.0.0.1:1", slice_seconds=seconds)


def test_actions_that_are_no_numbers_are_not_sent(scripted: Callable[..., str]):
    engine = RigEngine(scripted(HELLO, seen()), slice_seconds=1.0)
    with pytest.raises(ConfigError, match=r"take it from start\(\)"):
        engine.advance(None, torch.zeros(engine.shape), torch.zeros(engine.shape))  # type: ignore[arg-type]
    state = engine.start()
    with pytest.raises(ConfigError, match="finite forces and torques alone, got nan pN"):
        engine.advance(state, torch.full(engine.shape, float("nan")), torch.zeros(engine.shape))


# -- the simulated rig ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"type": "fly"}, "there is no message 'fly'; there are hello, state, act, integrate, end"),
        ({"type": "hello", "protocol": 2}, "this rig speaks protocol 1, got 2"),
        ({"type": "integrate", "seconds": 0.2}, "goes on by its slice of 0.1 s, got 0.2"),
        ({"type": "act", "ids": [9]}, "ids must be different whole numbers from 0 to 4"),
        ({"type": "act", "ids": [0], "forces_pn": [1.0, 2.0]}, "forces_pn must be 1 numbers"),
        ({"type": "act", "ids": [0], "forces_pn": [1e300], "torques_pn_um": [0.0]}, "forces_pn must be finite"),
    ],
)
def test_a_simulated_rig_refuses_what_cannot_be(message: dict[str, Any], words: str):
    rig = SimulatedRig(*simulated([])[:2])
    with pytest.raises(ValueError, match="the first message must be hello"):
        rig.answer({"type": "state"})
    rig.answer({"type": "hello", "protocol": 1})
    before = rig.answer({"type": "state"})
    with pytest.raises(ValueError, match=words):
        rig.answer(message)
    assert rig.answer({"type": "state"}) == before


def test_an_engine_of_several_environments_is_no_rig():
    from workers.swarm.engine import Body, Engine
    from workers.swarm.friction import sphere

    body = Body(radius=1.0, friction=sphere(1.0, 1e-3), temperature=300.0, contact_temperature=300.0)
    engine = Engine([body], [1], num_environments=2, num_agents=3, slice_seconds=0.1, num_substeps=1)
    with pytest.raises(ConfigError, match=r"one policy's and one environment, got an engine of the shape \(1, 2, 3\)"):
        serve(engine, engine.start(20.0), "127.0.0.1:0")


def test_a_simulated_rig_outlives_clients_that_talk_nonsense(started: Started):
    _, line = started()
    address = json.loads(line)["address"]
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1000 + b"\n", b'{"type": "state"}\n', b"{"):
        with connect(address, 5.0) as link:
            link.connection.sendall(content)
            link.connection.shutdown(socket.SHUT_WR)
            while link.connection.recv(1000):
                pass
    with RigEngine(address, slice_seconds=0.1) as engine:
        assert engine.start().positions.shape == (2, 1, 1, 5)


def test_the_command_says_what_is_wrong():
    command = [sys.executable, "-m", "workers.swarm.rig_server", "--host=127.0.0.1", "--port=99999"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=HERE, timeout=60)
    assert found.returncode == 2
    assert found.stderr.startswith("error: the address of a rig is host:port")
